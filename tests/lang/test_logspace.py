"""Sums in log space at their edges: nothing but -inf, infinities, NaN, large numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.lang.logspace import log_sum_exp

INF, NAN = jnp.inf, jnp.nan


@pytest.mark.parametrize(
    ("x", "value", "slope"),
    [
        ([-INF, -INF], -INF, [0, 0]),
        ([-INF, 1.0], 1.0, [0, 1]),
        ([1000.0, 1000.0], 1000 + np.log(2), [0.5, 0.5]),
        ([-1000.0, -1000.0], -1000 + np.log(2), [0.5, 0.5]),
    ],
)
def test_value_and_derivative(x, value, slope):
    found, gradient = jax.value_and_grad(log_sum_exp)(jnp.array(x))
    np.testing.assert_allclose(found, value, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5)


def test_what_is_not_a_number_is_not_hidden():
    assert jnp.isnan(log_sum_exp(jnp.array([NAN, 1.0])))
    assert log_sum_exp(jnp.array([INF, 1.0])) == INF


def test_several_axes_are_one_sum():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5)).at[0, :, 1].set(-INF)
    expected = jax.scipy.special.logsumexp(x, (0, 2))
    np.testing.assert_allclose(log_sum_exp(x, (0, 2)), expected, rtol=1e-6)
