"""The network's symmetries, and that layers which add nothing leave the prior as it is."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stdlib.distribution_transformer.mixture import Mixture, log_density
from stdlib.distribution_transformer.network import (
    DistributionTransformer,
    FamilyPrior,
    MixturePrior,
    NoPrior,
)
from tests.stdlib.distribution_transformer.test_mixture import some_mixture

K, N = 4, 2


@pytest.fixture(scope="module")
def net() -> DistributionTransformer:
    """With the zeroed matrices drawn at random, so that every part has something to say."""
    keys, rng = jax.random.split(jax.random.key(0)), np.random.default_rng(0)
    prior = MixturePrior(N, 16, key=keys[0])
    made = DistributionTransformer(prior, (3, 1), N, width=16, layers=2, hidden=24, key=keys[1])
    noise = lambda x: x + np.float32(0.3) * rng.normal(size=x.shape).astype(np.float32)
    return jax.tree.map(lambda x: noise(x) if eqx.is_inexact_array(x) else x, made)


@pytest.fixture(scope="module")
def data() -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(1))
    return jax.random.normal(keys[0], (5, 3)), jax.random.normal(keys[1], (1, 1))


def permuted(mixture: Mixture, order) -> Mixture:
    return jax.tree.map(lambda x: x[jnp.asarray(order)], mixture)


def assert_close(a, b, atol=1e-5):
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=atol)
    jax.tree.map(close, a, b)


def test_permuting_the_prior_s_components_permutes_the_posterior_s(net, data):
    """Check 5 of the card, and the density does not change."""
    prior, order = some_mixture(K, N), [2, 0, 3, 1]
    prior = jax.tree.map(lambda x: x.astype(jnp.float32), prior)
    before, after = net(prior, *data), net(permuted(prior, order), *data)
    assert_close(permuted(before, order), after)
    assert jnp.std(before.loc, 0).min() > 1e-3  # the components do differ
    x = jnp.array([[0.3, -1.0], [2.0, 0.5]])
    many = jax.vmap(log_density, (None, 0))
    assert_close(many(before, x), many(after, x))


def test_the_order_of_the_points_does_not_matter_but_the_points_do(net, data):
    prior, (points, other) = some_mixture(K, N), data
    before = net(prior, points, other)
    assert_close(before, net(prior, points[jnp.array([3, 1, 4, 0, 2])], other))
    assert jnp.max(jnp.abs(before.loc - net(prior, points + 1, other).loc)) > 1e-3


def test_layers_that_add_nothing_leave_the_prior(net, data):
    """Check 7: with all blocks returning 0, the posterior is the prior's read-out."""
    adds = lambda l: (
        l.among.output_proj.weight,
        l.across.output_proj.weight,
        l.forward.layers[-1].weight,
        l.forward.layers[-1].bias,
    )
    layers = eqx.tree_at(adds, net.layers, replace_fn=jnp.zeros_like)
    layers = eqx.tree_at(lambda l: [n.weight for n in l.norms], layers, replace_fn=jnp.ones_like)
    layers = eqx.tree_at(lambda l: [n.bias for n in l.norms], layers, replace_fn=jnp.zeros_like)
    still = eqx.tree_at(lambda n: n.layers, net, layers)
    prior = some_mixture(K, N)
    assert_close(still(prior, *data), still.prior_mixture(prior), atol=1e-3)


def test_a_new_network_is_near_the_prior_s_read_out_but_sees_the_data(data):
    keys = jax.random.split(jax.random.key(3))
    prior = FamilyPrior(2, K, 16, key=keys[0])
    new = DistributionTransformer(prior, (3, 1), N, width=16, layers=2, hidden=24, key=keys[1])
    assert jnp.all(new.layers.among.output_proj.weight == 0)
    assert jnp.all(new.layers.forward.layers[-1].weight == 0)
    assert jnp.any(new.layers.across.output_proj.weight != 0)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_what_is_read_out_is_a_mixture(n):
    key = jax.random.key(0)
    net = DistributionTransformer(NoPrior(K, 8, key=key), (1,), n, width=8, heads=2, key=key)
    found = net(None, jnp.ones((3, 1)))
    assert [x.shape for x in found] == [(K,), (K, n), (K, n, n)]
    np.testing.assert_allclose(jnp.sum(found.weights), 1, rtol=1e-5)
    assert jnp.all(jnp.diagonal(found.scale_tril, axis1=-2, axis2=-1) > 0)
    assert jnp.all(jnp.triu(found.scale_tril, 1) == 0)


def test_a_source_without_data_is_an_error(net, data):
    with pytest.raises(ValueError, match="2 sources"):
        net(some_mixture(K, N), data[0])


def test_a_relative_read_out_of_nothing_is_the_prior(data):
    """Also where the data are: what is read out is in the coordinates of the prior's components."""
    keys = jax.random.split(jax.random.key(4), 3)
    embedding = MixturePrior(N, 16, relative=True, key=keys[0])
    made = DistributionTransformer(embedding, (3, 1), N, width=16, hidden=24, key=keys[1])
    last = lambda n: (n.readout.layers[-1].weight, n.readout.layers[-1].bias)
    still = eqx.tree_at(last, made, replace_fn=jnp.zeros_like)
    prior = some_mixture(K, N)
    found = still(prior, *data)
    assert_close(found._replace(logits=found.weights), prior._replace(logits=prior.weights))
    moved = made(prior, *data)
    away = jnp.linalg.solve(prior.scale_tril, (moved.loc - prior.loc)[..., None])
    assert jnp.max(jnp.abs(away)) > 1e-3
