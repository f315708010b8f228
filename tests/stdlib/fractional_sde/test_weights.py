"""The best weights against integrals, and what must hold of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma, gammainc, gammaincc

from stdlib.fractional_sde import exact, weights
from stdlib.fractional_sde.noise import FractionalNoise
from stdlib.fractional_sde.weights import cost, cross, geometric_rates, gram, optimal_weights

KINDS, RATES = ["I", "II"], geometric_rates()


def integral(f, *ends):
    return quad(f, *ends, epsabs=1e-13, epsrel=1e-12, limit=200)[0]


def mean_product(kind, i, j, t):
    """E[Y_i Y_j] at t; for type I of the processes less their starts."""
    s = i + j
    if kind == "II":
        return -np.expm1(-s * t) / s
    return (2 - np.exp(-i * t) - np.exp(-j * t)) / s


def mean_noise_product(kind, rate, t, hurst):
    """E[B_H Y] at t: the integral of the product of both kernels, after 0 and (type I) before."""
    a, z = hurst + 0.5, rate * t
    product = gammainc(a, z)
    if kind == "I":
        product += np.expm1(-z) * (np.exp(z) * gammaincc(a, z) - 1)
    return product * rate**-a


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_against_integrals(kind, hurst):
    horizon = 1.5
    for k, rate in enumerate(RATES):
        known = integral(lambda t, r=rate: mean_product(kind, r, RATES[0], t), 0, horizon)
        np.testing.assert_allclose(gram(kind, RATES, horizon)[k, 0], known, rtol=1e-8)
        known = integral(lambda t, r=rate: mean_noise_product(kind, r, t, hurst), 0, horizon)
        np.testing.assert_allclose(cross(kind, RATES, horizon, hurst)[k], known, rtol=1e-8)
    variance = lambda t: weights.variance_rate(kind, hurst) * t ** (2 * hurst)
    known = integral(variance, 0, horizon)
    np.testing.assert_allclose(weights.square(kind, horizon, hurst), known, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hurst", [0.1, 0.5, 0.9])
def test_both_forms_agree_where_they_meet(kind, hurst):
    """The series is good up to some z, the expansion beyond; a rate on either side of it."""
    z = weights._SERIES[kind]
    below, above = (
        cross(kind, np.array([z * (1 - 1e-12)]), 1.0, hurst),
        cross(kind, np.array([z]), 1.0, hurst),
    )
    np.testing.assert_allclose(below, above, rtol=1e-10)


def test_tiny_rates_lose_no_digits():
    """For gamma T = 1e-6 the textbook form of b has none left."""
    a, z = 1.2, 1e-6
    leading = 1 / gamma(a + 2) + z / gamma(a + 3) - z ** (2 - a) / 3
    np.testing.assert_allclose(cross("I", np.array([z]), 1.0, a - 0.5), leading, rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_polynomial_is_the_solution(kind):
    """At all indices, in both precisions: the single one costs nothing, although A is almost
    singular for type II."""
    for hurst in np.linspace(0.02, 0.98, 17):
        best = optimal_weights(kind, RATES, 1.0, hurst)
        single = weights.weights_at(jnp.float32(hurst), kind, RATES, 1.0)
        with jax.enable_x64(True):
            double = weights.weights_at(hurst, kind, RATES, 1.0)
        least = cost(kind, RATES, 1.0, hurst, best)
        assert -1e-12 < least < 1
        assert cost(kind, RATES, 1.0, hurst, double) - least < 1e-10
        assert single.dtype == jnp.float32
        assert cost(kind, RATES, 1.0, hurst, single) - least < 1e-9


def test_known_weights():
    """Of the card; and those of type II by what they cost."""
    for hurst, known in [
        (0.3, [0.80440769, -0.11151898, 0.48741451, 0.08450576, 1.1873324]),
        (0.7, [2.26196625, -1.42063606, 0.01978801, -0.31069781, -0.17700942]),
    ]:
        np.testing.assert_allclose(optimal_weights("I", RATES, 1.0, hurst), known, rtol=1e-6)
    for kind, known in [
        ("I", [0.307, 0.0166, 0.0128, 0.098, 0.51]),
        ("II", [0.229, 0.0078, 0.0, 0.00013, 0.00006]),
    ]:
        costs = [
            cost(kind, RATES, 1.0, h, optimal_weights(kind, RATES, 1.0, h))
            for h in (0.1, 0.3, 0.5, 0.7, 0.9)
        ]
        np.testing.assert_allclose(costs, known, rtol=0.02, atol=1e-5)


def test_derivatives_in_the_hurst_index():
    known = {
        "I": [2.15033, -0.64413, -2.27841, 0.24545, -10.05386],
        "II": [-267.554, 376.700, -128.884, 24.026, -15.9937],
    }
    with jax.enable_x64(True):
        for kind, wanted in known.items():
            at = lambda h, k=kind: weights.weights_at(h, k, RATES, 1.0)
            np.testing.assert_allclose(jax.jacrev(at)(0.3), wanted, rtol=1e-5)
            step = 1e-5
            central = (at(0.3 + step) - at(0.3 - step)) / (2 * step)
            np.testing.assert_allclose(jax.jacfwd(at)(0.3), central, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_laws(kind):
    """Scale, order of the rates, and more rates."""
    rates, hurst, s = np.array([0.1, 1.0, 7.0]), 0.35, 3.0
    best = optimal_weights(kind, rates, 2.0, hurst)
    slower = optimal_weights(kind, rates / s, 2.0 * s, hurst)
    np.testing.assert_allclose(slower, s ** (hurst - 0.5) * best, rtol=1e-8)
    order = [2, 0, 1]
    np.testing.assert_allclose(optimal_weights(kind, rates[order], 2.0, hurst), best[order])
    fewer = optimal_weights(kind, rates[:2], 2.0, hurst)
    assert cost(kind, rates, 2.0, hurst, best) <= cost(kind, rates[:2], 2.0, hurst, fewer)
    assert np.linalg.eigvalsh(gram(kind, RATES, 2.0)).min() > 0


def test_brownian_motion():
    np.testing.assert_allclose(optimal_weights("II", np.array([1e-3]), 1.0, 0.5), 1.00033331)
    np.testing.assert_allclose(optimal_weights("II", np.zeros(1), 1.0, 0.5), 1.0)
    np.testing.assert_allclose(optimal_weights("I", RATES, 1.0, 0.5).sum(), 1.0, atol=5e-5)
    known = [3.52448, 1.91747, 1.38338, 1.12892, 1, 0.95431, 0.99509, 1.19003, 1.93026]
    rates = weights.variance_rate("I", np.arange(1, 10) / 10)
    np.testing.assert_allclose(rates, known, rtol=1e-5)


@pytest.mark.parametrize(("kind", "error"), [("I", 0.0145), ("II", 0.0098)])
def test_covariance_of_the_approximation(kind, error):
    """Close to fractional Brownian motion's, as far as the card says, at 20 equal times."""
    times = np.arange(1, 21) / 20
    known = exact.covariance(kind, 0.3, times)
    best = optimal_weights(kind, RATES, 1.0, 0.3)
    found = exact.markov_covariance(FractionalNoise(kind), best, times)
    relative = np.linalg.norm(found - known) / np.linalg.norm(known)
    np.testing.assert_allclose(relative, error, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kind="III"), "kind must be"),
        (dict(horizon=0.0), "horizon must be positive"),
        (dict(rates=np.array([])), "at least one"),
        (dict(rates=np.array([1.0, 1.0])), "must increase"),
        (dict(rates=np.array([2.0, 1.0])), "must increase"),
        (dict(rates=np.array([-1.0, 1.0])), "at least 0"),
        (dict(kind="I", rates=np.zeros(1)), "positive for type I"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FractionalNoise(**options)


def test_indices_and_rates_that_are_refused():
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        FractionalNoise().weights(1.2)
    for processes, largest in ((0, 20.0), (5, 1.0)):
        with pytest.raises(ValueError, match="geometric_rates"):
            geometric_rates(processes, largest)
