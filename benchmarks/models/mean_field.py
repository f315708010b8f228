"""A normal guide over a million independent parameters: random numbers and memory, little else."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from benchmarks import peers
from benchmarks.peers import adev, dist, genjax, numpyro
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import gen, normal, param, positive

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@gen
def model(size):
    w = normal(jnp.zeros(size), 1.0) @ "w"
    normal(w, 1.0) @ "y"


@gen
def guide(size):
    scale = param("scale", jnp.ones(size), support=positive)
    normal.reparam(param("loc", jnp.zeros(size)), scale) @ "w"


def loss(key, params, y):
    scale = jax.nn.softplus(params["scale"])
    noise = jax.random.normal(key, y.shape)
    w = params["loc"] + scale * noise
    log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale) - HALF_LOG_TAU)
    return log_q - jnp.sum(-0.5 * w**2 - 0.5 * (y - w) ** 2 - 2 * HALF_LOG_TAU)


def numpyro_model(y):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(len(y)), 1.0).to_event(1))
    numpyro.sample("y", dist.Normal(w, 1.0).to_event(1), obs=y)


def numpyro_guide(y):
    scale = jax.nn.softplus(numpyro.param("scale"))
    numpyro.sample("w", dist.Normal(numpyro.param("loc"), scale).to_event(1))


def genjax_elbo(params, y):
    loc, scale = params["loc"], jax.nn.softplus(params["scale"])
    log_density = genjax.normal.logpdf
    w = adev.normal_reparam(loc, scale)
    log_p = jnp.sum(log_density(w, 0.0, 1.0)) + jnp.sum(log_density(y, w, 1.0))
    return log_p - jnp.sum(log_density(w, loc, scale))


def task(size: int = 1_000_000) -> Task:
    return Task(
        name=f"mean field, {size} parameters",
        sides={
            OURS: our_elbo(model, guide, lambda y: ({"y": y}, (len(y),))),
            BY_HAND: by_hand(loss),
            peers.TRACE: peers.by_numpyro(peers.TRACE, numpyro_model, numpyro_guide),
            peers.GENJAX: peers.by_genjax(genjax_elbo),
        },
        start={"loc": jnp.zeros(size), "scale": jnp.full(size, math.log(math.expm1(1.0)))},
        data=jnp.sin(jnp.arange(size, dtype=jnp.float32)),
        learning_rate=0.1,
        fit_steps=64,
    )
