"""The lists of values of finite distributions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl.lang.distributions as d
from ppl.lang.staged import Lit, stage

from .cases import DISCRETE, Case, float32

FINITE = [c for c in DISCRETE if c.family.enumerate is not None]


def test_the_finite_distributions():
    names = {c.family.name for c in FINITE}
    assert names == {"flip", "bernoulli", "categorical", "one_hot_categorical", "binomial"}


@pytest.mark.parametrize("case", FINITE, ids=str)
def test_probabilities_sum_to_one(case: Case):
    for params in case.params:
        params = float32(params)
        values = case.family.enumerate(params)
        assert values.dtype == case.family.dtype(params)
        assert np.all(case.family.support_of(params).check(values))
        probabilities = np.exp(case.dist.log_prob(values, **params))
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("case", FINITE, ids=str)
def test_only_shapes_are_needed(case: Case):
    params = float32(case.params[0])
    shapes = {n: jax.ShapeDtypeStruct(p.shape, p.dtype) for n, p in params.items()}
    if case.family.name == "binomial":
        assert case.family.enumerate(shapes) is None  # the number of trials is not known
        shapes["total_count"] = params["total_count"]
    expected = case.family.enumerate(params)
    np.testing.assert_array_equal(case.family.enumerate(shapes), expected)


def test_lanes_with_different_numbers_of_trials():
    params = dict(total_count=jnp.array([2.0, 5.0]), probs=jnp.full(2, 0.3))
    values = d.binomial.family.value.enumerate(params)
    assert values.shape == (6,)
    each = jnp.broadcast_to(values[:, None], (6, 2))
    probabilities = np.exp(d.binomial.log_prob(each, **params))
    np.testing.assert_allclose(probabilities.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities[3:, 0], 0)


def test_a_number_of_trials_stays_known_while_staging():
    for n in (5, 5.0, np.int64(5), np.array([5, 5]), jnp.array(5)):
        (site,) = stage(lambda p, n=n: d.binomial.sample(n, probs=p), 0.3).sites
        assert isinstance(site.ins[0], Lit)
        assert np.all(site.ins[0].val == 5)
