"""A Markov chain of n enumerated flips, written as a Python loop."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit

from benchmarks import peers
from benchmarks.peers import adev, dist, enumeration, numpyro
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import flip, gen, normal, param, unit_interval

STAY = 0.7
GENJAX_MOST = 6
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@gen
def model(ys):
    z = False
    for i in range(len(ys)):
        z = flip(jnp.where(z, STAY, 1 - STAY)) @ f"z{i}"
        normal(jnp.where(z, 1.0, 0.0), 1.0) @ f"y{i}"


@gen
def guide(ys):
    p, z = param("p", jnp.linspace(0.2, 0.8, len(ys)), support=unit_interval), False
    for i in range(len(ys)):
        z = flip.enum(jnp.where(z, p[i], 1 - p[i])) @ f"z{i}"


def split(ys):
    return {f"y{i}": ys[i] for i in range(len(ys))}, (ys,)


def loss(key, params, ys):
    del key
    total, one, p = 0.0, 0.0, jax.nn.sigmoid(params["p"])
    for i in range(len(ys)):
        if_zero = -0.5 * ys[i] ** 2 - HALF_LOG_TAU
        if_one = -0.5 * (ys[i] - 1) ** 2 - HALF_LOG_TAU
        stays = math.log(STAY) - jnp.log(p[i])
        moves = math.log(1 - STAY) - jnp.log1p(-p[i])
        before_one = p[i] * (stays + if_one) + (1 - p[i]) * (moves + if_zero)
        before_zero = (1 - p[i]) * (moves + if_one) + p[i] * (stays + if_zero)
        total -= one * before_one + (1 - one) * before_zero
        one = one * p[i] + (1 - one) * (1 - p[i])
    return total


def numpyro_model(ys):
    z = 0
    for i in enumeration.markov(range(len(ys))):
        z = numpyro.sample(f"z{i}", dist.Bernoulli(jnp.where(z == 1, STAY, 1 - STAY)))
        numpyro.sample(f"y{i}", dist.Normal(jnp.where(z == 1, 1.0, 0.0), 1.0), obs=ys[i])


def numpyro_guide(ys):
    z, p = 0, jax.nn.sigmoid(numpyro.param("p"))
    for i in enumeration.markov(range(len(ys))):
        chance = dist.Bernoulli(jnp.where(z == 1, p[i], 1 - p[i]))
        z = numpyro.sample(f"z{i}", chance, infer={"enumerate": "parallel"})


def genjax_elbo(params, ys):
    total, z, p = 0.0, False, jax.nn.sigmoid(params["p"])
    for i in range(len(ys)):
        q = jnp.where(z, p[i], 1 - p[i])
        prior = jnp.where(z, STAY, 1 - STAY)
        z = adev.flip_enum(q)
        total += jnp.where(z, jnp.log(prior) - jnp.log(q), jnp.log1p(-prior) - jnp.log1p(-q))
        total += -0.5 * (ys[i] - jnp.where(z, 1.0, 0.0)) ** 2 - HALF_LOG_TAU
    return total


def task(n: int = 30) -> Task:
    rng = np.random.default_rng(0)
    sides = {
        OURS: our_elbo(model, guide, split),
        BY_HAND: by_hand(loss),
        peers.ENUM: peers.by_numpyro(peers.ENUM, numpyro_model, numpyro_guide, max_plate_nesting=0),
        peers.GENJAX: peers.by_genjax(genjax_elbo),
    }
    remarks = {}
    if n > GENJAX_MOST:
        del sides[peers.GENJAX]
        remarks[peers.GENJAX] = f"its code is four times as long for two more; n > {GENJAX_MOST}"
    return Task(
        name=f"{n} enumerated flips",
        sides=sides,
        start={"p": logit(jnp.linspace(0.2, 0.8, n))},
        data=jnp.asarray(rng.normal(0.5, 1.0, n), jnp.float32),
        fit_steps=192,
        remarks=remarks,
    )
