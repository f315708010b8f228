"""Linear regression with effects of 100 groups, on 100,000 rows, in minibatches of 1,000."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from benchmarks.peers import adev, dist, genjax, numpyro
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import gen, log_normal, normal, param, plate, positive

ROWS, GROUPS, COLUMNS, BATCH = 100_000, 100, 8, 1_000
SITES = {"slopes": (COLUMNS,), "spread": (), "effects": (GROUPS,), "noise": ()}
POSITIVE = "spread", "noise"
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, group and response of each row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, COLUMNS))
    group = rng.integers(0, GROUPS, ROWS)
    y = rng.normal(0, 0.7, GROUPS)[group] + x @ rng.normal(size=COLUMNS) + rng.normal(size=ROWS)
    return x.astype(np.float32), group.astype(np.int32), y.astype(np.float32)


def batch(key: Any, data: Any) -> Any:
    # `randint` draws two words a row, of which XLA sometimes sees that one has no effect.
    rows = (jax.random.bits(key, (BATCH,)) % ROWS).astype(int)
    return jax.tree.map(lambda a: a[rows], data)


@gen
def row(x, group, slopes, effects, noise):
    normal(x @ slopes + effects[group], noise) @ "y"


@gen
def model(x, group):
    slopes = normal(jnp.zeros(COLUMNS), 1.0) @ "slopes"
    spread = log_normal(0.0, 1.0) @ "spread"
    effects = normal(jnp.zeros(GROUPS), spread) @ "effects"
    noise = log_normal(0.0, 1.0) @ "noise"
    rows = plate(row, in_axes=(0, 0, None, None, None), total=ROWS)
    rows(x, group, slopes, effects, noise) @ "rows"


@gen
def guide(x, group):
    del x, group
    for name, shape in SITES.items():
        loc = param(f"{name}.loc", jnp.zeros(shape))
        scale = param(f"{name}.scale", jnp.full(shape, 0.1), support=positive)
        (log_normal if name in POSITIVE else normal).reparam(loc, scale) @ name


def split(data):
    x, group, y = data
    return {"rows": {"y": y}}, (x, group)


def factor(params: Any, name: str) -> tuple[Any, Any]:
    return params[f"{name}.loc"], jax.nn.softplus(params[f"{name}.scale"])


def loss(key, params, data):
    x, group, y = data
    keys = dict(zip(SITES, jax.random.split(key, len(SITES)), strict=True))
    draw, log_q = {}, 0.0
    for name, shape in SITES.items():
        loc, scale = factor(params, name)
        noise = jax.random.normal(keys[name], shape)
        draw[name] = loc + scale * noise
        log_q += jnp.sum(-0.5 * noise**2 - jnp.log(scale) - HALF_LOG_TAU)
    # The Jacobians of the two logarithms are in both densities, and cancel.
    log_spread, log_noise = draw["spread"], draw["noise"]
    log_p = -0.5 * (log_spread**2 + log_noise**2) - 2 * HALF_LOG_TAU
    log_p += jnp.sum(-0.5 * draw["slopes"] ** 2 - HALF_LOG_TAU)
    scaled = draw["effects"] * jnp.exp(-log_spread)
    log_p += jnp.sum(-0.5 * scaled**2 - log_spread - HALF_LOG_TAU)
    rest = (y - x @ draw["slopes"] - draw["effects"][group]) * jnp.exp(-log_noise)
    log_p += ROWS / BATCH * jnp.sum(-0.5 * rest**2 - log_noise - HALF_LOG_TAU)
    return log_q - log_p


def numpyro_model(data):
    x, group, y = data
    slopes = numpyro.sample("slopes", dist.Normal(jnp.zeros(COLUMNS), 1.0).to_event(1))
    spread = numpyro.sample("spread", dist.LogNormal(0.0, 1.0))
    effects = numpyro.sample("effects", dist.Normal(jnp.zeros(GROUPS), spread).to_event(1))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", ROWS, subsample_size=BATCH):
        numpyro.sample("y", dist.Normal(x @ slopes + effects[group], noise), obs=y)


def numpyro_guide(data):
    params = {f"{n}.{p}": numpyro.param(f"{n}.{p}") for n in SITES for p in ("loc", "scale")}
    for name, shape in SITES.items():
        kind = dist.LogNormal if name in POSITIVE else dist.Normal
        numpyro.sample(name, kind(*factor(params, name)).to_event(len(shape)))


def genjax_elbo(params, data):
    x, group, y = data
    log_density = genjax.normal.logpdf
    draw, log_q = {}, 0.0
    for name in SITES:
        draw[name] = adev.normal_reparam(*factor(params, name))
        log_q += jnp.sum(log_density(draw[name], *factor(params, name)))
    log_p = log_density(draw["spread"], 0.0, 1.0) + log_density(draw["noise"], 0.0, 1.0)
    log_p += jnp.sum(log_density(draw["slopes"], 0.0, 1.0))
    log_p += jnp.sum(log_density(draw["effects"], 0.0, jnp.exp(draw["spread"])))
    mean = x @ draw["slopes"] + draw["effects"][group]
    return log_p + ROWS / BATCH * jnp.sum(log_density(y, mean, jnp.exp(draw["noise"]))) - log_q


def task() -> Task:
    start = {}
    for name, shape in SITES.items():
        start[f"{name}.loc"] = jnp.zeros(shape)
        start[f"{name}.scale"] = jnp.full(shape, math.log(math.expm1(0.1)))
    return Task(
        name=f"hierarchical regression, {BATCH} of {ROWS} rows",
        sides={
            OURS: our_elbo(model, guide, split),
            BY_HAND: by_hand(loss),
            peers.TRACE: peers.by_numpyro(peers.TRACE, numpyro_model, numpyro_guide),
            peers.GENJAX: peers.by_genjax(genjax_elbo),
        },
        start=start,
        data=jax.tree.map(jnp.asarray, load()),
        learning_rate=0.01,
        fit_steps=1_920,
        batch=batch,
    )
