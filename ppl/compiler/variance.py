"""The variance of a gradient estimate, and the part that each choice has in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Key

from ppl.compiler.moments import Sampler
from ppl.compiler.noise import Noise
from ppl.lang.keys import choice_mark

if TYPE_CHECKING:
    from ppl.compiler.estimator import Estimator

BATCH = 256


@dataclass(frozen=True)
class ChoiceVariance:
    """What a choice's noise does to the gradient.

    Attributes:
        variance: E[Var(gradient | all other choices)], summed over the gradient's entries: what
            would be saved if this choice's noise were averaged out.
        error: standard error of `variance`.
    """

    address: str
    variance: float
    error: float


@dataclass(frozen=True)
class GradientVariance:
    """Measured variance of one gradient estimate, summed over its entries.

    Attributes:
        total: of all entries.
        parameters: of the entries of each parameter.
        choices: largest first. They add up to `total` if each choice acts alone, and to more
            where choices act together.
        draws: gradients that this was measured with.
    """

    total: float
    parameters: dict[str, float]
    choices: tuple[ChoiceVariance, ...]
    draws: int

    @property
    def sd(self) -> float:
        """Root of the total variance."""
        return math.sqrt(self.total)


def gradient_variance(
    estimator: Estimator,
    params: Mapping[str, Any],
    data: tuple[Any, ...],
    key: Key[Array, ""],
    draws: int,
) -> GradientVariance:
    """Measure the variance of an estimator's gradient, choice by choice.

    The gradient is a function of independent noises, one for each address. The part of an address
    is its total effect (Homma and Saltelli 1996): half the mean squared difference of two gradients
    whose noise differs there and nowhere else (Jansen 1999). All lanes and steps, and draws that
    share an address, count as one choice; samples are averaged as the estimator does.
    """
    plan = estimator.plan(*data)
    drawn = [e.params["address"] for e, s in plan.strategies.items() if s.kind != "enum"]
    places = {a: i for i, a in enumerate(dict.fromkeys(drawn))}

    def gradient(key: Key[Array, ""], redraw: Bool[Array, " choices"]) -> Array:
        def mark(address: str, n: Any) -> Any:
            own = choice_mark(address, n)
            if address not in places:
                return own
            other = choice_mark(f"{address} redrawn", n)
            return jnp.where(redraw[places[address]], other, own)

        grad = estimator.with_noise(Noise(mark=mark)).grad(key, dict(params), *data)
        return ravel_pytree(grad)[0]

    def one(key: Key[Array, ""]) -> dict[str, Any]:
        first = gradient(key, jnp.zeros(len(places), bool))
        others = jax.lax.map(lambda r: gradient(key, r), jnp.eye(len(places), dtype=bool))
        return {"effects": jnp.sum((others - first) ** 2, -1) / 2, "gradient": first}

    sampler = Sampler(one, key, batch=BATCH)
    seen = sampler.more(max(2, math.ceil(draws / sampler.batch)))
    k = len(places)
    effects = [
        ChoiceVariance(a, float(seen.mean[i]), float(seen.standard_error[i]))
        for a, i in places.items()
    ]
    grads = jax.eval_shape(lambda k: estimator.grad(k, dict(params), *data), key)
    sizes = {n: sum(x.size for x in jax.tree.leaves(g)) for n, g in sorted(grads.items())}
    ends = np.cumsum([k, *sizes.values()])
    parts = zip(sizes, ends, ends[1:], strict=False)
    by_parameter = {n: float(seen.variance[a:b].sum()) for n, a, b in parts}
    order = sorted(effects, key=lambda e: -e.variance)
    return GradientVariance(sum(by_parameter.values()), by_parameter, tuple(order), seen.count)
