"""The best weights of a Markov approximation of fractional Brownian motion, in closed form.

Fractional Brownian motion B_H with Hurst index H in (0, 1) is an integral over the whole past of a
Brownian motion W. With a = H + 1/2,

* type II (Riemann-Liouville):  B(t) = 1/Gamma(a) int_0^t (t - s)^(a-1) dW_s,
* type I (Mandelbrot-van Ness): the same with W on the whole line, and B(0) = 0: its increments
  are stationary.

It is approximated by sum_k w_k Y_k (type I: by sum_k w_k (Y_k(t) - Y_k(0))), with
Ornstein-Uhlenbeck processes dY_k = -gamma_k Y_k dt + dW that share W. The weights that are best in
mean square over [0, T] minimise w'Aw - 2 b'w + c, so they solve A w = b. A, b and c are computed
here in double precision, b in forms that lose no digits. As A may be nearly singular (for type II
its condition is 8e6 with 5 processes, 9e14 with 9), the system is solved in double precision too,
for 24 Hurst indices. The solution is an entire function of H, so the polynomial through these
points, `weights_at`, is the solution, to rounding: for H that is traced, in any precision.

Source: Daems, Opper, Crevecoeur and Birdal (arXiv 2310.12975), propositions 4 and 5.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
import scipy.special as sp
from jaxtyping import Array, Float
from scipy.special import gamma

Kind = Literal["I", "II"]
Rates = Float[np.ndarray, " processes"]

_SERIES = {"I": 5.0, "II": 20.0}
"""Up to which z = gamma T the power series are used, and expansions at infinity beyond."""

_DEGREE = 23
_LAGUERRE = np.polynomial.laguerre.laggauss(40)


def geometric_rates(processes: int = 5, largest: float = 20.0) -> Rates:
    """Rates from 1/largest to largest in equal ratios (those of the paper's code); one: `[1.]`."""
    if processes < 1 or not largest > 1:
        raise ValueError(
            f"geometric_rates: processes must be at least 1 and largest above 1, "
            f"not {processes} and {largest}"
        )
    ends = (1 / largest, largest) if processes > 1 else (1.0, 1.0)
    return np.geomspace(*ends, processes)


def variance_rate(kind: Kind, hurst: Any) -> Any:
    """V such that Var B_H(t) = V t^(2H); it is 1 for H = 1/2. In double precision, unless H is an
    array of JAX.

    The form with cos(pi H) / (1 - 2H) that is often seen for type I is 0/0 at H = 1/2.
    """
    lib, gammaln = (jnp, jsp.gammaln) if isinstance(hurst, jax.Array) else (np, sp.gammaln)
    log_gammas = {
        "I": gammaln(2 - 2 * hurst) - gammaln(hurst + 0.5) - gammaln(1.5 - hurst),
        "II": -2 * gammaln(hurst + 0.5),
    }
    return lib.exp(log_gammas[kind]) / (2 * hurst)


def gram(kind: Kind, rates: Rates, horizon: float) -> Float[np.ndarray, "processes processes"]:
    """A, the integral over [0, T] of E[Y_i Y_j] (type I: of the processes less their starts)."""
    z = np.asarray(rates, np.float64) * horizon
    s = z[:, None] + z
    if kind == "II":
        return horizon**2 * _phi2(s)
    rise = _rise(z)
    return horizon**2 * (rise[:, None] + rise) / s


def cross(kind: Kind, rates: Rates, horizon: float, hurst: float) -> Rates:
    """b, the integral over [0, T] of E[B_H Y_k] (type I: of Y_k less its start)."""
    a, z = hurst + 0.5, np.asarray(rates, np.float64) * horizon
    near, far = _CROSS[kind]
    each = [near(a, x) if x < _SERIES[kind] else far(a, x) for x in z]
    return horizon ** (a + 1) * np.array(each)


def square(kind: Kind, horizon: float, hurst: float) -> float:
    """c, the integral over [0, T] of Var B_H."""
    return variance_rate(kind, hurst) * horizon ** (2 * hurst + 1) / (2 * hurst + 1)


def cost(kind: Kind, rates: Rates, horizon: float, hurst: float, weights: Any) -> float:
    """int_0^T E[(B_H - approximation)^2] dt over int_0^T Var B_H dt, for any weights."""
    w, c = np.asarray(weights, np.float64), square(kind, horizon, hurst)
    mixed = cross(kind, rates, horizon, hurst) @ w
    return float((w @ gram(kind, rates, horizon) @ w - 2 * mixed + c) / c)


def optimal_weights(kind: Kind, rates: Rates, horizon: float, hurst: float) -> Rates:
    """The weights that are best in mean square over [0, horizon], for one Hurst index."""
    return np.linalg.solve(gram(kind, rates, horizon), cross(kind, rates, horizon, hurst))


def weights_at(hurst: Any, kind: Kind, rates: Rates, horizon: float) -> Float[Array, " processes"]:
    """`optimal_weights` for an index in (0, 1) that may be traced and differentiated."""
    coefficients = _polynomial(kind, tuple(map(float, rates)), float(horizon))
    x = 2 * jnp.asarray(hurst, jnp.result_type(float)) - 1
    basis = [jnp.ones_like(x), x]
    while len(basis) < _DEGREE + 1:  # Chebyshev's polynomials
        basis.append(2 * x * basis[-1] - basis[-2])
    return jnp.stack(basis) @ jnp.asarray(coefficients, x.dtype)


@lru_cache
def _polynomial(kind: Kind, rates: tuple[float, ...], horizon: float) -> np.ndarray:
    """Coefficients of Chebyshev's polynomials on [0, 1]."""
    nodes = np.polynomial.chebyshev.chebpts1(_DEGREE + 1)
    values = [optimal_weights(kind, np.array(rates), horizon, (x + 1) / 2) for x in nodes]
    return np.polynomial.chebyshev.chebfit(nodes, np.array(values), _DEGREE)


def check(kind: str, rates: Any, horizon: float) -> Rates:
    """The rates, if there is an approximation with them.

    Raises:
        ValueError: `kind` is not "I" or "II"; the horizon is not positive; there are no rates, or
            some are negative, not in increasing order or twice there (A would be singular); or a
            rate is 0 for type I (its process has no stationary start).
    """
    if kind not in ("I", "II"):
        raise ValueError(f"kind must be 'I' or 'II', not {kind!r}")
    if not horizon > 0:
        raise ValueError(f"the horizon must be positive, not {horizon}")
    rates = np.asarray(rates, np.float64)
    if rates.ndim != 1 or len(rates) == 0 or not np.all(np.isfinite(rates)):
        raise ValueError(f"rates must be a vector of at least one finite number, not {rates}")
    if np.any(np.diff(rates) <= 0):
        raise ValueError(f"rates must increase, each above the one before, not {rates}")
    if rates[0] < 0 or (kind == "I" and rates[0] == 0):
        what = "positive for type I" if kind == "I" else "at least 0"
        raise ValueError(f"rates must be {what}, not {rates[0]}")
    return rates


# ------------------------------------------------------------------------- b, divided by T^(a+1)


def _cross_1_near(a: float, z: float) -> float:
    """sum_{k>=0} z^k/Gamma(a+2+k) - 2 sum_{j>=1} z^(2j-a)/(2j+1)!, which is 2 (sinh(z)/z - 1)."""
    j = np.arange(1, 20)
    return _terms(a, z, 40).sum() - 2 * np.sum(z ** (2 * j - a) / gamma(2.0 * j + 2))


def _cross_1_far(a: float, z: float) -> float:
    """2 z^-a - 1/(z Gamma(a+1)) + (e^-z - e^z Q(a, z)) z^(-a-1)."""
    rest = (np.exp(-z) - _scaled_upper_gamma(a, z)) * z ** (-a - 1)
    return 2 * z**-a - 1 / (z * gamma(a + 1)) + rest


def _cross_2_near(a: float, z: float) -> float:
    """e^-z sum_{k>=0} (k+1) z^k/Gamma(a+2+k): all terms are positive."""
    return np.exp(-z) * (np.arange(1, 91) @ _terms(a, z, 90))


def _cross_2_far(a: float, z: float) -> float:
    """z^-a P(a, z) - a z^(-a-1) P(a+1, z), with P = 1 - Q."""
    lower = lambda a: 1 - np.exp(-z) * _scaled_upper_gamma(a, z)
    return z**-a * lower(a) - a * z ** (-a - 1) * lower(a + 1)


_CROSS = {"I": (_cross_1_near, _cross_1_far), "II": (_cross_2_near, _cross_2_far)}


def _terms(a: float, z: float, count: int) -> Float[np.ndarray, " terms"]:
    """z^k / Gamma(a + 2 + k) for k = 0, 1, ..., each from the one before."""
    ratios = np.append(1.0, z / (a + 1 + np.arange(1, count)))
    return np.cumprod(ratios) / gamma(a + 2)


def _scaled_upper_gamma(a: float, z: float) -> float:
    """e^z Q(a, z) = 1/Gamma(a) int_0^inf e^-t (z + t)^(a-1) dt, by Gauss and Laguerre.

    Good to 14 digits for z >= 5, and does not overflow.
    """
    nodes, weights = _LAGUERRE
    return weights @ (z + nodes) ** (a - 1) / gamma(a)


# ----------------------------------------------------------------------------------------- parts


def _phi2(x: np.ndarray) -> np.ndarray:
    """(x + e^-x - 1) / x^2, 1/2 at 0."""
    safe = np.maximum(x, 0.01)
    return np.where(
        x < 0.01, 0.5 - x / 6 + x**2 / 24 - x**3 / 120, (safe + np.expm1(-safe)) / safe**2
    )


def _rise(z: np.ndarray) -> np.ndarray:
    """1 - (1 - e^-z)/z, 0 at 0."""
    return z * _phi2(z)
