"""n binary choices with score gradients, as one array and as the lanes of a plate.

By hand: leave-one-out over four samples, each cost charged to its own choice alone.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import peers
from benchmarks.peers import adev, dist, numpyro, pjax
from benchmarks.task import BY_HAND, OURS, PLANNED, Task, by_hand, our_elbo
from ppl import flip, gen, normal, param, plate, unit_interval

SAMPLES, START, NOISE = 4, 0.3, 0.5
LOG_HALF, HALF_LOG_TAU = math.log(0.5), 0.5 * math.log(2 * math.pi)


@gen
def model(targets):
    x = flip(jnp.full(len(targets), 0.5)) @ "x"
    normal(jnp.where(x, 1.0, 0.0), NOISE) @ "y"


@gen
def guide(targets):
    flip(jnp.full(len(targets), param("p", START, support=unit_interval))) @ "x"


@gen
def lane(target):
    x = flip(0.5) @ "x"
    normal(jnp.where(x, 1.0, 0.0), NOISE) @ "y"


@gen
def guide_lane(target, p):
    flip(p) @ "x"


@gen
def lanes(targets):
    plate(lane)(targets) @ "lanes"


@gen
def guide_lanes(targets):
    p = param("p", START, support=unit_interval)
    plate(guide_lane, in_axes=(0, None))(targets, p) @ "lanes"


def log_odds(logit, x):
    """Log-probability of a flip."""
    return -jax.nn.softplus(jnp.where(x, -logit, logit))


def log_joint(x, targets):
    rest = (targets - x) / NOISE
    return LOG_HALF - 0.5 * rest**2 - math.log(NOISE) - HALF_LOG_TAU


def loss(key, params, targets):
    x = jax.random.uniform(key, (SAMPLES, len(targets))) < jax.nn.sigmoid(params["p"])
    log_q = log_odds(params["p"], x)
    cost = log_q - log_joint(x, targets)
    baseline = (jnp.sum(cost, 0) - cost) / (SAMPLES - 1)
    charge = jnp.sum(lax.stop_gradient(cost - baseline) * log_q)
    return (jnp.sum(cost) + charge - lax.stop_gradient(charge)) / SAMPLES


def numpyro_model(targets):
    with numpyro.plate("lanes", len(targets)):
        x = numpyro.sample("x", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(x * 1.0, NOISE), obs=targets)


def numpyro_guide(targets):
    with numpyro.plate("lanes", len(targets)):
        numpyro.sample("x", dist.Bernoulli(jax.nn.sigmoid(numpyro.param("p"))))


def genjax_elbo(params, targets):
    p = jax.nn.sigmoid(params["p"])
    flips = pjax.modular_vmap(lambda p: adev.flip_reinforce(p))
    x = flips(jnp.full(len(targets), p))
    return jnp.sum(log_joint(x, targets) - jnp.where(x, jnp.log(p), jnp.log1p(-p)))


def task(n: int = 200, in_plate: bool = False) -> Task:
    if in_plate:
        programs = lanes, guide_lanes, lambda ys: ({"lanes": {"y": ys}}, (ys,))
    else:
        programs = model, guide, lambda ys: ({"y": ys}, (ys,))
    return Task(
        name=f"{n} score choices" + (" in a plate" if in_plate else ""),
        sides={
            OURS: our_elbo(*programs, strategies={"*": "score"}),
            PLANNED: our_elbo(*programs),
            BY_HAND: by_hand(loss),
            peers.GRAPH: peers.by_numpyro(
                peers.GRAPH, numpyro_model, numpyro_guide, particles=SAMPLES
            ),
            peers.GENJAX: peers.by_genjax(genjax_elbo, particles=SAMPLES),
        },
        start={"p": jnp.asarray(math.log(START / (1 - START)))},
        data=jnp.linspace(0.0, 1.0, n),
        fit_steps=960,
    )
