"""The activation: its optimality conditions, references and derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stdlib.monotone_dbm.prox import log_prox, prox

CASES = [(k, a) for k in (2, 3, 10) for a in (0.05, 0.3, 0.9)]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def inputs(k, scale=1.0, n=50, seed=0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=(n, k)))


@pytest.mark.parametrize(("k", "a"), CASES)
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_optimality_conditions_hold(k, a, scale):
    x = inputs(k, scale)
    u = log_prox(x, a)
    z = jnp.exp(u)
    np.testing.assert_allclose(z.sum(-1), 1, atol=1e-12)
    shift = (1 - a) * z + a * u - x  # the same for all states of a node
    np.testing.assert_allclose(shift, shift[:, :1] + 0 * shift, atol=1e-10 * scale)
    order = jnp.argsort(x, -1)
    assert np.all(np.diff(np.take_along_axis(np.asarray(u), np.asarray(order), -1)) > 0)


@pytest.mark.parametrize(("k", "a"), CASES)
def test_shifts_permutations_and_contraction(k, a):
    x, y = inputs(k), inputs(k, seed=1)
    z, w = prox(x, a), prox(y, a)
    np.testing.assert_allclose(prox(x + 3.0, a), z, atol=1e-12)
    np.testing.assert_allclose(prox(x[:, ::-1], a), z[:, ::-1], atol=1e-12)
    gap = z - w
    assert np.all(jnp.sum(gap**2, -1) <= jnp.sum(gap * (x - y), -1) + 1e-12)  # firmly nonexpansive


def test_references():
    near = lambda x, a, z: np.testing.assert_allclose(prox(jnp.array(x), a), z, rtol=1e-7)
    near([1.0, 0.0, -1.0], 0.125, [9.07903497e-01, 9.20377223e-02, 5.87802781e-05])
    near([1.0, 0.0, -1.0], 0.5, [0.77958136, 0.19020995, 0.03020869])
    near([2.0, 0.5], 0.25, [0.96189711, 0.03810289])
    near([0.7, -0.4], 0.25, [0.8880950982, 1 - 0.8880950982])


@pytest.mark.parametrize("k", [2, 5])
def test_the_ends_are_softmax_and_projection(k):
    x = inputs(k)
    np.testing.assert_allclose(prox(x, 1.0), jax.nn.softmax(x), rtol=1e-12)
    small = prox(x, 1e-6)
    # The projection: entries are max(x + nu, 0).
    on = small > 1e-3
    nu = jnp.where(on, small - x, 0).sum(-1, keepdims=True) / on.sum(-1, keepdims=True)
    np.testing.assert_allclose(small, jnp.maximum(x + nu, 0), atol=1e-3)


def test_two_states_agree_with_a_third_that_is_far_away():
    x = inputs(2)
    far = jnp.concatenate([x, jnp.full((50, 1), -1e4)], -1)
    np.testing.assert_allclose(prox(far, 0.25)[:, :2], prox(x, 0.25), atol=1e-12)


def test_lambert_form():
    """z = a/(1-a) W((1-a)/a e^(y/a - 1)) where that does not overflow: W(v) e^W(v) = v."""
    x, a = inputs(4), 0.4
    z = prox(x, a)
    y = x + (a * jnp.log(z) + (1 - a) * z + a - x)[:, :1]
    w = z * (1 - a) / a
    np.testing.assert_allclose(w * jnp.exp(w), (1 - a) / a * jnp.exp(y / a - 1), rtol=1e-10)


@pytest.mark.parametrize("k", [2, 4])
def test_derivatives(k):
    x, a = inputs(k)[0], 0.3
    z = prox(x, a)
    gain = z / (a + (1 - a) * z)
    jacobian = jnp.diag(gain) - jnp.outer(gain, gain) / gain.sum()
    np.testing.assert_allclose(jax.jacobian(prox)(x, a), jacobian, atol=1e-12)
    e = 1e-6
    slopes = [(prox(x + d, a) - prox(x - d, a)) / (2 * e) for d in e * np.eye(k)]
    np.testing.assert_allclose(jacobian, np.stack(slopes, 1), atol=1e-9)
    slope = (prox(x, a + e) - prox(x, a - e)) / (2 * e)
    np.testing.assert_allclose(jax.jacobian(prox, 1)(x, a), slope, atol=1e-9)


def test_single_precision_and_underflow():
    with jax.enable_x64(False):
        u = log_prox(jnp.array([[800.0, 0.0, -5.0], [0.1, 0.0, -0.1]]), 0.9)
        assert u.dtype == jnp.float32 and np.isfinite(u).all() and u[0, 1] < -500
        np.testing.assert_allclose(jnp.exp(u).sum(-1), 1, atol=3e-7)


@pytest.mark.parametrize(("x", "a"), [([1.0], 0.5), ([1.0, 2.0], 0.0), ([1.0, 2.0], 1.1)])
def test_bad_input_is_refused(x, a):
    with pytest.raises(ValueError, match="prox: "):
        prox(jnp.array(x), a)
