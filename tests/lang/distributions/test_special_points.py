"""Values and derivatives of log-densities where formulas break: zeros, edges, impossible states."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

import ppl.lang.distributions as d

INF = math.inf
EULER = -float(digamma(1))


def value_and_derivative(dist: Any, value: Any, params: dict[str, Any], wrt: str) -> tuple:
    """The log-density and its derivative in `wrt`: a parameter, or the value."""
    params = {n: jnp.asarray(p, jnp.float32) for n, p in params.items()}

    def function(x):
        if wrt == "value":
            return dist.log_prob(x, **params)
        return dist.log_prob(value, **{**params, wrt: x})

    return jax.value_and_grad(function)(jnp.float32(value) if wrt == "value" else params[wrt])


@pytest.mark.parametrize("value", [False, True])
def test_bernoulli_at_logits_zero(value):
    found = value_and_derivative(d.bernoulli, value, dict(logits=0.0), "logits")
    assert found[0] == pytest.approx(-math.log(2))
    assert found[1] == value - 0.5  # exactly


@pytest.mark.parametrize("count", [0, 2, 5])
def test_counts_at_logits_zero(count):
    params = dict(total_count=5.0, logits=0.0)
    assert value_and_derivative(d.binomial, count, params, "logits")[1] == count - 2.5
    assert value_and_derivative(d.negative_binomial, count, params, "logits")[1] == (count - 5) / 2
    assert (
        value_and_derivative(d.geometric, count, dict(logits=0.0), "logits")[1] == (1 - count) / 2
    )


@pytest.mark.parametrize(
    "dist, value, params, wrt, expected",
    [
        # The boundary of a continuous support: limits from inside.
        (d.exponential, 0.0, dict(rate=1.7), "value", (math.log(1.7), -1.7)),
        (d.half_normal, 0.0, dict(scale=2.0), "value", (0.5 * math.log(0.5 / math.pi), 0.0)),
        (d.gamma, 0.0, dict(concentration=1.0, rate=1.7), "value", (math.log(1.7), -1.7)),
        (d.gamma, 0.0, dict(concentration=1.0, rate=1.7), "rate", (math.log(1.7), 1 / 1.7)),
        (d.gamma, 0.0, dict(concentration=2.0, rate=1.7), "value", (-INF, INF)),
        (d.gamma, 0.0, dict(concentration=0.5, rate=1.7), "value", (INF, -INF)),
        (d.weibull, 0.0, dict(concentration=1.0, scale=2.0), "value", (-math.log(2), -0.5)),
        (d.beta, 0.0, dict(concentration1=2.0, concentration0=3.0), "value", (-INF, INF)),
        (d.beta, 0.0, dict(concentration1=0.5, concentration0=3.0), "value", (INF, -INF)),
        (d.beta, 0.0, dict(concentration1=1.0, concentration0=3.0), "value", (math.log(3), -2.0)),
        (d.beta, 1.0, dict(concentration1=3.0, concentration0=1.0), "value", (math.log(3), 2.0)),
        (d.beta, 1.0, dict(concentration1=3.0, concentration0=2.0), "value", (-INF, -INF)),
        (d.uniform, 0.0, dict(low=0.0, high=2.0), "high", (-math.log(2), -0.5)),
        (d.uniform, 2.0, dict(low=0.0, high=2.0), "high", (-math.log(2), -0.5)),
        # Where an exponent is 0 in the formula, but its derivative is not.
        (
            d.beta,
            0.3,
            dict(concentration1=1.0, concentration0=1.0),
            "concentration1",
            (0.0, math.log(0.3) + 1),
        ),
        (
            d.gamma,
            0.5,
            dict(concentration=1.0, rate=2.0),
            "concentration",
            (math.log(2) - 1, EULER),
        ),
        # Kinks.
        (d.laplace, 0.3, dict(loc=0.3, scale=2.0), "value", (-math.log(4), 0.0)),
        (d.logistic, 0.3, dict(loc=0.3, scale=2.0), "value", (-math.log(8), 0.0)),
        # Certain and impossible states: an impossible one has derivative 0.
        (d.poisson, 0, dict(rate=0.0), "rate", (0.0, -1.0)),
        (d.poisson, 2, dict(rate=0.0), "rate", (-INF, 0.0)),
        (d.poisson, 0, dict(rate=1e-30), "rate", (-1e-30, -1.0)),
        (d.poisson, 0, dict(log_rate=-INF), "log_rate", (0.0, 0.0)),
        (d.flip, True, dict(p=0.0), "p", (-INF, 0.0)),
        (d.flip, False, dict(p=0.0), "p", (0.0, -1.0)),
        (d.flip, True, dict(p=1.0), "p", (0.0, 1.0)),
        (d.flip, False, dict(p=1.0), "p", (-INF, 0.0)),
        (d.bernoulli, 1, dict(probs=0.0), "probs", (-INF, 0.0)),
        (d.bernoulli, 1, dict(logits=INF), "logits", (0.0, 0.0)),
        (d.geometric, 0, dict(probs=1.0), "probs", (0.0, 1.0)),
        (d.geometric, 3, dict(probs=1.0), "probs", (-INF, 0.0)),
        (d.binomial, 0, dict(total_count=3.0, probs=0.0), "probs", (0.0, -3.0)),
        (d.binomial, 3, dict(total_count=3.0, probs=1.0), "probs", (0.0, 3.0)),
        (d.binomial, 1, dict(total_count=3.0, probs=0.0), "probs", (-INF, 0.0)),
        (d.binomial, 3, dict(total_count=3.0, logits=INF), "logits", (0.0, 0.0)),
    ],
)
def test_derivatives(dist, value, params, wrt, expected):
    found = value_and_derivative(dist, value, params, wrt)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)  # XLA's lgamma: 1e-6


def test_categories_of_probability_zero():
    logits = jnp.array([0.5, -INF, 1.5])
    p = jax.nn.softmax(logits)
    for value in range(3):
        found, gradient = jax.value_and_grad(lambda l, v=value: d.categorical.log_prob(v, l))(
            logits
        )
        possible = value != 1
        np.testing.assert_allclose(found, jnp.log(p[value]), rtol=1e-6)
        expected = ((np.arange(3) == value) - np.asarray(p)) * possible
        np.testing.assert_allclose(gradient, expected, atol=1e-7)
        one_hot = np.eye(3, dtype=int)[value]
        same = jax.value_and_grad(lambda l, v=one_hot: d.one_hot_categorical.log_prob(v, l))(logits)
        np.testing.assert_allclose(same[0], found)
        np.testing.assert_allclose(same[1], expected, atol=1e-7)
    gradient = jax.grad(lambda p: d.categorical.log_prob(0, probs=p))(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(gradient, 0)


def test_multinomial_with_an_impossible_category():
    log_prob = lambda p, x: d.multinomial.log_prob(jnp.array(x), 3.0, probs=p)
    probs = jnp.array([0.0, 0.25, 0.75])
    value, gradient = jax.value_and_grad(log_prob)(probs, [0, 1, 2])
    assert value == pytest.approx(math.log(3 * 0.25 * 0.75**2), rel=1e-6)
    np.testing.assert_allclose(gradient, [0, 4, 2 / 0.75], rtol=1e-6)
    value, gradient = jax.value_and_grad(log_prob)(probs, [1, 1, 1])
    assert value == -INF
    np.testing.assert_array_equal(gradient, 0)


def test_dirichlet_at_a_vertex():
    vertex = jnp.array([0.0, 0.0, 1.0])
    value, gradient = jax.value_and_grad(d.dirichlet.log_prob)(vertex, jnp.ones(3))
    assert value == pytest.approx(math.log(2), abs=2e-6)
    np.testing.assert_array_equal(gradient, 0)


def test_mixture_components_of_density_zero():
    mixture = d.mixture_same_family(d.uniform)
    params = dict(logits=jnp.zeros(2), low=jnp.array([0.0, 2.0]), high=jnp.array([1.0, 4.0]))
    log_prob = lambda params, x: mixture.log_prob(x, **params)
    value, gradient = jax.value_and_grad(log_prob)(params, 2.5)  # only the second is possible
    assert value == pytest.approx(math.log(0.25))
    np.testing.assert_allclose(gradient["high"], [0, -0.5])
    np.testing.assert_allclose(gradient["logits"], [-0.5, 0.5])
    value, gradient = jax.value_and_grad(log_prob)(params, 1.5)  # none is
    assert value == -INF
    np.testing.assert_array_equal(jax.tree.leaves(gradient), 0)


def test_a_parameter_that_does_not_move_adds_nothing():
    # d/d concentration1 is -inf at 0; times a tangent of zero it would be NaN.
    log_prob = lambda x: d.beta.log_prob(x, 1.0, 3.0)
    assert jax.jvp(log_prob, (0.0,), (1.0,))[1] == -2
