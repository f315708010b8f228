"""Bayesian logistic regression on scikit-learn's breast cancer data: 569 rows, 31 weights."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from benchmarks.peers import adev, dist, genjax, numpyro, tfp
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import bernoulli, gen, normal, param, positive

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def load() -> tuple[np.ndarray, np.ndarray]:
    """Standardised features with a column of ones, and whether the tumour is benign."""
    from sklearn.datasets import load_breast_cancer

    x, y = (np.asarray(a) for a in load_breast_cancer(return_X_y=True))
    x = (x - x.mean(0)) / x.std(0)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    return x.astype(np.float32), y.astype(np.int32)


@gen
def model(x):
    w = normal(jnp.zeros(x.shape[1]), 1.0) @ "w"
    bernoulli(x @ w) @ "benign"


@gen
def guide(x):
    loc = param("loc", jnp.zeros(x.shape[1]))
    scale = param("scale", jnp.ones(x.shape[1]), support=positive)
    normal.reparam(loc, scale) @ "w"


def split(data):
    x, y = data
    return {"benign": y}, (x,)


def loss(key, params, data):
    x, y = data
    scale = jax.nn.softplus(params["scale"])
    noise = jax.random.normal(key, scale.shape)
    w = params["loc"] + scale * noise
    log_prior = jnp.sum(-0.5 * w**2 - HALF_LOG_TAU)
    logits = x @ w
    log_likelihood = jnp.sum(y * logits - jax.nn.softplus(logits))
    log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale) - HALF_LOG_TAU)
    return log_q - log_prior - log_likelihood


def products(key, params, data):
    """A loss whose gradient takes the same matrix products, and nothing else."""
    return 1e-6 * jnp.sum((data[0] @ (params["loc"] + params["scale"])) ** 2)


def numpyro_model(data):
    x, y = data
    w = numpyro.sample("w", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    logits = x @ w
    with numpyro.plate("rows", len(x)):
        numpyro.sample("benign", dist.Bernoulli(logits=logits), obs=y)


def numpyro_guide(data):
    scale = jax.nn.softplus(numpyro.param("scale"))
    numpyro.sample("w", dist.Normal(numpyro.param("loc"), scale).to_event(1))


def genjax_elbo(params, data):
    x, y = data
    scale = jax.nn.softplus(params["scale"])
    w = adev.normal_reparam(params["loc"], scale)
    logits = x @ w
    log_p = jnp.sum(genjax.normal.logpdf(w, 0.0, 1.0))
    log_p += jnp.sum(y * logits - jax.nn.softplus(logits))
    return log_p - jnp.sum(genjax.normal.logpdf(w, params["loc"], scale))


def tfp_joint(data):
    x, y = data
    normal, bernoulli = tfp.distributions.Normal, tfp.distributions.Bernoulli

    def log_joint(w):
        log_prior = normal(0.0, 1.0).log_prob(w).sum(-1)
        return log_prior + bernoulli(logits=w @ x.T).log_prob(y).sum(-1)

    return log_joint


def tfp_posterior(params):
    factor = tfp.distributions.Normal(params["loc"], jax.nn.softplus(params["scale"]))
    return tfp.distributions.Independent(factor, 1)


def task() -> Task:
    data = jax.tree.map(jnp.asarray, load())
    size = data[0].shape[1]
    return Task(
        name="logistic regression, 569 x 31",
        sides={
            OURS: our_elbo(model, guide, split),
            BY_HAND: by_hand(loss),
            peers.TRACE: peers.by_numpyro(peers.TRACE, numpyro_model, numpyro_guide),
            peers.GENJAX: peers.by_genjax(genjax_elbo),
            peers.TFP: peers.by_tfp(tfp_joint, tfp_posterior),
        },
        start={"loc": jnp.zeros(size), "scale": jnp.full(size, math.log(math.expm1(1.0)))},
        data=data,
        fit_steps=4_800,
        matrix_work=by_hand(products),
    )
