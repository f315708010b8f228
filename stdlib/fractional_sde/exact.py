"""What is known in closed form: covariances, bridges, and the best control of a linear case.

Computed in numpy, in double precision; for tests and for the lines in figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import gamma, hyp2f1

from stdlib.fractional_sde.noise import FractionalNoise, mean_decay
from stdlib.fractional_sde.weights import Kind, variance_rate

Times = Float[np.ndarray, " times"]
Covariance = Float[np.ndarray, "times times"]


def covariance(kind: Kind, hurst: float, times: Times) -> Covariance:
    """Of fractional Brownian motion itself, with the variance of `weights.variance_rate`."""
    s, t = np.minimum(times[:, None], times), np.maximum(times[:, None], times)
    if kind == "I":
        power = 2 * hurst
        rate = variance_rate(kind, hurst)
        return rate / 2 * (s**power + t**power - (t - s) ** power)
    a = hurst + 0.5
    ratio = np.divide(s, t, out=np.zeros_like(s), where=t > 0)
    return s**a * t ** (a - 1) / (a * gamma(a) ** 2) * hyp2f1(1 - a, 1, a + 1, ratio)


def markov_covariance(noise: FractionalNoise, weights: Any, times: Times) -> Covariance:
    """Of the approximation with these weights."""
    weights, rates = np.asarray(weights, np.float64), noise.rates
    s, t = np.minimum(times[:, None], times), np.maximum(times[:, None], times)
    s, lag, total = s[..., None, None], (t - s)[..., None, None], rates[:, None] + rates
    # E[Y_k(t) Y_l(s)]; the processes share their noise.
    products = np.exp(-rates[:, None] * lag) * s * mean_decay(total * s)
    if noise.kind == "I":  # less their starts, which are stationary
        decay = lambda time: -np.expm1(-rates * time[..., None])
        t, s = np.broadcast_to(t, lag.shape[:2]), s[..., 0, 0]
        products = products + decay(t)[..., :, None] * decay(s)[..., None, :] / total
    return np.einsum("k,stkl,l->st", weights, products, weights)


def linear_covariance(times: Times, driver: Covariance, rate: float) -> Covariance:
    """Of dX = -rate X dt + dB, X(0) = 0, at the same times, from the covariance of B.

    X(t) = B(t) - rate int_0^t e^(-rate (t - u)) B(u) du, with the integral by the trapezoid rule
    between the times, of which the first is 0.
    """
    gap = np.diff(times)
    kernel = np.where(times[:, None] >= times, np.exp(-rate * (times[:, None] - times)), 0.0)
    before = np.tril(kernel) * np.append(0.0, gap)  # each interval's weight at its end
    after = np.tril(kernel, -1) * np.append(gap, 0.0)  # and at its beginning
    map_ = np.eye(len(times)) - rate * (before + after) / 2
    return map_ @ driver @ map_.T


def log_evidence(data: Any, covariance: Covariance, noise: float) -> np.ndarray:
    """log N(row; 0, covariance + noise^2), of each row of the data, in nats."""
    data = np.atleast_2d(np.asarray(data, np.float64))
    factor = np.linalg.cholesky(covariance + noise**2 * np.eye(len(covariance)))
    z = np.linalg.solve(factor, data.T)
    constant = len(factor) * np.log(2 * np.pi) / 2 + np.log(np.diag(factor)).sum()
    return -0.5 * np.sum(z**2, 0) - constant
