"""Couplings: monotone by construction, also of a part of the nodes, and by convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import PplError
from stdlib.monotone_dbm.coupling import (
    Convolution,
    Dense,
    check_coupling,
    largest_eigenvalue,
    monotone,
    same_node,
)
from stdlib.monotone_dbm.layers import Layer, Layers

RAGGED = Layers({"a": Layer(4, 2), "b": Layer(3, 3), "c": Layer(1, 5)})
GRID = Layers({"p": Layer(6, 2, (2, 3)), "h": Layer(12, 3, (2, 3)), "l": Layer(1, 4)})
MARGINS = pytest.mark.parametrize("margin", [0.01, 0.3, 0.9])
KINDS = pytest.mark.parametrize("tangent", [False, True])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def dense(layers, rows=6, seed=0):
    return (Dense(normal(rows, layers.size, seed=seed)),)


def on_tangents(phi, layers):
    """Phi along directions that keep the sums of all nodes."""
    centred = np.eye(layers.size) - same_node(layers) / layers.states
    return centred @ np.asarray(phi) @ centred


@MARGINS
@KINDS
def test_every_part_of_the_nodes_is_monotone(margin, tangent):
    phi = monotone(dense(RAGGED), RAGGED, margin, tangent=tangent)
    check_coupling(phi, RAGGED, None if tangent else margin)
    full = on_tangents(phi, RAGGED) if tangent else np.asarray(phi)
    limit = (2 if tangent else 1) - margin
    rng = np.random.default_rng(1)
    for keep in (np.ones(8, bool), *(rng.random((6, 8)) < 0.5)):
        part = full[np.ix_(*2 * [keep[RAGGED.owner]])]
        assert part.size == 0 or np.linalg.eigvalsh(part)[-1] <= limit + 1e-12
    assert np.linalg.eigvalsh(full)[-1] > 0.2 * limit  # the bound is not idle


def test_the_entropy_has_the_slack_that_tangent_uses():
    """sum v^2 / q >= 2 |v|^2 for v that sums to zero."""
    rng = np.random.default_rng(0)
    q, v = rng.dirichlet(np.ones(4), 5000), rng.normal(size=(5000, 4))
    v -= v.mean(-1, keepdims=True)
    ratio = np.sum(v**2 / q, -1) / np.sum(v**2, -1)
    assert ratio.min() > 2


def test_small_columns_are_not_scaled():
    rows = dense(RAGGED)
    small = (Dense(1e-2 * rows[0].weight),)
    phi = monotone(small, RAGGED, 0.1)
    expected = np.where(same_node(RAGGED), 0, -small[0].square(RAGGED))
    np.testing.assert_allclose(phi, expected, atol=1e-15)
    zero = monotone((Dense(jnp.zeros((2, RAGGED.size))),), RAGGED, 0.1)
    grad = jax.grad(lambda w: jnp.sum(monotone((Dense(w),), RAGGED, 0.1)))(jnp.zeros((2, 22)))
    assert not zero.any() and np.isfinite(grad).all()


def test_the_derivative_goes_through_the_scales():
    layers = Layers({"a": Layer(2, 2), "b": Layer(1, 3)})
    weight, direction = 2 * normal(3, 7), normal(3, 7, seed=1)
    f = lambda w: jnp.sum(
        jnp.sin(jnp.arange(49).reshape(7, 7)) * monotone((Dense(w),), layers, 0.2)
    )
    e = 1e-6
    slope = (f(weight + e * direction) - f(weight - e * direction)) / (2 * e)
    np.testing.assert_allclose(jax.jvp(f, (weight,), (direction,))[1], slope, rtol=1e-7)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (1, 1)])
def test_a_convolution_is_the_matrix_that_it_stands_for(shape):
    kernel = {"p": normal(5, 2, *shape), "h": normal(5, 6, *shape, seed=1)}
    around = [(n - 1, n - 1) for n in shape]

    def apply(q):
        parts = GRID.split(q)
        images = [jnp.moveaxis(parts[n].reshape(2, 3, -1), -1, 0) for n in kernel]
        both = jnp.concatenate(list(kernel.values()), 1)
        stacked = jnp.concatenate(images)[None]
        return jax.lax.conv_general_dilated(stacked, both, (1, 1), around).ravel()

    a = jax.vmap(apply, out_axes=1)(jnp.eye(GRID.size))
    square = Convolution(kernel).square(GRID)
    np.testing.assert_allclose(square, a.T @ a, atol=1e-12)
    check_coupling(monotone((Convolution(kernel), *dense(GRID)), GRID, 0.1), GRID, 0.1)


def test_the_frustrated_machine_has_the_known_spectrum():
    layers = Layers({"x": Layer(16, 2)})
    phi = monotone((Dense(3 * jnp.tile(jnp.array([1.0, -1.0]), 16)[None]),), layers, 0.1)
    spectrum = np.linalg.eigvalsh(np.eye(32) - phi)
    np.testing.assert_allclose(spectrum, [*[0.1] * 15, *[1.0] * 16, 14.5], atol=1e-12)
    np.testing.assert_allclose(largest_eigenvalue(phi), 14.5, rtol=1e-6)


def test_bad_couplings_are_refused():
    good = monotone(dense(RAGGED), RAGGED, 0.3)
    bad = {
        "shape": good[:-1],
        "not finite": good.at[0, 3].set(jnp.nan),
        "not symmetric": good.at[0, 3].add(1.0),
        "states of the same node": good + 0.1 * jnp.eye(len(good)),
        "below the margin": -20 * good,
    }
    for because, phi in bad.items():
        with pytest.raises(PplError, match=because):
            check_coupling(phi, RAGGED, 0.3)
    for margin in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="the margin must be in"):
            monotone(dense(RAGGED), RAGGED, margin)
    for layer in ((0, 2), (3, 1), (5, 2, (2, 2))):
        with pytest.raises(ValueError, match=r"at least two states|do not fill"):
            Layer(*layer)
