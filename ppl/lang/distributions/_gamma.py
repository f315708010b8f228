"""Draws of gamma variables in log-space, with implicit gradients: what Gamma, Beta, Dirichlet,
Student's t, chi-squared, Wishart and LKJ are made from.

`jax.random.loggamma` would do, but on a CPU its gradient runs one element after the other (ten
times slower at 1,000 draws), and for large concentrations it is wrong in float32.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
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
    x, double = jnp.exp(log_draw), log_draw.dtype.itemsize == 8
    small, large = x < 1, a > (1e6 if double else 1e3)
    few = _slope_by_series(jnp.where(small, log_draw, 0), a, 18 if double else 11)
    x, some = jnp.where(small | large, 1, x), jnp.where(large, 1, a)
    middle = _slope_by_quadrature(x, some, *((32, 36) if double else (16, 17)))
    # For large a, the cube root of x is normal (Wilson and Hilferty, 1931) to within 1e-5, while
    # logarithms of x and a cancel.
    z = jnp.exp((log_draw - jnp.log(a)) / 3)
    normal = 1 / a + (1 / (3 * a) - 1.5 * (z - 1 + 1 / (9 * a))) / (a * z)
    return jnp.where(small, few, jnp.where(large, normal, middle))


def _slope_by_series(log_x: Array, a: Array, terms: int) -> Array:
    """For x < 1, also where it underflows: x**a / Gamma(a + 1) times a series in x is the CDF."""
    x = jnp.exp(log_x)
    series, in_a, term = jnp.ones_like(x), jnp.zeros_like(x), jnp.ones_like(x)
    for n in range(1, terms):
        term = term * -x / n
        series += a * term / (a + n)
        in_a += n * term / (a + n) ** 2
    return ((digamma(a + 1) - log_x) * series - in_a) * jnp.exp(x) / a


def _slope_by_quadrature(x: Array, a: Array, nodes: int, digits: float) -> Array:
    """As an integral over the tail below or above x, whichever does not have the mode.

    With t = x e^v in it, the tail's derivative in a over the density of log x is the integral of
    exp(a v - x (e^v - 1)) (log x + v - digamma(a)) from 0 to -inf or inf. The exponent falls from
    0 on; it is cut at -digits (Newton's method, from the parabola there) and done by Gauss's rule.
    """
    side = jnp.where(x < a, -1, 1).astype(x.dtype)
    gap = jnp.abs(x - a)
    end = side * 2 * digits / (gap + jnp.sqrt(gap * gap + 2 * digits * x))
    for _ in range(3):
        end -= (a * end - x * jnp.expm1(end) + digits) / (a - x * jnp.exp(end))
    at, weights = np.polynomial.legendre.leggauss(nodes)
    column = (nodes, *(1,) * x.ndim)
    v = end * jnp.asarray((at + 1) / 2, x.dtype).reshape(column)
    inside = jnp.exp(a * v - x * jnp.expm1(v)) * (jnp.log(x) - digamma(a) + v)
    return end * jnp.sum(jnp.asarray(weights / 2, x.dtype).reshape(column) * inside, 0)
