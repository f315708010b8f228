"""TFP distributions that we do not have, as ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorflow_probability.substrates import jax as tfp

import ppl.lang.distributions as d
from ppl.errors import ShapeError
from ppl.lang import supports

tfd, tfb = tfp.distributions, tfp.bijectors


@pytest.mark.parametrize(
    "constructor, ranks, kind",
    [
        (tfd.TruncatedNormal, dict(loc=0, scale=0, low=0, high=0), "float"),
        (tfd.DirichletMultinomial, dict(total_count=0, concentration=1), "int"),
        (tfd.BetaBinomial, dict(total_count=0, concentration1=0, concentration0=0), "int"),
        (lambda logits: tfd.Categorical(logits), dict(logits=1), "int"),
        (lambda p: tfd.Bernoulli(probs=p, dtype=jnp.bool_), dict(p=0), "bool"),
        (lambda m, s: tfd.Independent(tfd.Normal(m, s), 1), dict(m=1, s=1), "float"),
        (lambda m, c: tfd.MultivariateNormalFullCovariance(m, c), dict(m=1, c=2), "float"),
        (lambda x: tfd.LogNormal(x, tf_scale), dict(x=0), "float"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict | str) else x.__name__,
)
def test_ranks_and_kinds_are_found_out(constructor, ranks, kind):
    family = d.from_tfp(constructor).family.value
    assert dict(family.parameters) == ranks
    assert family.kind == kind


tf_scale = 0.5


def test_a_parameter_may_be_left_out():
    skellam = d.from_tfp(tfd.Skellam)
    assert skellam.family.value.kind == "int"
    expected = tfd.Skellam(2.0, 3.0).log_prob(1.0)
    np.testing.assert_allclose(skellam.log_prob(1, rate1=2.0, rate2=3.0), expected)
    with pytest.raises(TypeError, match="no parameter"):
        skellam.log_prob(1, rates=2.0)


def test_draws_have_the_declared_dtype(key: jax.Array):
    family = d.from_tfp(tfd.Geometric).family.value  # TFP's own draws are floats
    x = family.sample(key, (4,), probs=jnp.float32(0.3))
    assert x.dtype == jnp.int32
    assert x.shape == (4,)


def test_supports():
    support = lambda c, **p: d.from_tfp(c).family.value.support_of(p)
    assert support(tfd.Logistic, loc=0.0, scale=1.0) is supports.real
    assert support(tfd.Kumaraswamy, concentration1=1.0, concentration0=1.0) is (
        supports.unit_interval
    )
    normals = support(lambda m: tfd.Independent(tfd.Normal(m, 1.0), 1), m=jnp.zeros(3))
    assert normals.name == "real_vector"
    assert support(lambda a: tfd.Dirichlet(a), a=jnp.ones(3)) is supports.simplex
    truncated = support(tfd.TruncatedNormal, loc=0.0, scale=1.0, low=-1.0, high=2.0)
    assert truncated.bounds == (-1.0, 2.0)
    pareto = support(tfd.Pareto, concentration=2.0, scale=3.0)
    np.testing.assert_array_equal(pareto.check(jnp.array([2.0, 4.0])), [False, True])


def test_outside_of_the_support_there_is_no_nan():
    pareto = d.from_tfp(tfd.Pareto)
    log_prob = lambda x, scale: pareto.log_prob(x, 2.0, scale)
    value, gradient = jax.value_and_grad(log_prob, (0, 1))(2.0, 3.0)
    assert value == -np.inf
    assert gradient == (0, 0)
    expected = tfd.Pareto(2.0, 3.0).log_prob(4.0)
    np.testing.assert_allclose(log_prob(4.0, 3.0), expected, rtol=1e-6)


def test_reparameterisation_as_tfp_says():
    reparam = lambda c: d.from_tfp(c).family.value.reparam
    assert reparam(tfd.Kumaraswamy) == "implicit"
    assert reparam(tfd.BetaBinomial) is None
    assert reparam(tfd.VonMises) is None  # its draws jump
    assert reparam(lambda loc: tfd.VonMises(loc, 2.0)) is None
    assert d.from_tfp(tfd.VonMises, reparam="implicit").family.value.reparam == "implicit"


def test_wrong_ranks():
    wrong = d.from_tfp(lambda x: tfd.Categorical(x), event_ndims={"x": 0}, name="mine")
    with pytest.raises(ShapeError, match="mine: the parameters do not have the ranks") as error:
        wrong.log_prob(0, jnp.zeros(3))
    assert "event_ndims" in error.value.fix
    with pytest.raises(TypeError, match="no parameter"):
        d.from_tfp(tfd.Normal, event_ndims={"mu": 0})


def test_a_joint_distribution_is_refused():
    with pytest.raises(TypeError, match="joint"):
        d.from_tfp(lambda m: tfd.JointDistributionNamed(dict(a=tfd.Normal(m, 1.0))))
