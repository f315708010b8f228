"""`check_distribution` passes ours, and fails broken ones with the right reason."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl.lang.distributions as d
from ppl.errors import PplError
from ppl.lang.distribution import make_distribution
from ppl.lang.distributions.pushforward import pushforward_normal
from ppl.lang.supports import simplex, unit_interval
from ppl.testing import BiasError, DistributionError, check_distribution


def broken(dist, **changes):
    return make_distribution(dataclasses.replace(dist.family.value, **changes))


normal, poisson, dirichlet = (x.family.value for x in (d.normal, d.poisson, d.dirichlet))


@pytest.mark.parametrize(
    "dist, params",
    [
        (d.normal, dict(loc=0.3, scale=1.2)),
        (d.categorical, dict(probs=np.array([0.2, 0.5, 0.3]))),
    ],
    ids=str,
)
def test_ours_pass(dist, params):
    seen = check_distribution(dist, **params)
    assert any("unbiased" in r for r in seen.results.values()), seen


@pytest.mark.parametrize(
    "dist, params",
    [
        (d.cauchy, dict(loc=0.3, scale=1.2)),
        (d.uniform, dict(low=-1.0, high=2.0)),
        (d.poisson, dict(rate=3.0)),
        (d.beta, dict(concentration1=0.7, concentration0=1.0)),
        (d.binomial, dict(total_count=5, probs=0.3)),
        (d.dirichlet, dict(concentration=np.array([1.5, 0.8, 3.0]))),
        (d.zipf, dict(power=6.5)),
        (d.multinomial, dict(total_count=4, probs=np.array([0.2, 0.5, 0.3]))),
        (
            d.multivariate_normal_tri,
            dict(loc=np.zeros(2), scale_tril=np.array([[1.2, 0], [0.3, 1]])),
        ),
        (d.lkj_cholesky(3), dict(concentration=2.5)),
        (pushforward_normal(simplex, (3,)), dict(loc=np.array([0.3, -0.4]), scale=np.ones(2))),
    ],
    ids=str,
)
def test_densities_of_ours_pass(dist, params):
    """Without the gradients, which `test_draws.py` has."""
    assert "follow" in str(check_distribution(dist, strategies=[], **params))


def shifted(key, shape, loc, scale):
    return normal.sample(key, shape, loc=loc, scale=scale) + 0.05 * scale


BROKEN = {
    "log-density off by a constant": (
        broken(d.normal, log_density=lambda v, **p: normal.log_density(v, **p) + 0.01),
        dict(loc=0.3, scale=1.2),
        "does not integrate to one",
    ),
    "draws off by a twentieth of the scale": (
        broken(d.normal, sample=shifted, sample_with_log_density=None),
        dict(loc=0.3, scale=1.2),
        "do not follow the density",
    ),
    "draws outside of the support": (
        broken(d.normal, support=unit_interval),
        dict(loc=0.3, scale=1.2),
        "outside of the support",
    ),
    "draws of a wrong shape": (
        broken(d.normal, sample=lambda key, shape, loc, scale: jnp.zeros((*shape, 1))),
        dict(loc=0.3, scale=1.2),
        "wrong shape",
    ),
    "counts of another rate": (
        broken(d.poisson, sample=lambda k, s, rate: poisson.sample(k, s, rate=1.03 * rate)),
        dict(rate=3.0),
        "do not follow the probabilities",
    ),
    "counts without their normaliser": (
        broken(d.poisson, log_density=lambda v, rate: poisson.log_density(v, rate=rate) + 0.01),
        dict(rate=3.0),
        "do not sum to one",
    ),
    "vectors of another concentration": (
        broken(
            d.dirichlet,
            sample=lambda k, s, concentration: dirichlet.sample(
                k, s, concentration=concentration * jnp.array([1.0, 1.1, 1.0])
            ),
        ),
        dict(concentration=np.array([1.5, 0.8, 3.0])),
        "draws do not follow it",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_distribution_fails(name):
    dist, params, reason = BROKEN[name]
    with pytest.raises(DistributionError, match=reason):
        check_distribution(dist, **params)


def test_a_path_that_misses_a_parameter_fails():
    """The draw does not move with its scale: right draws, right density, wrong gradient."""

    def sample(key, shape, loc, scale):
        return normal.sample(key, shape, loc=loc, scale=jax.lax.stop_gradient(scale))

    dist = broken(d.normal, sample=sample, sample_with_log_density=None)
    assert check_distribution(dist, loc=0.3, scale=1.2, strategies=["score"])
    with pytest.raises(BiasError, match="scale"):
        check_distribution(dist, loc=0.3, scale=1.2, strategies=["reparam"])


def test_batches_are_refused():
    with pytest.raises(PplError, match="batch axes"):
        check_distribution(d.normal, np.zeros(3), 1.0)
