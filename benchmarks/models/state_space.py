"""A state-space model with binary states and a Markov guide, whose score choices are in a scan.

By hand: leave-one-out over four samples, each cost charged to its own and earlier steps.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import peers
from benchmarks.models.score_sites import HALF_LOG_TAU, SAMPLES, log_odds
from benchmarks.peers import adev, control_flow, dist, numpyro
from benchmarks.task import BY_HAND, OURS, PLANNED, Task, by_hand, our_elbo
from ppl import bernoulli, gen, normal, param, scan

UNROLLED_MOST = 20
START = {"bias": -0.3, "slope": 0.5, "memory": 1.0}


def chance(z: Any) -> Any:
    """A priori, of a one after state z."""
    return jnp.where(z == 1, 0.8, 0.3)


def log_odds_of_one(params: Any, z: Any, y: Any) -> Any:
    """The guide's, after state z."""
    return params["bias"] + params["slope"] * y + params["memory"] * z


@gen
def step(z, _):
    z = bernoulli(probs=chance(z)) @ "z"
    normal(z * 1.0, 1.0) @ "y"
    return z, None


@gen
def guide_step(z, y):
    params = {name: param(name, value) for name, value in START.items()}
    z = bernoulli(log_odds_of_one(params, z, y)) @ "z"
    return z, None


@gen
def model(ys):
    scan(step, length=len(ys))(0) @ "chain"


@gen
def guide(ys):
    scan(guide_step)(0, ys) @ "chain"


def split(ys):
    return {"chain": {"y": ys}}, (ys,)


def loss(key, params, ys):
    def step(z, x):
        y, u = x
        logit = log_odds_of_one(params, z, y)
        new = u < jax.nn.sigmoid(logit)
        log_q = log_odds(logit, new)
        log_p = jnp.where(new, jnp.log(chance(z)), jnp.log1p(-chance(z)))
        log_p += -0.5 * (y - new) ** 2 - HALF_LOG_TAU
        return new * 1.0, (log_q - log_p, log_q)

    def sample(u):
        return lax.scan(step, 0.0, (ys, u))[1]

    costs, log_q = jax.vmap(sample)(jax.random.uniform(key, (SAMPLES, len(ys))))
    rest = jnp.cumsum(costs[:, ::-1], 1)[:, ::-1]  # [sample, time]: of this and later steps
    baseline = (jnp.sum(rest, 0) - rest) / (SAMPLES - 1)
    charge = jnp.sum(lax.stop_gradient(rest - baseline) * log_q)
    return (jnp.sum(costs) + charge - lax.stop_gradient(charge)) / SAMPLES


def numpyro_params():
    return {name: numpyro.param(name) for name in START}


def numpyro_model(ys):
    def step(z, y):
        z = numpyro.sample("z", dist.Bernoulli(chance(z)))
        numpyro.sample("y", dist.Normal(z * 1.0, 1.0), obs=y)
        return z, None

    control_flow.scan(step, 0, ys)


def numpyro_guide(ys):
    params = numpyro_params()

    def step(z, y):
        logit = log_odds_of_one(params, z, y)
        return numpyro.sample("z", dist.Bernoulli(logits=logit)), None

    control_flow.scan(step, 0, ys)


def unrolled_model(ys):
    z = 0
    for t in range(len(ys)):
        z = numpyro.sample(f"z{t}", dist.Bernoulli(chance(z)))
        numpyro.sample(f"y{t}", dist.Normal(z * 1.0, 1.0), obs=ys[t])


def unrolled_guide(ys):
    z, params = 0, numpyro_params()
    for t in range(len(ys)):
        logit = log_odds_of_one(params, z, ys[t])
        z = numpyro.sample(f"z{t}", dist.Bernoulli(logits=logit))


def genjax_elbo(params, ys):
    z, total = 0.0, 0.0
    for t in range(len(ys)):
        logit = log_odds_of_one(params, z, ys[t])
        prior = chance(z)
        x = adev.flip_reinforce(jax.nn.sigmoid(logit))
        z = jnp.where(x, 1.0, 0.0)
        total += z * jnp.log(prior) + (1 - z) * jnp.log1p(-prior) - z * logit
        total += jax.nn.softplus(logit) - 0.5 * (ys[t] - z) ** 2 - HALF_LOG_TAU
    return total


def load(steps: int) -> np.ndarray:
    """Observations of the model."""
    rng = np.random.default_rng(0)
    z, ys = 0, []
    for _ in range(steps):
        z = int(rng.random() < (0.8 if z else 0.3))
        ys.append(rng.normal(z, 1.0))
    return np.array(ys, np.float32)


def task(steps: int = 100) -> Task:
    graph = lambda *programs: peers.by_numpyro(peers.GRAPH, *programs, particles=SAMPLES)
    unrolled = {
        f"{peers.GRAPH}, unrolled": graph(unrolled_model, unrolled_guide),
        f"{peers.GENJAX}, unrolled": peers.by_genjax(genjax_elbo, particles=SAMPLES),
    }
    remarks = {}
    if steps > UNROLLED_MOST:
        why = "20 steps take 17 to 35 s to compile, and more than in proportion with more"
        remarks, unrolled = dict.fromkeys(unrolled, why), {}
    return Task(
        name=f"score choices in a scan, {steps} steps",
        sides={
            OURS: our_elbo(model, guide, split, strategies={"guide/*": "score"}),
            PLANNED: our_elbo(model, guide, split),
            BY_HAND: by_hand(loss),
            peers.GRAPH: graph(numpyro_model, numpyro_guide),
            **unrolled,
        },
        start={name: jnp.asarray(value) for name, value in START.items()},
        data=jnp.asarray(load(steps)),
        fit_steps=960,
        remarks=remarks,
    )
