"""Pushforwards by a bijection, and the factors of mean-field guides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tensorflow_probability.substrates.jax import bijectors as tfb

import ppl.lang.distributions as d
from ppl.errors import ShapeError
from ppl.lang import param, supports
from ppl.lang.distributions.pushforward import pushforward, pushforward_normal
from ppl.lang.seed import seed
from ppl.testing import assert_unbiased, check_distribution

SUPPORTS = {
    "positive": (supports.positive, ()),
    "greater_than": (supports.greater_than(1.0), ()),
    "interval": (supports.interval(-1.0, 3.0), ()),
    "simplex": (supports.simplex, (3,)),
}


@pytest.mark.parametrize("name", list(SUPPORTS))
def test_made_while_one_program_is_traced_and_used_in_another(name, key):
    made = []

    @jax.jit
    def trace(x):
        made.append(pushforward_normal(*SUPPORTS[name]))
        return x

    trace(0.0)
    size = 2 if name == "simplex" else ()
    run = jax.jit(seed(lambda: made[0].sample(jnp.zeros(size), jnp.ones(size))))
    support = SUPPORTS[name][0]
    for k in jax.random.split(key, 3):  # the second run is another than the first, in JAX
        assert np.all(support.check(run(k)))


def test_of_positive_numbers_it_is_the_softplus_of_a_normal():
    x, loc, scale = 1.7, 0.4, 0.8
    at = np.log(np.expm1(x))
    expected = stats.norm.logpdf(at, loc, scale) - np.log1p(-np.exp(-x))
    found = pushforward_normal(supports.positive).logpdf(x, loc, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ------------------------------------------------------------------------- of any distribution

MIXTURE = dict(
    logits=np.array([0.3, -0.4, 0.1]), loc=np.array([-1.0, 0.2, 0.5]), scale=np.array([0.5, 1, 0.3])
)
VECTORS = dict(
    logits=np.array([0.3, -0.4]),
    loc=np.array([[0.5, -1.0], [0.0, 0.3]]),
    scale_diag=np.array([[1.0, 0.5], [0.3, 0.8]]),
)


@pytest.mark.parametrize(
    ("dist", "params"),
    [
        (pushforward(d.mixture_same_family(d.normal), tfb.Exp), MIXTURE),
        (pushforward(d.gamma, tfb.Reciprocal), dict(concentration=3.0, rate=2.0)),
        (pushforward(d.multivariate_normal_diag, supports.simplex),
         dict(loc=np.array([0.3, -0.4]), scale_diag=np.array([1.0, 0.6]))),
        (pushforward(d.mixture_same_family(d.multivariate_normal_diag),
                     lambda: tfb.Blockwise([tfb.Identity(), tfb.Exp()])), VECTORS),
    ],
    ids=["mixture", "reciprocal", "simplex", "blocks"],
)  # fmt: skip
def test_sampler_density_and_gradients_agree(dist, params):
    """Biases of 25 % of a gradient's largest entry, as a missing Jacobian makes, would be
    caught; false alarms below 1e-6."""
    by_path = ["reparam"] if dist.family.value.reparam else []
    check_distribution(dist, **params, strategies=by_path, bias=0.25)


def test_the_exponential_of_a_normal_is_log_normal():
    x = jnp.array([-1.0, 0.0, 0.3, 2.0])
    found = pushforward(d.normal, tfb.Exp).log_prob(x, 0.4, 0.8)
    np.testing.assert_allclose(found, d.log_normal.log_prob(x, 0.4, 0.8), rtol=1e-5)


def test_the_reciprocal_of_a_gamma_is_inverse_gamma():
    x = jnp.array([-1.0, 0.3, 2.0])
    found = pushforward(d.gamma, tfb.Reciprocal).log_prob(x, 3.0, 2.0)
    np.testing.assert_allclose(found, d.inverse_gamma.log_prob(x, 3.0, 2.0), rtol=1e-5)


def test_the_closed_boundary_has_no_density():
    value, grad = jax.value_and_grad(pushforward(d.normal, supports.unit_interval).logpdf)(
        0.0, 0.0, 1.0
    )
    assert value == -jnp.inf
    assert grad == 0


def test_supports():
    support = lambda dist: dist.family.value.support_of(
        {n: jnp.zeros((2,) * r) + 1.0 for n, r in dist.family.value.parameters.items()}
    )
    assert support(pushforward(d.normal, tfb.Exp)) is supports.positive
    assert support(pushforward(d.normal, tfb.Sigmoid)) is supports.unit_interval
    assert support(pushforward(d.multivariate_normal_diag, tfb.Exp)).name == "positive_vector"
    shifted = support(pushforward(d.gamma, lambda: tfb.Shift(2.0)))
    np.testing.assert_array_equal(shifted.check(jnp.array([1.0, 2.5])), [False, True])
    assert shifted.check(shifted.example()) and shifted.check(shifted.constrain(-3.0))


def test_gradients_go_through_the_map():
    """d E[x] for x = exp(loc + 0.5 e) is exp(loc + 1/8); catches a bias of 3 %, false alarms below
    1e-6."""
    log_normal = pushforward(d.normal, tfb.Exp)
    program = lambda: log_normal(param("loc", 0.3), 0.5)
    assert_unbiased(program, exact={"loc": np.exp(0.3 + 0.125)})


def test_what_cannot_be_pushed_forward():
    with pytest.raises(TypeError, match="discrete"):
        pushforward(d.poisson, tfb.Exp)
    with pytest.raises(TypeError, match="no bijection"):
        pushforward(d.normal, supports.boolean)
    with pytest.raises(ShapeError, match="rank 1"):
        pushforward(d.normal, supports.simplex).log_prob(0.5, 0.0, 1.0)
