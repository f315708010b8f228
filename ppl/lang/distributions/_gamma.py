"""Draws of gamma variables in log-space, with implicit gradients: what Gamma, Beta, Dirichlet,
Student's t, chi-squared, Wishart and LKJ are made from.

`jax.random.loggamma` would do, but on a CPU its gradient runs one element after the other (ten
times slower at 1,000 draws), and for large concentrations it is wrong in float32.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import digamma
from jaxtyping import Array

from ppl.lang.distributions._safe import tiny


def log_gamma_draw(key: Array, shape: tuple[int, ...], concentration: Array) -> Array:
    """The log of a draw from Gamma(concentration, rate 1), differentiable in `concentration`.

    Source: Marsaglia and Tsang (2000), "A simple method for generating gamma variables"; the
    derivative is implicit (Figurnov, Mohamed and Mnih, arXiv 1805.08498).
    """
    concentration = jnp.broadcast_to(concentration, shape)
    draw = lax.stop_gradient(_rejection(key, lax.stop_gradient(concentration)))
    return _follow(draw, concentration)


@jax.jit  # traced once per shape, not once per choice
def _rejection(key: Array, a: Array) -> Array:
    boost_key, key = jax.random.split(key)
    small = a < 1
    d = jnp.where(small, a + 1, a) - 1 / 3
    c = 1 / (3 * jnp.sqrt(d))

    def propose(state):
        key, log_v, done = state
        key, uniform_key = jax.random.split(key)
        # One call for both numbers: random bits are what compiles slowly here.
        u = jax.random.uniform(uniform_key, (2, *a.shape), a.dtype, tiny(a.dtype))
        z = math.sqrt(2) * lax.erf_inv(2 * u[0] - 1)
        t = jnp.maximum(c * z, -1)
        new = 3 * jnp.log1p(t)
        # z**2 / 2 + d * (1 - v + log v) with v = (1 + t)**3, without cancelling 1 against v:
        # in float32 that would cost the test all its digits from a concentration of 1e7 on.
        bound = z * z / 2 + d * ((new - 3 * t) - t * t * (3 + t))
        accept = (t > -1) & (jnp.log(u[1]) < bound)
        return key, jnp.where(done, log_v, new), done | accept

    # A concentration that is not positive is never accepted: it starts done, as NaN.
    bad = ~(a > 0)
    state = key, jnp.where(bad, jnp.nan, jnp.zeros_like(a)), bad
    _, log_v, _ = lax.while_loop(lambda state: ~jnp.all(state[2]), propose, state)
    boost = jax.random.exponential(boost_key, a.shape, a.dtype) / a
    return jnp.log(d) + log_v - jnp.where(small, boost, 0)


@jax.custom_jvp
def _follow(log_draw: Array, concentration: Array) -> Array:
    """`log_draw`, moving with `concentration` such that the CDF's value stays the same."""
    return log_draw


@_follow.defjvp
def _follow_jvp(primals, tangents):
    log_draw, concentration = primals
    return log_draw, tangents[0] + _slope(log_draw, concentration) * tangents[1]


@jax.jit
def _slope(log_draw: Array, a: Array) -> Array:
    """The derivative of `log_draw` in `a` along the CDF's level set."""
    x = jnp.exp(log_draw)
    # Three regimes. For x -> 0 the CDF is x**a / Gamma(a + 1), also where x itself underflows.
    # For large a, the cube root of x is normal (Wilson and Hilferty, 1931) to within 1e-5, while
    # `random_gamma_grad` loses its digits in float32 (6 % off at a = 1e6).
    near_zero, large = x < jnp.sqrt(tiny(x.dtype)), a > (1e6 if x.dtype.itemsize == 8 else 1e3)
    z = jnp.exp((log_draw - jnp.log(a)) / 3)
    normal = 1 / a + (1 / (3 * a) - 1.5 * (z - 1 + 1 / (9 * a))) / (a * z)
    x_mid, a_mid = jnp.where(near_zero | large, 1, x), jnp.where(large, 1, a)
    middle = lax.random_gamma_grad(a_mid, x_mid) / x_mid  # type: ignore
    power = (digamma(a + 1) - log_draw) / a
    return jnp.where(near_zero, power, jnp.where(large, normal, middle))
