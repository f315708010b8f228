"""Robust regression with a discrete choice per point: the star cluster CYG OB1.

On the main sequence of a cluster, hotter stars are brighter. Four of these 47 stars are giants,
cool and bright, and least squares, which believes every point, finds that hotter stars are
*darker*. Here each star has a discrete choice, whether it is off the main sequence, which the
compiler sums out exactly while it differentiates along the draws of everything else.

Data: P. J. Rousseeuw and A. M. Leroy, Robust Regression and Outlier Detection (Wiley 1987), p. 27.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples._report import run_as_script
from ppl import flip, gen, half_normal, log_normal, normal, param, positive, vi
from stdlib.report import OUTPUTS, console, print_table, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CENTER = 4.4  # a log temperature in the middle of the main sequence, where slope and level part


@gen
def model(temperature, light):
    slope = normal(0.0, 5.0) @ "slope"
    level = normal(5.0, 1.0) @ "level"  # of the line at CENTER
    noise = half_normal(1.0) @ "noise"
    log_odds = normal(-2.0, 1.0) @ "log_odds"  # of being off the main sequence: 12 %, or 5 to 27 %
    off = flip.repeat(len(temperature))(jax.nn.sigmoid(log_odds)) @ "off"
    line = level + slope * (temperature - CENTER)
    normal(jnp.where(off, 5.0, line), jnp.where(off, 1.0, noise)) @ "light"


def loc_and_scale(name, loc, scale):
    return param(f"{name}.loc", loc), param(f"{name}.scale", scale, support=positive)


@gen
def guide(temperature, light):
    slope = normal(*loc_and_scale("slope", 0.0, 0.2)) @ "slope"
    level = normal(*loc_and_scale("level", 5.0, 0.1)) @ "level"
    noise = log_normal(*loc_and_scale("noise", -1.0, 0.1)) @ "noise"
    log_odds = normal(*loc_and_scale("log_odds", -2.0, 0.1)) @ "log_odds"
    # Given the line, Bayes' rule says which stars are off it: nothing to be learned.
    line = level + slope * (temperature - CENTER)
    evidence = normal.log_prob(light, 5.0, 1.0) - normal.log_prob(light, line, noise)
    flip.enum(jax.nn.sigmoid(log_odds + evidence)) @ "off"


STARTS = -5.0, 0.0, 5.0


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        starts: (slope at the start, slope at the end, bound in nats) of each fit.
        fit: the best fit.
        draws: of the guide's choices.
        off: probability of each star to be off the main sequence.
        least_squares: (slope, intercept).
        standard_errors: of the latter.
    """

    temperature: np.ndarray
    light: np.ndarray
    starts: list[tuple[float, float, float]]
    fit: vi.Fit
    draws: dict[str, np.ndarray]
    off: np.ndarray
    least_squares: np.ndarray
    standard_errors: np.ndarray

    @property
    def intercept(self) -> np.ndarray:
        """Draws of the line's value at log temperature 0, as textbooks give it."""
        return self.draws["level"] - CENTER * self.draws["slope"]


def load() -> tuple[np.ndarray, np.ndarray]:
    """Log effective temperature and log light intensity of each star."""
    path = Path(__file__).parent / "data" / "cyg_ob1.csv"
    _, temperature, light = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
    return temperature, light


def run(quick: bool = False) -> Result:
    """Fit from several slopes, and keep the best."""
    temperature, light = load()
    args = jnp.asarray(temperature, jnp.float32), jnp.asarray(light, jnp.float32)
    program = vi.elbo(model, guide, observed={"light": args[1]}, args=args)
    estimator = vi.compile(program, num_samples=8)
    steps = 800 if quick else 2_000
    # The posterior has a second, small mode: a line through all stars, giants included. A guide
    # with one peak settles in one mode, whichever is nearer; the bound tells them apart.
    starts = STARTS[1:] if quick else STARTS
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    fits = [
        vi.fit(estimator, steps=steps, optimizer=optimizer, params={"slope.loc": start})
        for start in starts
    ]
    bounds = [-float(fit.losses[-steps // 5 :].mean()) for fit in fits]
    best = fits[int(np.argmax(bounds))]
    draws = {name: np.asarray(x, float) for name, x in best.sample(4_000).items()}
    coefficients, covariance = np.polyfit(temperature, light, 1, cov=True)
    ends = [float(fit.params["slope.loc"]) for fit in fits]
    return Result(
        temperature=temperature,
        light=light,
        starts=list(zip(starts, ends, bounds, strict=True)),
        fit=best,
        draws=draws,
        off=draws["off"].mean(0),
        least_squares=coefficients,
        standard_errors=np.sqrt(np.diag(covariance)),
    )


def report(result: Result) -> None:
    """Print what was found."""
    console.print(result.fit.explain())
    starts = [[f"{s:+.0f}", f"{e:+.2f}", f"{b:.1f}"] for s, e, b in result.starts]
    print_table("Fits from several slopes", ["slope at start", "at end", "ELBO (nats)"], starts)
    console.print(f"the best one's ELBO: {result.fit.elbo()} nats")
    squares = [
        f"{x:.3f} ± {error:.3f}"
        for x, error in zip(result.least_squares, result.standard_errors, strict=True)
    ]
    rows = [
        ["slope", *_moments(result.draws["slope"]), squares[0]],
        ["intercept", *_moments(result.intercept), squares[1]],
        ["noise", *_moments(result.draws["noise"]), ""],
    ]
    print_table(
        "log light = intercept + slope x log temperature",
        ["", "posterior", "90 % interval", "least squares"],
        rows,
    )
    worst = [i for i in np.argsort(-result.off) if result.off[i] > 0.25]
    stars = [
        [i + 1, f"{result.temperature[i]:.2f}", f"{result.light[i]:.2f}", f"{result.off[i]:.2f}"]
        for i in worst
    ]
    header = ["star", "log temperature", "log light", "probability"]
    print_table("Stars off the main sequence", header, stars)


def _moments(draws: np.ndarray) -> tuple[str, str]:
    low, high = np.quantile(draws, [0.05, 0.95])
    return f"{draws.mean():.3f} ± {draws.std():.3f}", f"{low:.2f} to {high:.2f}"


def figure(result: Result) -> Figure:
    """The stars, coloured by probability, and both lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    ax = figure.add_subplot()
    grid = np.linspace(3.4, 4.7, 100)
    slope, intercept = result.least_squares
    ax.plot(grid, intercept + slope * grid, "k--", lw=1.5, label="least squares")
    lines = result.draws["level"] + np.outer(grid - CENTER, result.draws["slope"])
    ax.plot(grid, lines.mean(1), color="C0", lw=2, label="main sequence: posterior mean")
    low, high = np.quantile(lines, [0.05, 0.95], axis=1)
    ax.fill_between(grid, low, high, color="C0", alpha=0.2, lw=0, label="90 % of the posterior")
    style: Any = dict(s=45, cmap="coolwarm", vmin=0, vmax=1, edgecolors="k", linewidths=0.6)
    points = ax.scatter(result.temperature, result.light, c=result.off, zorder=3, **style)
    for i in np.flatnonzero(result.off > 0.5):
        at = result.temperature[i], result.light[i]
        ax.annotate(str(i + 1), at, xytext=(7, 3), textcoords="offset points", fontsize=9)
    figure.colorbar(points, label="probability of being off the main sequence")
    ax.set(
        xlim=(3.4, 4.7),
        ylim=(3.7, 6.6),
        xlabel="log effective temperature",
        ylabel="log light intensity",
        title="47 stars of CYG OB1",
    )
    ax.legend(loc="upper center")
    return figure


def main(quick: bool = False, folder: Path = OUTPUTS) -> Result:
    """Fit, print, plot."""
    result = run(quick)
    report(result)
    save_figure(figure(result), "robust_regression", folder)
    return result


if __name__ == "__main__":
    run_as_script(main, __doc__)
