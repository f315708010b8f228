"""Eight schools (Rubin 1981), with the schools' effects non-centred and centred."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import peers
from benchmarks.peers import adev, dist, genjax, numpyro, tfp
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import gen, half_cauchy, log_normal, normal, param, positive

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


def split(data):
    errors, y = data
    return {"y": y}, (errors,)


def hand_written(is_centred: bool):
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

    return loss


# Peers. `factor(params, name)` is location and scale of a factor of the guide.


def factor(params: Any, name: str) -> tuple[Any, Any]:
    return params[f"{name}.loc"], jax.nn.softplus(params[f"{name}.scale"])


def numpyro_model(is_centred: bool):
    def model(data):
        errors, y = data
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        loc, scale = (mu, tau) if is_centred else (0.0, 1.0)
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(loc, scale))
            mean = theta if is_centred else mu + tau * theta
            numpyro.sample("y", dist.Normal(mean, errors), obs=y)

    return model


def numpyro_guide(data):
    params = {f"{n}.{p}": numpyro.param(f"{n}.{p}") for n in SITES for p in ("loc", "scale")}
    numpyro.sample("mu", dist.Normal(*factor(params, "mu")))
    numpyro.sample("tau", dist.LogNormal(*factor(params, "log_tau")))
    with numpyro.plate("schools", 8):
        numpyro.sample("theta", dist.Normal(*factor(params, "theta")))


def log_joint(is_centred: bool, data: Any, mu: Any, tau: Any, theta: Any) -> Any:
    """By TFP's densities, for GenJAX, which has no half-Cauchy of its own, and for TFP."""
    errors, y = data
    d = tfp.distributions
    loc, scale = (mu, tau) if is_centred else (0.0, 1.0)
    log_p = d.Normal(0.0, 5.0).log_prob(mu) + d.HalfCauchy(0.0, 5.0).log_prob(tau)
    log_p += jnp.sum(d.Normal(loc, scale).log_prob(theta))
    mean = theta if is_centred else mu + tau * theta
    return log_p + jnp.sum(d.Normal(mean, errors).log_prob(y))


def genjax_elbo(is_centred: bool):
    def elbo(params, data):
        draw, log_q = {}, 0.0
        for name in SITES:
            draw[name] = adev.normal_reparam(*factor(params, name))
            log_q += jnp.sum(genjax.normal.logpdf(draw[name], *factor(params, name)))
        tau = jnp.exp(draw["log_tau"])
        log_q -= draw["log_tau"]
        return log_joint(is_centred, data, draw["mu"], tau, draw["theta"]) - log_q

    return elbo


def tfp_joint(is_centred: bool):
    def of_data(data):
        one = lambda mu, tau, theta: log_joint(is_centred, data, mu, tau, theta)
        return jax.vmap(one)

    return of_data


def tfp_posterior(params):
    d = tfp.distributions
    return d.JointDistributionNamed(
        {
            "mu": d.Normal(*factor(params, "mu")),
            "tau": d.LogNormal(*factor(params, "log_tau")),
            "theta": d.Independent(d.Normal(*factor(params, "theta")), 1),
        }
    )


def task(is_centred: bool) -> Task:
    model = centred if is_centred else non_centred
    start = {}
    for name, shape in SITES.items():
        start[f"{name}.loc"] = jnp.zeros(shape)
        start[f"{name}.scale"] = jnp.full(shape, math.log(math.expm1(1.0)))
    theirs = numpyro_model(is_centred)
    return Task(
        name=f"eight schools, {'centred' if is_centred else 'non-centred'}",
        sides={
            OURS: our_elbo(model, guide, split),
            BY_HAND: by_hand(hand_written(is_centred)),
            peers.TRACE: peers.by_numpyro(peers.TRACE, theirs, numpyro_guide),
            peers.GENJAX: peers.by_genjax(genjax_elbo(is_centred)),
            peers.TFP: peers.by_tfp(tfp_joint(is_centred), tfp_posterior),
        },
        start=start,
        data=(jnp.array(ERRORS), jnp.array(EFFECTS)),
        learning_rate=0.005,
        fit_steps=19_200,
    )
