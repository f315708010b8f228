"""Programs on which all applicable gradient strategies are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import (
    bernoulli,
    beta,
    categorical,
    dirichlet,
    flip,
    gamma,
    gen,
    multinomial,
    normal,
    param,
    poisson,
    positive,
    sim,
    vi,
)
from ppl.compiler.strategies.base import strategies
from ppl.vi.compare import distinct_plans


@dataclass(frozen=True)
class Program:
    """An objective and the choices whose strategy varies.

    Attributes:
        varied: last parts of addresses; each strategy is given to all of them that can have it.
        samples: averaged in one gradient, the same under all plans; `None`, where plans without
            variance exist: as the compiler chooses.
    """

    name: str
    objective: Any
    varied: tuple[str, ...]
    samples: int | None = 4

    def plans(self) -> dict[str, dict[str, Any]]:
        """The planner's plan, and one for each strategy."""
        data = self.objective.data
        plan = vi.compile(self.objective).plan(*data)
        last = lambda e: e.params["address"].rsplit("/", 1)[-1]
        sites = [e for e in plan.strategies if last(e) in self.varied]
        plans: dict[str, dict[str, Any]] = {"planned": {}}
        for name, strategy in strategies.items():
            able = [e.params["address"] for e in sites if strategy.refusal(e) is None]
            if able:
                plans[name] = dict.fromkeys(able, name)
        if "score" in plans:
            score = plans["score"]
            for baseline in ("none", "running_mean", "nvil"):
                plans[f"score, {baseline}"] = {a: vi.Score(baseline) for a in score}
        return distinct_plans(self.objective, data, plans)


# ----------------------------------------------------------------------- (a) one flip


def one_flip() -> Program:
    def cost():
        x = flip(param("p", 0.3)).astype(float)
        return -((x - 0.45) ** 2)

    return Program("a flip, quadratic cost", vi.objective(cost), ("flip",), samples=None)


# ------------------------------------------------------------- (b) a Bernoulli auto-encoder

PIXELS, LATENTS, BATCH = 64, 32, 16


def _weights(key: Any, m: int, n: int) -> dict[str, Any]:
    return {"w": jax.random.normal(key, (m, n)) / math.sqrt(m), "b": jnp.zeros(n)}


def _affine(layer: Any, x: Any) -> Any:
    return x @ layer["w"] + layer["b"]


@gen
def vae_model(images):
    z = bernoulli(jnp.zeros((len(images), LATENTS))) @ "z"
    decoder = param("decoder", lambda key: _weights(key, LATENTS, PIXELS))
    bernoulli(_affine(decoder, 2.0 * z - 1.0)) @ "x"


@gen
def vae_guide(images):
    encoder = param("encoder", lambda key: _weights(key, PIXELS, LATENTS))
    bernoulli(_affine(encoder, 2.0 * images - 1.0)) @ "z"


def autoencoder() -> Program:
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits().images[:BATCH] > 7.5, np.float32).reshape(BATCH, PIXELS)
    program = vi.elbo(vae_model, vae_guide, observed={"x": images}, args=(images,))
    return Program("digits, 32 binary latents", program, ("z",))


# ------------------------------------------------------------------- (c) a categorical mixture

COMPONENTS = 4


@gen
def mixture_model(n):
    means = normal(jnp.zeros(COMPONENTS), 5.0) @ "means"
    k = categorical(jnp.zeros((n, COMPONENTS))) @ "k"
    normal(means[k], 1.0) @ "y"


@gen
def mixture_guide(n):
    normal.reparam(param("loc", jnp.linspace(-3.0, 3.0, COMPONENTS)), 0.3) @ "means"
    categorical(param("logits", jnp.zeros((n, COMPONENTS)))) @ "k"


def mixture() -> Program:
    rng = np.random.default_rng(0)
    ys = (rng.choice([-4.0, -1.0, 2.0, 5.0], 20) + rng.normal(size=20)).astype(np.float32)
    program = vi.elbo(mixture_model, mixture_guide, observed={"y": ys}, args=(20,))
    return Program("20 points, 4 components", program, ("k",))


# -------------------------------------------------------------------- (d) gamma, beta, Dirichlet


@gen
def positive_model():
    rate = gamma(2.0, 1.0) @ "rate"
    weights = dirichlet(jnp.ones(3)) @ "weights"
    share = beta(1.0, 1.0) @ "share"
    poisson(rate * jnp.ones(5)) @ "counts"
    multinomial(20.0, probs=weights) @ "kinds"
    bernoulli(probs=share * jnp.ones(8)) @ "hits"


@gen
def positive_guide():
    gamma(param("a", 3.0, support=positive), param("b", 1.0, support=positive)) @ "rate"
    dirichlet(param("c", jnp.array([2.0, 3.0, 4.0]), support=positive)) @ "weights"
    beta(param("d", 3.0, support=positive), param("e", 2.0, support=positive)) @ "share"


def positive_choices() -> Program:
    observed = {
        "counts": np.array([3, 5, 2, 4, 3]),
        "kinds": np.array([4, 6, 10]),
        "hits": np.array([1, 0, 1, 1, 1, 0, 1, 1]),
    }
    program = vi.elbo(positive_model, positive_guide, observed=observed)
    return Program("gamma, beta, Dirichlet", program, ("rate", "weights", "share"))


# --------------------------------------------------------------------------- (e) a Poisson rate


@gen
def counts_model():
    n = poisson(4.0) @ "n"
    normal(n * 1.0, 1.5) @ "y"


@gen
def counts_guide():
    poisson(param("rate", 2.0, support=positive)) @ "n"


def poisson_rate() -> Program:
    program = vi.elbo(counts_model, counts_guide, observed={"y": np.float32(6.2)})
    return Program("a Poisson count", program, ("n",))


# ------------------------------------------------------------------- (f) 200 independent flips


@gen
def many():
    flip(jnp.full(200, param("p", 0.4))) @ "x"


def many_flips() -> Program:
    def cost(targets):
        x = sim(many)()[0]["x"]
        return jnp.sum((x - targets) ** 2)

    objective = vi.Objective(cost, "200 flips", (jnp.linspace(0.0, 0.8, 200),))
    return Program("200 flips, local costs", objective, ("x",), samples=None)


ALL = {
    "a": one_flip,
    "b": autoencoder,
    "c": mixture,
    "d": positive_choices,
    "e": poisson_rate,
    "f": many_flips,
}
