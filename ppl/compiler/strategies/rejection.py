"""Gradients through a rejection sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln
from jaxtyping import Array

from ppl.compiler.baselines import Baseline, baseline
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val, batched
from ppl.errors import StrategyError
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import tiny
from ppl.lang.primitives import log_density_values
from ppl.lang.staged import Eqn

Params = dict[str, Array]


@register
@dataclass(frozen=True)
class Rejection:
    """Reparameterise the proposal of a rejection sampler (Naesseth, Ruiz, Linderman and Blei,
    arXiv 1610.05683), for gamma, inverse gamma, beta and Dirichlet choices.

    A gamma draw is h(e, a) with e the accepted noise of Marsaglia and Tsang's sampler. The gradient
    is that along the path h at a fixed e, plus a score term for e's density, which depends on the
    parameters a little. With `augment` = B, a draw of concentration a + B is multiplied by
    u_1^(1/a) ... u_B^(1/(a+B-1)), which makes the score term smaller.

    Args:
        augment: B >= 1.
        baseline: of the score term, as for `Score`.
    """

    augment: int = 4
    baseline: str = "leave_one_out"
    name: ClassVar[str] = "rejection"
    kind: ClassVar[Kind] = "score"
    follows_path: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.augment < 1:
            raise StrategyError(f"rejection: augment must be at least 1, not {self.augment}")
        if not isinstance(baseline(self.baseline), Baseline):
            raise StrategyError(f"rejection: {self.baseline!r} stands in place of the path")

    def refusal(self, eqn: Eqn) -> str | None:
        name = eqn.params["family"].name
        return None if name in samplers else f"{name} is not made from gamma draws here"

    def lower(self, choice: Choice) -> Val:
        key, static = choice.new_key(), choice.eqn.params
        rank = len(choice.eqn.outs[0].aval.shape) - len(static["shape"])
        known = {k: static[k] for k in ("family", "names")}

        def run(*params: Array) -> list[Array]:
            named = dict(zip(static["names"], params, strict=True))
            draw = lambda shape, a: _log_gamma(key, shape, a, self.augment)
            value, charge = samplers[static["family"].name](draw, tuple(static["shape"]), named)
            density = log_density_values(value, *params, event_ndims=rank, **known)
            return [value, jnp.broadcast_to(charge, static["shape"]), density]

        value, charge, density = batched(run, choice.params)
        choice.logp(charge)
        choice.own_log_density(density)
        return value


def _log_gamma(key: Array, shape: tuple[int, ...], a: Array, augment: int) -> tuple[Array, Array]:
    """(log of a draw from Gamma(a), differentiable at a fixed noise; log-density of that noise)."""
    a = jnp.broadcast_to(a, shape)
    gamma_key, uniform_key = jax.random.split(key)
    fixed = lax.stop_gradient(a) + augment
    d, c = fixed - 1 / 3, 1 / jnp.sqrt(9 * fixed - 3)
    drawn = log_gamma_draw(gamma_key, shape, fixed)
    noise = jnp.expm1((drawn - jnp.log(d)) / 3) / c
    # The same noise at parameters that move: log h, and the log-density of the noise, which is
    # that of h plus log dh/de.
    big = a + augment
    root = 1 + noise / jnp.sqrt(9 * big - 3)
    log_h = jnp.log(big - 1 / 3) + 3 * jnp.log(root)
    density = (big - 1) * log_h - jnp.exp(log_h) - gammaln(big)
    slope = math.log(3) + jnp.log(big - 1 / 3) + 2 * jnp.log(root) - 0.5 * jnp.log(9 * big - 3)
    u = jax.random.uniform(uniform_key, (augment, *shape), a.dtype, tiny(a.dtype))
    powers = [jnp.log(u[i]) / (a + i) for i in range(augment)]
    return log_h + sum(powers), density + slope


Draw = Callable[[tuple[int, ...], Array], tuple[Array, Array]]


def _gamma(draw: Draw, shape: tuple[int, ...], p: Params) -> tuple[Array, Array]:
    log_x, charge = draw(shape, p["concentration"])
    log_rate = p["log_rate"] if "log_rate" in p else jnp.log(p["rate"])
    return jnp.exp(log_x - log_rate), charge


def _inverse_gamma(draw: Draw, shape: tuple[int, ...], p: Params) -> tuple[Array, Array]:
    log_x, charge = draw(shape, p["concentration"])
    return p["scale"] * jnp.exp(-log_x), charge


def _beta(draw: Draw, shape: tuple[int, ...], p: Params) -> tuple[Array, Array]:
    both = jnp.broadcast_arrays(*(jnp.broadcast_to(x, shape) for x in p.values()))
    log_x, charge = draw((2, *shape), jnp.stack(both))
    value = jax.nn.sigmoid(log_x[0] - log_x[1])
    edge = jnp.finfo(value.dtype)
    return jnp.clip(value, edge.tiny, 1 - edge.epsneg), jnp.sum(charge, 0)


def _dirichlet(draw: Draw, shape: tuple[int, ...], p: Params) -> tuple[Array, Array]:
    a = p["concentration"]
    log_x, charge = draw((*shape, a.shape[-1]), a)
    value = jax.nn.softmax(log_x, -1)
    return jnp.maximum(value, tiny(value.dtype)), jnp.sum(charge, -1)


samplers: dict[str, Callable[[Draw, tuple[int, ...], Params], tuple[Array, Array]]] = {
    "gamma": _gamma,
    "inverse_gamma": _inverse_gamma,
    "beta": _beta,
    "dirichlet": _dirichlet,
}
"""By family: a draw made of gamma draws, and the log-density of their noise, per lane."""
