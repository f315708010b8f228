"""Bayesian logistic regression on scikit-learn's breast cancer data: 569 rows, 31 weights."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Side, Task
from ppl import bernoulli, gen, normal, param, positive, vi

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def load() -> tuple[np.ndarray, np.ndarray]:
    """Standardised features with a column of ones, and whether the tumour is benign."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    return x.astype(np.float32), data.target.astype(np.int32)


@gen
def model(x):
    w = normal(jnp.zeros(x.shape[1]), 1.0) @ "w"
    bernoulli(x @ w) @ "benign"


@gen
def guide(x):
    loc = param("loc", jnp.zeros(x.shape[1]))
    scale = param("scale", jnp.ones(x.shape[1]), support=positive)
    normal.reparam(loc, scale) @ "w"


def ours(data: Any) -> Side:
    x, y = data
    est = vi.compile(vi.elbo(model, guide, observed={"benign": y}, args=(x,)))
    like = est.init(jax.random.key(0))

    def loss(key, params, data):
        x, y = data
        data = ({"benign": y}, (x,))
        return -est.surrogate(key, est.constrain(params, like, *data), *data)

    return Side(loss, est.unconstrain(like), est)


def by_hand(data: Any) -> Side:
    size = data[0].shape[1]

    def loss(key, params, data):
        x, y = data
        scale = jax.nn.softplus(params["scale"])
        noise = jax.random.normal(key, (size,))
        w = params["loc"] + scale * noise
        log_prior = jnp.sum(-0.5 * w**2 - HALF_LOG_TAU)
        logits = x @ w
        log_likelihood = jnp.sum(y * logits - jax.nn.softplus(logits))
        log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale) - HALF_LOG_TAU)
        return log_q - log_prior - log_likelihood

    start = {
        "loc": jnp.zeros(size),
        "scale": jnp.full(size, math.log(math.expm1(1.0)), jnp.float32),
    }
    return Side(loss, start)


def task() -> Task:
    return Task(
        name="logistic regression, 569 x 31",
        ours=ours,
        by_hand=by_hand,
        data=jax.tree.map(jnp.asarray, load()),
        to_hand=lambda params: params,
        learning_rate=0.01,
        fit_steps=5_000,
    )
