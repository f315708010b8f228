"""Lanes: batch axes and `vmap` mean independent draws, with per-lane parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl.lang.distributions as d
from ppl.lang.seed import seed

from .cases import CASES, Case, float32

ONE_EACH = list({c.family.name: c for c in CASES}.values())


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_log_density_under_vmap_is_a_loop(case: Case):
    values = jnp.asarray(np.asarray(case.values)[[0, -1]])
    if values.dtype != jnp.int32:
        values = values.astype(jnp.float32)
    params = float32(case.params[0])
    other = float32(case.params[-1])
    stacked = {n: jnp.stack([params[n], other[n]]) for n in params}
    first = next(iter(params))
    log_prob = lambda x, params: case.dist.log_prob(x, **params)
    mixed = lambda x, p: log_prob(x, {**params, first: p})

    @jax.jit
    def mapped(values, stacked):
        with_all = jax.vmap(log_prob)(values, stacked)
        return with_all, jax.vmap(mixed, (None, 0))(values, stacked[first])

    one = jax.jit(log_prob)
    with_all, with_first = mapped(values, stacked)
    looped = [one(values, p) for p in (params, other)]
    np.testing.assert_allclose(with_all, [looped[0][0], looped[1][1]], rtol=1e-5, atol=1e-6)
    looped = [one(values, {**params, first: p}) for p in stacked[first]]
    np.testing.assert_allclose(with_first, looped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_draws_under_vmap_have_a_lane_each(case: Case, key: jax.Array):
    params = float32(case.params[0])
    first = next(iter(params))
    event = case.family.event_shape({n: p.shape for n, p in params.items()})

    def mapped(p):
        return jax.vmap(lambda p: case.dist.sample(**{**params, first: p}))(p)

    def unmapped(p):
        return jax.vmap(lambda _: case.dist.sample(**{**params, first: p}))(jnp.arange(4))

    several = jnp.stack([params[first]] * 4)
    for fun, given in ((mapped, several), (unmapped, params[first])):
        out = jax.eval_shape(seed(fun), key, given)
        assert out.shape == (4, *event)
        assert out.dtype == case.family.dtype(params)


@pytest.mark.parametrize("lanes", [2, 3])
def test_mapped_beside_unmapped(lanes: int, key: jax.Array):
    """One `loc` per lane beside a `scale` of 3: also where the numbers of both agree."""
    locs = jnp.arange(lanes) * 100.0
    draw = lambda: jax.vmap(lambda m: d.normal.sample(m, jnp.ones(3)))(locs)
    x = seed(draw)(key)
    assert x.shape == (lanes, 3)
    assert len(np.unique(x - locs[:, None])) == lanes * 3
    np.testing.assert_allclose(np.round(x / 100), np.broadcast_to(locs[:, None] / 100, x.shape))


def test_lanes_are_independent_without_mapped_parameters(key: jax.Array):
    draws = {
        "normal": lambda _: d.normal.sample(0.0, 1.0),
        "multivariate_normal": lambda _: d.multivariate_normal.sample(jnp.zeros(2), jnp.eye(2)),
        "dirichlet": lambda _: d.dirichlet.sample(jnp.ones(3)),
        "mixture": lambda _: d.mixture_same_family(d.normal).sample(
            jnp.zeros(2), jnp.zeros(2), jnp.ones(2)
        ),
    }
    for name, draw in draws.items():
        x = seed(lambda draw=draw: jax.vmap(draw)(jnp.arange(5)))(key)
        assert len(np.unique(x.reshape(5, -1), axis=0)) == 5, name


def test_a_vector_choice_has_mapped_and_unmapped_vectors(key: jax.Array):
    # loc [4, 1, 2] beside scale_tril [3, 2, 2]: 4 lanes of 3 lanes of vectors.
    tril = jnp.stack([jnp.eye(2)] * 3)
    draw = lambda locs: jax.vmap(lambda m: d.multivariate_normal_tri.sample(m, tril))(locs)
    assert seed(draw)(key, jnp.zeros((4, 2))).shape == (4, 3, 2)
