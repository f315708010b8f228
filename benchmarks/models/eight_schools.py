"""Eight schools (Rubin 1981), with the schools' effects non-centred and centred."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import Side, Task
from ppl import gen, half_cauchy, log_normal, normal, param, positive, vi

EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
SITES = {"mu": (), "log_tau": (), "theta": (8,)}


@gen
def centred(errors):
    mu = normal(0.0, 5.0) @ "mu"
    tau = half_cauchy(0.0, 5.0) @ "tau"
    theta = normal(mu, jnp.full(8, tau)) @ "theta"
    normal(theta, errors) @ "y"


@gen
def non_centred(errors):
    mu = normal(0.0, 5.0) @ "mu"
    tau = half_cauchy(0.0, 5.0) @ "tau"
    theta = normal(jnp.zeros(8), 1.0) @ "theta"
    normal(mu + tau * theta, errors) @ "y"


@gen
def guide(errors):
    del errors
    normal.reparam(*_factor("mu")) @ "mu"
    log_normal.reparam(*_factor("log_tau")) @ "tau"
    normal.reparam(*_factor("theta")) @ "theta"


def _factor(name):
    shape = SITES[name]
    loc = param(f"{name}.loc", jnp.zeros(shape))
    return loc, param(f"{name}.scale", jnp.ones(shape), support=positive)


def ours(model: Any, data: Any) -> Side:
    errors, y = data
    est = vi.compile(vi.elbo(model, guide, observed={"y": y}, args=(errors,)))
    like = est.init(jax.random.key(0))

    def loss(key, params, data):
        errors, y = data
        data = ({"y": y}, (errors,))
        return -est.surrogate(key, est.constrain(params, like, *data), *data)

    return Side(loss, est.unconstrain(like), est)


def by_hand(is_centred: bool, data: Any) -> Side:
    def loss(key, params, data):
        errors, y = data
        keys = dict(zip(SITES, jax.random.split(key, 3), strict=True))
        draw, log_q = {}, 0.0
        for name, shape in SITES.items():
            scale = jax.nn.softplus(params[f"{name}.scale"])
            noise = jax.random.normal(keys[name], shape)
            draw[name] = params[f"{name}.loc"] + scale * noise
            log_q += jnp.sum(-0.5 * noise**2 - jnp.log(scale) - HALF_LOG_TAU)
        mu, log_tau, theta = draw["mu"], draw["log_tau"], draw["theta"]
        tau = jnp.exp(log_tau)
        log_q -= log_tau
        log_p = -0.5 * (mu / 5) ** 2 - math.log(5) - HALF_LOG_TAU
        log_p += math.log(2 / (5 * math.pi)) - jnp.log1p((tau / 5) ** 2)
        if is_centred:
            log_p += jnp.sum(-0.5 * ((theta - mu) / tau) ** 2 - log_tau - HALF_LOG_TAU)
            mean = theta
        else:
            log_p += jnp.sum(-0.5 * theta**2 - HALF_LOG_TAU)
            mean = mu + tau * theta
        log_p += jnp.sum(-0.5 * ((y - mean) / errors) ** 2 - jnp.log(errors) - HALF_LOG_TAU)
        return log_q - log_p

    start = {}
    for name, shape in SITES.items():
        start[f"{name}.loc"] = jnp.zeros(shape)
        start[f"{name}.scale"] = jnp.full(shape, math.log(math.expm1(1.0)), jnp.float32)
    return Side(loss, start)


def tasks() -> list[Task]:
    return [
        Task(
            name=f"eight schools, {name}",
            ours=lambda data, model=model: ours(model, data),
            by_hand=lambda data, c=model is centred: by_hand(c, data),
            data=(jnp.array(ERRORS), jnp.array(EFFECTS)),
            to_hand=lambda params: params,
            learning_rate=0.005,
            fit_steps=20_000,
        )
        for name, model in (("non-centred", non_centred), ("centred", centred))
    ]
