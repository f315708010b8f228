"""The von Mises distribution over angles."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import i0e
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp
from tensorflow_probability.substrates.jax.distributions.von_mises import von_mises_cdf

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._tfp import tfp_sampler
from ppl.lang.family import Family
from ppl.lang.supports import interval

_RANKS = {"loc": 0, "concentration": 0}
_draw = tfp_sampler(tfp.distributions.VonMises, _RANKS)


def _sample(key: Array, shape: tuple[int, ...], loc: Array, concentration: Array) -> Array:
    loc, concentration = (jnp.broadcast_to(x, shape) for x in (loc, concentration))
    fixed = {"loc": lax.stop_gradient(loc), "concentration": lax.stop_gradient(concentration)}
    draw = jnp.clip(_draw(key, shape, **fixed), -math.pi, math.pi)
    return _follow(lax.stop_gradient(draw), loc, concentration)


@jax.custom_jvp
def _follow(angle: Array, loc: Array, concentration: Array) -> Array:
    """`angle`, moving with the parameters such that its CDF on [-pi, pi] stays the same.

    Nothing moves past +-pi, so the derivative of an expectation has no boundary term, also if
    the function is not periodic (Figurnov, Mohamed and Mnih, arXiv 1805.08498, eq. 5, with the
    CDF from -pi on).
    """
    return angle


@_follow.defjvp
def _follow_jvp(primals, tangents):
    angle, loc, concentration = primals

    by_loc, by_concentration = tangents[1:]
    density = lambda x: jnp.exp(_log_density(x, loc, concentration))

    def slope_in_concentration(x: Any) -> Array:
        """Of the CDF, whose derivative TFP knows in reverse mode only."""
        cdf: Any = lambda k: von_mises_cdf(x - loc, k)
        return jax.vjp(cdf, concentration)[1](jnp.ones_like(x))[0]

    lowest = jnp.full_like(angle, -math.pi)
    slope = (density(lowest) - density(angle)) * by_loc
    slope += (slope_in_concentration(angle) - slope_in_concentration(lowest)) * by_concentration
    return angle, tangents[0] - slope / density(angle)


def _log_density(value: Array, loc: Array, concentration: Array) -> Array:
    inside = jnp.abs(value) <= math.pi
    # cos - 1 without cancellation, for concentrations at which all angles are close to `loc`.
    below_peak = -2 * jnp.sin((value - loc) / 2) ** 2
    log_density = concentration * below_peak - math.log(2 * math.pi) - jnp.log(i0e(concentration))
    return only_where(inside, log_density)


von_mises = make_distribution(
    Family(
        "von_mises",
        _RANKS,
        _sample,
        _log_density,
        support=interval(-math.pi, math.pi),
        reparam="implicit",
        plan_reparam=False,
        tfp=tfp.distributions.VonMises,
    )
)
"""`von_mises(loc, concentration)`: angles in [-pi, pi]; wrap data into this range.

Its pathwise gradient is unbiased for every differentiable function on [-pi, pi], periodic or not:
draws near pi hardly move, as what would cross pi has to go all the way around to -pi. But where
the density at pi is not small, that way is long, and the variance grows as exp(2 concentration).
So the planner scores it, and `von_mises.reparam` is for densities away from pi. For periodic
functions `from_tfp(tfd.VonMises, reparam="implicit")` has draws that cross pi, with no such cost.
"""
