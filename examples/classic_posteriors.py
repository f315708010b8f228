"""Classic posteriors on real data: mean-field and full-rank fits against long NUTS runs.

* Eight schools, non-centred: coaching effects (Rubin 1981; Gelman et al., Bayesian Data Analysis).
* Hierarchical regression: diabetes progression on body mass, with an effect of each group of age
  and sex (442 patients; Efron, Hastie, Johnstone and Tibshirani 2004, from scikit-learn).
* Logistic regression: breast tumours (569; Street, Wolberg and Mangasarian 1993, scikit-learn).
* Poisson regression: sit-ups of 20 men on weight, waist and pulse (Linnerud, from scikit-learn).
* Gaussian process regression: the S&P 500's logarithm at 33 year ends (Yahoo, from matplotlib).
* Stochastic volatility: 100 monthly returns of the S&P 500 (the same file).

The table has, for each fit, the largest error of a posterior mean and the extremes of the ratio of
standard deviations, both against NUTS, over all numbers of the model; and k-hat, which tells from
the fit alone whether it can be trusted (below 0.7).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn import datasets

from examples._report import run_as_script
from ppl import (
    bernoulli,
    exponential,
    gen,
    half_cauchy,
    half_normal,
    log_normal,
    multivariate_normal,
    normal,
    poisson,
    vi,
)
from ppl.lang.observed import flat_choices
from stdlib.report import OUTPUTS, console, print_table

CLOSE = 0.15
"""Standard deviations: full-rank means of the first four posteriors are nearer than that."""


@dataclass(frozen=True)
class Posterior:
    """A model and its data."""

    model: Any
    observed: dict[str, Any]
    args: tuple[Any, ...]
    learning_rate: float = 0.03


# ------------------------------------------------------------------------------- the models


@gen
def schools(errors):
    mean = normal(0.0, 5.0) @ "mean"
    spread = half_cauchy(0.0, 5.0) @ "spread"
    deviation = normal.repeat(len(errors))(0.0, 1.0) @ "deviation"
    normal(mean + spread * deviation, errors) @ "effect"


def eight_schools() -> Posterior:
    effects = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return Posterior(schools, {"effect": effects}, (errors,))


def hierarchical() -> Posterior:
    data: Any = datasets.load_diabetes(scaled=False)
    age, sex, mass = data.data[:, 0], data.data[:, 1], data.data[:, 2]
    _, group = np.unique(np.stack([age // 10, sex]), axis=1, return_inverse=True)
    count = int(group.max()) + 1

    @gen
    def patients(mass, group):
        base = normal(0.0, 1.0) @ "base"
        slope = normal(0.0, 1.0) @ "slope"
        spread = half_normal(1.0) @ "spread"
        noise = half_normal(1.0) @ "noise"
        deviation = normal.repeat(count)(0.0, 1.0) @ "deviation"
        normal(base + spread * deviation[group] + slope * mass, noise) @ "progression"

    observed = {"progression": standardised(data.target)}
    return Posterior(patients, observed, (standardised(mass), jnp.asarray(group)))


@gen
def tumours(features):
    intercept = normal(0.0, 2.0) @ "intercept"
    weights = normal(jnp.zeros(features.shape[1]), 2.0) @ "weights"
    bernoulli(logits=intercept + features @ weights) @ "benign"


def logistic_regression() -> Posterior:
    data: Any = datasets.load_breast_cancer()
    features = standardised(data.data[:, [1, 4, 5, 8, 9]])  # texture, smoothness, ...
    return Posterior(tumours, {"benign": jnp.asarray(data.target == 1)}, (features,))


@gen
def exercise(body):
    intercept = normal(4.0, 2.0) @ "intercept"
    weights = normal(jnp.zeros(body.shape[1]), 1.0) @ "weights"
    poisson(jnp.exp(intercept + body @ weights)) @ "count"


def poisson_regression() -> Posterior:
    data: Any = datasets.load_linnerud()
    observed = {"count": jnp.asarray(data.data[:, 1].astype(np.int32))}
    return Posterior(exercise, observed, (standardised(data.target),))


@gen
def index_level(years):
    length = log_normal(0.0, 1.0) @ "length"
    height = half_normal(2.0) @ "height"
    noise = half_normal(0.5) @ "noise"
    squares = (years[:, None] - years[None]) ** 2
    kernel = height**2 * jnp.exp(-0.5 * squares / length**2)
    covariance = kernel + (noise**2 + 1e-4) * jnp.eye(len(years))
    multivariate_normal(jnp.zeros(len(years)), covariance) @ "level"


def gaussian_process() -> Posterior:
    dates, prices = stocks()
    ends = [i for i, date in enumerate(dates) if date[5:7] == "12" or i == len(dates) - 1]
    years = np.arange(len(ends)) / 10
    level = standardised(np.log(prices[ends]))
    return Posterior(index_level, {"level": level}, (jnp.asarray(years),))


def stochastic_volatility() -> Posterior:
    _, prices = stocks()
    returns = np.diff(np.log(prices))[-100:]

    @gen
    def market():
        size = log_normal(-3.0, 1.0) @ "size"
        scale = exponential(5.0) @ "scale"
        noise = normal.repeat(len(returns))(0.0, 1.0) @ "noise"

        def step(level, shock):
            level = 0.95 * level + scale * shock
            return level, level

        _, levels = jax.lax.scan(step, jnp.zeros(()), noise)
        normal(jnp.zeros(len(returns)), size * jnp.exp(levels / 2)) @ "return"

    return Posterior(market, {"return": jnp.asarray(returns)}, ())


POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "eight schools": eight_schools,
    "hierarchical regression": hierarchical,
    "logistic regression": logistic_regression,
    "Poisson regression": poisson_regression,
    "Gaussian process": gaussian_process,
    "stochastic volatility": stochastic_volatility,
}


def standardised(x: np.ndarray) -> jax.Array:
    """Columns of mean 0 and standard deviation 1."""
    return jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32)


def stocks() -> tuple[list[str], np.ndarray]:
    """Dates and monthly values of the S&P 500 from 1990 to 2022."""
    with open(Path(matplotlib.get_data_path()) / "sample_data" / "Stocks.csv") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    rows = [row for row in rows if row["Date"].endswith("-01") and row["^GSPC"]]
    return [row["Date"] for row in rows], np.array([float(row["^GSPC"]) for row in rows])


# --------------------------------------------------------------------------- the comparison


@dataclass(frozen=True)
class Result:
    """A fit against NUTS.

    Attributes:
        error: the largest error of a mean, in posterior standard deviations.
        ratios: smallest and largest ratio of standard deviations.
    """

    error: float
    ratios: tuple[float, float]
    khat: float
    seconds: float


def flat(draws: Any) -> np.ndarray:
    """Draws of all numbers, `[draws, numbers]`."""
    return np.concatenate(
        [np.asarray(x, float).reshape(len(x), -1) for x in flat_choices(draws).values()], 1
    )


def compare(name: str, *, steps: int, samples: int, chains: int = 4) -> dict[str, Result]:
    """Fit a posterior with both guides, and run NUTS from the second fit."""
    posterior = POSTERIORS[name]()
    fits = {}
    for guide in (vi.mean_field, vi.full_rank):
        program = vi.elbo(posterior.model, guide, observed=posterior.observed, args=posterior.args)
        schedule = optax.cosine_decay_schedule(posterior.learning_rate, steps)
        fits[guide.__name__] = vi.fit(
            program, steps=steps, num_samples=16, optimizer=optax.adam(schedule)
        )
    began = time.perf_counter()
    exact = fits["full_rank"].refine_mcmc(
        num_warmup=min(1_000, samples), num_samples=samples, chains=chains
    )
    seconds = time.perf_counter() - began
    truth = flat(exact.merged)
    mean, sd = truth.mean(0), truth.std(0)
    rhat = max(float(np.max(x)) for x in flat_choices(exact.rhat).values())
    error = max(float(np.max(1 / np.sqrt(x))) for x in flat_choices(exact.ess).values())
    console.print(
        f"{name}: {truth.shape[1]} numbers; NUTS {seconds:.0f} s, R-hat {rhat:.3f}, "
        f"means known to {error:.3f} sd, {exact.divergences} divergences"
    )
    found = {}
    for guide, fit in fits.items():
        draws = flat(fit.sample(20_000, batch_size=2_000))
        errors, ratios = np.abs(draws.mean(0) - mean) / sd, draws.std(0) / sd
        found[guide] = Result(
            float(errors.max()),
            (float(ratios.min()), float(ratios.max())),
            fit.khat(4_000),
            fit.seconds,
        )
    return found


def main(quick: bool = False, folder: Path = OUTPUTS) -> dict[str, dict[str, Result]]:
    """Fit all six, and print the table."""
    del folder
    steps, samples = (2_000, 500) if quick else (10_000, 5_000)
    results = {name: compare(name, steps=steps, samples=samples) for name in POSTERIORS}
    rows = [
        (
            f"{name}, {guide}",
            f"{r.error:.3f}",
            f"{r.ratios[0]:.2f} to {r.ratios[1]:.2f}",
            f"{r.khat:.2f}",
            f"{r.seconds:.1f}",
        )
        for name, both in results.items()
        for guide, r in both.items()
    ]
    header = ("posterior, guide", "error of means (sd)", "ratio of sds", "k-hat", "seconds")
    print_table("Fits against NUTS, the worst of all numbers", header, rows)
    first = {name: results[name]["full_rank"].error for name in [*POSTERIORS][:4]}
    worst = max(first, key=lambda name: first[name])
    verdict = "all" if first[worst] < CLOSE else "not all"
    console.print(
        f"full-rank means of the first four: {verdict} within {CLOSE} sd "
        f"(the worst is {worst}: {first[worst]:.3f})"
    )
    return results


if __name__ == "__main__":
    run_as_script(main, __doc__)
