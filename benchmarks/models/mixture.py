"""A mixture of four normals, 100,000 points, a free guide of each point's label, enumerated."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from benchmarks.models.hmm import NO_CATEGORICAL
from benchmarks.peers import dist, numpyro
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import categorical, gen, normal, param, plate, positive

COMPONENTS = 4
CENTRES = np.array([-4.0, -1.0, 2.0, 5.0], np.float32)
PRIOR = 10.0
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@gen
def point(means):
    label = categorical(jnp.zeros(COMPONENTS)) @ "label"
    normal(means[label], 1.0) @ "y"


@gen
def model(size):
    means = normal(jnp.zeros(COMPONENTS), PRIOR) @ "means"
    plate(point, size=size, in_axes=None)(means) @ "points"


@gen
def label(logits):
    categorical.enum(logits) @ "label"


@gen
def guide(size):
    scale = param("scale", jnp.full(COMPONENTS, 0.1), support=positive)
    normal.reparam(param("loc", CENTRES), scale) @ "means"
    plate(label)(param("logits", jnp.zeros((size, COMPONENTS)))) @ "points"


def loss(key, params, ys):
    scale = jax.nn.softplus(params["scale"])
    noise = jax.random.normal(key, scale.shape)
    means = params["loc"] + scale * noise
    log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale) - HALF_LOG_TAU)
    log_p = jnp.sum(-0.5 * (means / PRIOR) ** 2 - math.log(PRIOR) - HALF_LOG_TAU)
    log_label = jax.nn.log_softmax(params["logits"])
    log_y = -0.5 * (ys[:, None] - means) ** 2 - HALF_LOG_TAU - math.log(COMPONENTS)
    return log_q - log_p + jnp.sum(jnp.exp(log_label) * (log_label - log_y))


def numpyro_model(ys):
    prior = dist.Normal(jnp.zeros(COMPONENTS), PRIOR)
    means = numpyro.sample("means", prior.to_event(1))
    with numpyro.plate("points", len(ys)):
        label = numpyro.sample("label", dist.Categorical(logits=jnp.zeros(COMPONENTS)))
        numpyro.sample("y", dist.Normal(means[label], 1.0), obs=ys)


def numpyro_guide(ys):
    scale = jax.nn.softplus(numpyro.param("scale"))
    numpyro.sample("means", dist.Normal(numpyro.param("loc"), scale).to_event(1))
    logits = numpyro.param("logits")
    with numpyro.plate("points", len(ys)):
        numpyro.sample("label", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def task(points: int = 100_000) -> Task:
    rng = np.random.default_rng(0)
    ys = rng.choice(CENTRES, points) + rng.normal(size=points)
    return Task(
        name=f"mixture, {points} points",
        sides={
            OURS: our_elbo(model, guide, lambda ys: ({"points": {"y": ys}}, (len(ys),))),
            BY_HAND: by_hand(loss),
            peers.ENUM: peers.by_numpyro(
                peers.ENUM, numpyro_model, numpyro_guide, max_plate_nesting=1
            ),
            peers.GRAPH: peers.by_numpyro(peers.GRAPH, numpyro_model, numpyro_guide),
        },
        start={
            "loc": jnp.asarray(CENTRES),
            "scale": jnp.full(COMPONENTS, math.log(math.expm1(0.1))),
            "logits": jnp.zeros((points, COMPONENTS)),
        },
        data=jnp.asarray(ys, jnp.float32),
        learning_rate=0.05,
        fit_steps=96,
        remarks={peers.GENJAX: NO_CATEGORICAL},
    )
