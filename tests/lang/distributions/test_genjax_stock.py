"""GenJAX's own distributions inside our programs."""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorflow_probability.substrates import jax as tfp

import ppl.lang.distributions as d
from ppl.lang.distribution import Distribution
from ppl.lang.interop import as_program
from ppl.lang.program import gen
from ppl.lang.seed import seed

tfd = tfp.distributions
STOCK = sorted(
    name
    for name in dir(genjax.distributions)
    if type(getattr(genjax.distributions, name)) is genjax.Distribution
)


def ours_for(theirs: genjax.Distribution) -> Distribution:
    ours = as_program(theirs)
    assert isinstance(ours, Distribution)
    return ours


@pytest.mark.parametrize("name", STOCK)
def test_stock_distributions_become_ours(name: str):
    assert as_program(getattr(genjax.distributions, name)) is getattr(d, name)


@pytest.mark.parametrize(
    "theirs, value, args",
    [
        (genjax.normal, 0.3, (1.0, 2.0)),
        (genjax.flip, True, (0.3,)),
        (genjax.categorical, 1, (jnp.array([0.1, 0.5, -1.0]),)),
        (
            genjax.distributions.geometric,
            2.0,
            (0.4,),
        ),
        (genjax.bernoulli, 1, (0.4,)),
        (genjax.gamma, 0.7, (2.0, 3.0)),
        (genjax.inverse_gamma, 0.7, (2.0, 3.0)),
        (genjax.multivariate_normal, jnp.ones(2), (jnp.zeros(2), 2 * jnp.eye(2))),
        (genjax.negative_binomial, 2.0, (3.0, 0.4)),
        (genjax.zipf, 2, (3.0,)),
    ],
)
def test_positional_parameters_mean_the_same(theirs, value, args):
    ours = ours_for(theirs)
    np.testing.assert_allclose(ours.logpdf(value, *args), theirs.logpdf(value, *args), rtol=1e-5)


def test_geometric_draws_what_its_density_says(key: jax.Array):
    # GenJAX's estimator of this name draws by probability and has the density of logits.
    ours = ours_for(genjax.adev.geometric_reinforce)
    assert ours.strategy.value == "score"
    x = seed(lambda: jax.vmap(lambda _: ours.sample(0.4))(jnp.arange(20_000)))(key)
    mean = np.exp(-0.4)
    assert abs(np.mean(x) - mean) < 5.5 * np.std(x) / np.sqrt(20_000)


def test_estimators_keep_their_strategy():
    assert ours_for(genjax.normal_reparam).strategy.value == "reparam"
    assert ours_for(genjax.flip_reinforce).strategy.value == "score"
    assert ours_for(genjax.flip_reinforce).family.value is d.flip.family.value


def test_other_tfp_distributions_are_converted():
    stock = genjax.tfp_distribution(tfd.Kumaraswamy, name="kumaraswamy")
    ours = ours_for(stock)
    assert ours.family.value.name == "kumaraswamy"
    assert ours_for(stock).family.value is ours.family.value  # converted once
    np.testing.assert_allclose(ours.logpdf(0.3, 2.0, 3.0), stock.logpdf(0.3, 2.0, 3.0), rtol=1e-6)


def test_a_function_that_makes_a_tfp_distribution_is_converted():
    vector = genjax.tfp_distribution(lambda m, s: tfd.Independent(tfd.Normal(m, s), 1))
    ours = ours_for(vector)
    assert dict(ours.family.value.parameters) == {"m": 1, "s": 1}


def test_what_was_not_made_from_tfp_stays():
    custom = genjax.core.distribution(lambda m: m, lambda x, m: -((x - m) ** 2), name="custom")
    assert as_program(custom) is custom


def test_stock_distributions_in_a_program(key: jax.Array):
    @gen
    def model(n):
        z = genjax.normal(0.0, 1.0) @ "z"
        k = genjax.categorical(jnp.zeros(3)) @ "k"
        return genjax.poisson(jnp.exp(z) + k) @ "n"

    choices = seed(model.simulate)(key, 0).get_choices()
    log_density, _ = model.assess(choices, 0)
    rate = jnp.exp(choices["z"]) + choices["k"]
    expected = (
        tfd.Normal(0.0, 1.0).log_prob(choices["z"])
        - np.log(3)
        + tfd.Poisson(rate).log_prob(jnp.float32(choices["n"]))
    )
    np.testing.assert_allclose(log_density, expected, rtol=1e-5)
