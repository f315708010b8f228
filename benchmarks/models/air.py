"""Attend, infer, repeat (the core paper's table 2) at a small size: one gradient of the ELBO.

The programs are those of `examples/programmable_vi/air.py`. By hand, as in ours, the number of
digits is summed out, with one draw of each window and code.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks import peers
from benchmarks.peers import dist, numpyro
from benchmarks.task import BY_HAND, OURS, Side, Task, by_hand, ours
from examples.programmable_vi import air, scenes
from examples.programmable_vi.air import CODE, DIGIT, LOOKS, MORE, NOISE
from examples.programmable_vi.scenes import CANVAS, cut, paste

PIXELS = CANVAS * CANVAS
NETWORKS = {
    "decoder": air.network(CODE, DIGIT * DIGIT),
    "look": air.network(PIXELS // 4, 7, depth=2),
    "read": air.network(DIGIT * DIGIT, 2 * CODE),
}


def networks(key: Any) -> dict[str, Any]:
    keys = jax.random.split(key, len(NETWORKS))
    return {name: make(k) for k, (name, make) in zip(keys, NETWORKS.items(), strict=True)}


def bound(params: Any) -> dict[str, Any]:
    """The networks with these weights."""
    static = eqx.filter(networks(jax.random.key(0)), eqx.is_inexact_array, inverse=True)
    return eqx.combine(params, static)


# What both by hand and NumPyro's programs share, of one canvas.


def look(nets: Any, canvas: Any) -> tuple[Any, Any, Any]:
    """Chance of one more digit; location and scale of its window."""
    seen = nets["look"](air.halved(canvas).reshape(-1))
    more = jnp.clip(jax.nn.sigmoid(seen[0]), 1e-4, 1 - 1e-4)
    return more, seen[1:4], jax.nn.softplus(seen[4:] - 1)


def read(nets: Any, canvas: Any, where: Any) -> tuple[Any, Any]:
    """Location and scale of the code of what is in the window."""
    loc, scale = jnp.split(nets["read"](cut(canvas, air.window(where)).reshape(-1)), 2)
    return loc, jax.nn.softplus(scale)


def draw(nets: Any, where: Any, code: Any) -> Any:
    image = jax.nn.sigmoid(nets["decoder"](code) - 2.0).reshape(DIGIT, DIGIT)
    return paste(image, air.window(where))


def erase(canvas: Any, where: Any) -> Any:
    return canvas * (1 - paste(jnp.ones((DIGIT, DIGIT)), air.window(where)))


# By hand.


def log_normal(x, loc, scale):
    return jnp.sum(-0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi))


def elbo_of_one(nets, key, canvas):
    fits = lambda drawn: log_normal(canvas, drawn, jnp.full(canvas.shape, NOISE))
    left, drawn, there, total = canvas, jnp.zeros_like(canvas), 1.0, 0.0
    for i, keys in enumerate(jax.random.split(key, (LOOKS, 2))):
        more, *window = look(nets, left)
        total += there * more * (jnp.log(MORE[i]) - jnp.log(more))
        total += there * (1 - more) * (jnp.log1p(-MORE[i]) - jnp.log1p(-more) + fits(drawn))
        there *= more
        where = window[0] + window[1] * jax.random.normal(keys[0], (3,))
        loc, scale = read(nets, left, where)
        code = loc + scale * jax.random.normal(keys[1], (CODE,))
        prior = log_normal(where, 0.0, jnp.ones(3)) + log_normal(code, 0.0, jnp.ones(CODE))
        total += there * (prior - log_normal(where, *window) - log_normal(code, loc, scale))
        drawn += draw(nets, where, code)
        left = erase(left, where)
    return total + there * fits(drawn)


def loss(key, params, canvases):
    nets, keys = bound(params), jax.random.split(key, len(canvases))
    return -jnp.mean(jax.vmap(lambda k, canvas: elbo_of_one(nets, k, canvas))(keys, canvases))


# NumPyro, with score-function gradients for the flips.


def per_canvas(side: Side) -> Side:
    """`handlers.scale` would do, but `TraceGraph_ELBO` multiplies the score's part by it twice."""

    def scaled(data):
        gradient = side(data)
        return lambda *args: jax.tree.map(lambda x: x / len(data), gradient(*args))

    return scaled


def _networks():
    return bound({name: numpyro.param(name) for name in NETWORKS})


def numpyro_model(canvases):
    nets, n = _networks(), len(canvases)
    with numpyro.plate("canvases", n):
        drawn, there = jnp.zeros_like(canvases), jnp.ones(n, bool)
        for i in range(LOOKS):
            there &= numpyro.sample(f"more{i}", dist.Bernoulli(MORE[i])) == 1
            with numpyro.handlers.mask(mask=there):
                normal = lambda size: dist.Normal(jnp.zeros(size), 1.0).to_event(1)
                where = numpyro.sample(f"where{i}", normal(3))
                code = numpyro.sample(f"code{i}", normal(CODE))
            image = jax.vmap(lambda w, c: draw(nets, w, c))(where, code)
            drawn += jnp.where(there[:, None, None], image, 0.0)
        numpyro.sample("canvas", dist.Normal(drawn, NOISE).to_event(2), obs=canvases)


def numpyro_guide(canvases):
    nets, n = _networks(), len(canvases)
    with numpyro.plate("canvases", n):
        there = jnp.ones(n, bool)
        for i in range(LOOKS):
            more, loc, scale = jax.vmap(lambda c: look(nets, c))(canvases)
            chance = dist.Bernoulli(jnp.where(there, more, MORE[i]))
            there &= numpyro.sample(f"more{i}", chance) == 1
            with numpyro.handlers.mask(mask=there):
                where = numpyro.sample(f"where{i}", dist.Normal(loc, scale).to_event(1))
                code = jax.vmap(lambda c, w: read(nets, c, w))(canvases, where)
                numpyro.sample(f"code{i}", dist.Normal(*code).to_event(1))
            canvases = jax.vmap(erase)(canvases, where)


def task(batch: int = air.BATCH) -> Task:
    side = lambda strategies, **options: ours(
        lambda canvases: air.ELBO, lambda canvases: (canvases,), strategies=strategies, **options
    )
    return Task(
        name=f"attend, infer, repeat, batch {batch}",
        sides={
            OURS: side(air.ENUM),
            "ours, mvd": side(air.MVD),
            "ours, score": side(air.PLAIN_SCORE, num_samples=1),
            BY_HAND: by_hand(loss),
            peers.GRAPH: per_canvas(peers.by_numpyro(peers.GRAPH, numpyro_model, numpyro_guide)),
        },
        start=eqx.filter(networks(jax.random.key(0)), eqx.is_inexact_array),
        data=jnp.asarray(scenes.make(batch).images),
        learning_rate=1e-3,
    )
