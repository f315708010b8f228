"""Mixtures: names of parameters, batches, vectors, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

import ppl.lang.distributions as d
from ppl.errors import ShapeError


def names(dist) -> list[str]:
    return list(dist.family.value.parameters)


def test_names_of_parameters():
    assert names(d.mixture_same_family(d.normal)) == ["logits", "loc", "scale", "probs"]
    assert names(d.mixture_same_family(d.poisson)) == ["logits", "rate", "probs"]
    by_log_rate = d.mixture_same_family(d.poisson, given=("log_rate",))
    assert names(by_log_rate) == ["logits", "log_rate", "probs"]
    of_flips = d.mixture_same_family(d.bernoulli, given=("probs",))
    assert names(of_flips) == ["mixture_logits", "probs", "mixture_probs"]


def test_unknown_and_conflicting_parameters_of_the_component():
    with pytest.raises(ValueError, match="no parameter"):
        d.mixture_same_family(d.normal, given=("rate",))
    with pytest.raises(ValueError, match="only one"):
        d.mixture_same_family(d.poisson, given=("rate", "log_rate"))


def test_the_same_component_gives_the_same_family():
    a, b = d.mixture_same_family(d.normal), d.mixture_same_family(d.normal.score)
    assert a.family.value is b.family.value


@pytest.mark.parametrize("by_probs", [False, True])
def test_mixture_of_vectors(by_probs: bool, key: jax.Array):
    """[2 lanes, 3 components, 4 entries], and as many weights as components."""
    mixture = d.mixture_same_family(d.multivariate_normal_diag)
    keys = jax.random.split(key, 3)
    loc = jax.random.normal(keys[0], (2, 3, 4))
    scale = jnp.exp(jax.random.normal(keys[1], (3, 4)))
    logits = jnp.array([0.3, -1.0, 0.5])
    weights = dict(probs=jax.nn.softmax(logits)) if by_probs else dict(logits=logits)
    family = mixture.family.value
    assert family.reparam is None
    x = family.sample(keys[2], (2,), loc=loc, scale_diag=scale, **weights)
    assert x.shape == (2, 4)
    found = mixture.log_prob(x, loc=loc, scale_diag=scale, **weights)
    each = jnp.broadcast_to(x[:, None], (2, 3, 4))
    parts = d.multivariate_normal_diag.log_prob(each, loc, scale)
    expected = logsumexp(jax.nn.log_softmax(logits) + parts, axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_lanes_draw_their_own_components(key: jax.Array):
    family = d.mixture_same_family(d.normal).family.value
    loc = jnp.array([[0.0, 100.0], [1000.0, 1100.0]])[:, None]  # [2, 1, K]
    params = dict(logits=jnp.zeros(2), loc=loc, scale=jnp.full(1, 1e-3))
    x = family.sample(key, (2, 50), **params)
    assert set(np.round(x[0]).tolist()) == {0.0, 100.0}
    assert set(np.round(x[1]).tolist()) == {1000.0, 1100.0}


def test_support_is_the_union():
    uniforms = d.mixture_same_family(d.uniform).family.value
    params = dict(logits=jnp.zeros(2), low=jnp.array([0.0, 2.0]), high=jnp.array([1.0, 3.0]))
    support = uniforms.support_of(params)
    x = jnp.array([0.5, 1.5, 2.5])
    np.testing.assert_array_equal(support.check(x), [True, False, True])
    assert support.bounds == (0.0, 3.0)
    assert support.check(support.example())
    assert uniforms.reparam is None  # a draw cannot cross the gap


def test_numbers_of_components_must_agree():
    mixture = d.mixture_same_family(d.normal)
    with pytest.raises(ShapeError, match="different numbers of components"):
        mixture.log_prob(0.0, jnp.zeros(2), jnp.zeros(3), jnp.ones(3))
