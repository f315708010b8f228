"""Many choices one after the other, with no loop in sight: what a choice costs to compile.

XLA writes out the random generator for each call of it, and a slice of a parameter is on the way
back a whole array: both make a program by hand grow faster than its number of choices.
"""

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
def model(ys):
    x = 0.0
    for i in range(len(ys)):
        x = normal(0.9 * x, 1.0) @ f"x{i}"
        normal(x, 1.0) @ f"y{i}"


@gen
def guide(ys):
    loc = param("loc", jnp.zeros(len(ys)))
    scale = param("scale", jnp.ones(len(ys)), support=positive)
    for i in range(len(ys)):
        normal.reparam(loc[i], scale[i]) @ f"x{i}"


def split(ys):
    return {f"y{i}": ys[i] for i in range(len(ys))}, (ys,)


def loss(key, params, ys):
    scale = jax.nn.softplus(params["scale"])
    keys, total, before = jax.random.split(key, len(ys)), 0.0, 0.0
    for i in range(len(ys)):
        noise = jax.random.normal(keys[i])
        x = params["loc"][i] + scale[i] * noise
        total += -0.5 * noise**2 - jnp.log(scale[i]) + HALF_LOG_TAU
        total += 0.5 * (x - 0.9 * before) ** 2 + 0.5 * (ys[i] - x) ** 2
        before = x
    return total


def numpyro_model(ys):
    x = 0.0
    for i in range(len(ys)):
        x = numpyro.sample(f"x{i}", dist.Normal(0.9 * x, 1.0))
        numpyro.sample(f"y{i}", dist.Normal(x, 1.0), obs=ys[i])


def numpyro_guide(ys):
    loc, scale = numpyro.param("loc"), jax.nn.softplus(numpyro.param("scale"))
    for i in range(len(ys)):
        numpyro.sample(f"x{i}", dist.Normal(loc[i], scale[i]))


def genjax_elbo(params, ys):
    loc, scale = params["loc"], jax.nn.softplus(params["scale"])
    log_density, total, before = genjax.normal.logpdf, 0.0, 0.0
    for i in range(len(ys)):
        x = adev.normal_reparam(loc[i], scale[i])
        total += log_density(x, 0.9 * before, 1.0) + log_density(ys[i], x, 1.0)
        total -= log_density(x, loc[i], scale[i])
        before = x
    return total


def task(sites: int = 100) -> Task:
    return Task(
        name=f"{sites} choices in a row",
        sides={
            OURS: our_elbo(model, guide, split),
            BY_HAND: by_hand(loss),
            peers.TRACE: peers.by_numpyro(peers.TRACE, numpyro_model, numpyro_guide),
            peers.GENJAX: peers.by_genjax(genjax_elbo),
        },
        start={"loc": jnp.zeros(sites), "scale": jnp.full(sites, math.log(math.expm1(1.0)))},
        data=jnp.sin(jnp.arange(sites, dtype=jnp.float32)),
    )
