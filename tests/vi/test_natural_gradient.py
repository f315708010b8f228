"""Natural gradients: Fisher matrices against closed forms, and the steps that they make."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ppl import bind_params, categorical, density, flip, gen, normal, param, positive, seed, sim, vi
from ppl.errors import UnsupportedError
from ppl.vi.natural_gradient import fisher_product


@gen
def chain():
    """Later choices depend on earlier ones, and one on a plate of discrete ones."""
    a = normal(param("m", 0.3), param("s", 0.5, support=positive)) @ "a"
    normal(param("w", jnp.array([0.5, -1.0])) * a, jnp.exp(0.3 * a)) @ "b"
    flip(jax.nn.sigmoid(param("p", 0.4))) @ "c"
    categorical(param("logits", jnp.array([0.1, 0.5, -0.2]))) @ "d"


PARAMS = {
    "m": jnp.array(0.3),
    "s": jnp.array(0.5),
    "w": jnp.array([0.5, -1.0]),
    "p": jnp.array(0.4),
    "logits": jnp.array([0.1, 0.5, -0.2]),
}


def matrix(guide, params, key):
    """The Fisher matrix, without a change of variables."""
    flat, unravel = ravel_pytree(params)
    product = fisher_product(guide, (), key, params, lambda p: p)
    return jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size))


def test_the_fisher_matrix_is_the_covariance_of_scores():
    """4,000 draws of both estimates; entries of scores' products have sd up to 3 or so, so that
    |error| < 0.3 is over 5.5 standard errors; a missing factor 2 would be an error over 1."""

    def score(key):
        z = seed(lambda: bind_params(lambda: sim(chain)()[0], PARAMS)())(key)
        log_q = lambda p: bind_params(density(chain), p)(z)
        return ravel_pytree(jax.grad(log_q)(PARAMS))[0]

    keys = jax.random.split(jax.random.key(0), 4_000)
    found, scores = jax.jit(
        lambda keys: (
            jnp.mean(jax.vmap(lambda k: matrix(chain, PARAMS, k))(keys), 0),
            jax.vmap(score)(keys),
        )
    )(keys)
    expected = scores.T @ scores / len(keys)
    spread = jnp.std(scores[:, :, None] * scores[:, None], 0) / len(keys) ** 0.5
    assert jnp.all(jnp.abs(found - expected) < 5.5 * spread + 0.02)
    # in alphabetical order: logits (3), m, p, s, w (2)
    np.testing.assert_allclose(found[3, 3], 4.0, rtol=1e-5)  # 1 / s^2
    np.testing.assert_allclose(found[5, 5], 8.0, rtol=1e-5)  # 2 / s^2


SCALES = jnp.array([1e-2, 1.0, 30.0])


@gen
def badly_scaled():
    z = normal(jnp.zeros(3), 100.0) @ "z"
    normal(z, SCALES) @ "y"


@pytest.mark.parametrize("guide", [vi.mean_field, vi.full_rank], ids=["mean_field", "full_rank"])
def test_a_badly_scaled_posterior(guide):
    """All three numbers are found in 200 steps, although their units differ 3,000 times."""
    ys = SCALES * jnp.array([1.0, -2.0, 0.5])
    precision = 1 / SCALES**2 + 1e-4
    mean, sd = ys / SCALES**2 / precision, precision**-0.5
    program = vi.elbo(badly_scaled, guide, observed={"y": ys})
    schedule = optax.cosine_decay_schedule(0.2, 200)
    optimizer = optax.chain(vi.natural_gradient(1.0), optax.scale_by_schedule(schedule))
    fit = vi.fit(program, steps=200, optimizer=optimizer, num_samples=8, progress=False)
    draws = fit.sample(4_000)["z"]
    assert np.max(np.abs(draws.mean(0) - mean) / sd) < 0.15
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.1)


def test_large_guides_are_solved_by_conjugate_gradients():
    @gen
    def model():
        z = normal(jnp.zeros(200), 1.0) @ "z"
        normal(z, 0.1) @ "y"

    program = vi.elbo(model, observed={"y": jnp.linspace(-1, 1, 200)})
    fit = vi.fit(program, steps=80, optimizer=vi.natural_gradient(0.2), num_samples=2)
    mean = jnp.linspace(-1, 1, 200) / 1.01
    assert float(jnp.abs(fit.sample(1_000)["z"].mean(0) - mean).max()) < 0.2


def test_guides_without_a_closed_form_are_refused():
    @gen
    def model():
        normal(0.0, 1.0) @ "z"
        normal(0.0, 1.0) @ "y"

    program = vi.elbo(model, vi.low_rank, observed={"y": 1.0})
    with pytest.raises(UnsupportedError, match="divergence of low_rank_normal"):
        vi.fit(program, steps=1, optimizer=vi.natural_gradient())
    with pytest.raises(UnsupportedError, match="has no guide whose Fisher"):
        vi.fit(lambda: -(param("x", 1.0) ** 2), steps=1, optimizer=vi.natural_gradient())
