"""A hidden Markov model with 5 states that are summed out.

`bound`: the evidence lower bound of a Markov guide whose states are enumerated. `likelihood`: the
marginal likelihood of the observations. Both are exact: all sides sum by a forward recursion.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from benchmarks import peers
from benchmarks.peers import control_flow, dist, enumeration, numpyro
from benchmarks.task import BY_HAND, OURS, Gradient, Task, by_hand, our_elbo, ours
from ppl import categorical, density, gen, marginal, normal, param, scan, vi
from ppl import enumeration as by_enumeration

STATES = 5
MEANS = np.linspace(-2.0, 2.0, STATES).astype(np.float32)
STAY = np.log(0.8 * np.eye(STATES) + 0.2 / STATES).astype(np.float32)


def load(steps: int) -> np.ndarray:
    """Observations of a chain that stays where it is with probability 0.84."""
    rng = np.random.default_rng(0)
    z, ys = 0, []
    for _ in range(steps):
        z = rng.choice(STATES, p=0.8 * np.eye(STATES)[z] + 0.2 / STATES)
        ys.append(rng.normal(MEANS[z], 1.0))
    return np.array(ys, np.float32)


@gen
def step(z, _):
    z = categorical(jnp.asarray(STAY)[z]) @ "z"
    normal(param("means", MEANS)[z], 1.0) @ "y"
    return z, None


# ------------------------------------------------------------------------------------ the bound


@gen
def guide_step(z, y):
    logits = param("logits", STAY)[z] + y * param("slopes", np.zeros(STATES, np.float32))
    z = categorical.enum(logits) @ "z"
    return z, None


@gen
def model(ys):
    scan(step, length=len(ys))(0) @ "chain"


@gen
def guide(ys):
    scan(guide_step)(0, ys) @ "chain"


def loss(key, params, ys):
    del key
    log_stay = jax.nn.log_softmax(jnp.asarray(STAY))
    shifts = jnp.outer(ys, params["slopes"])
    log_q = jax.nn.log_softmax(params["logits"] + shifts[:, None, :])  # [time, from, to]
    q = jnp.exp(log_q)
    log_y = -0.5 * (ys[:, None] - params["means"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    costs = jnp.sum(q * (log_stay + log_y[:, None, :] - log_q), -1)  # [time, from]

    def forward(weights, x):
        q, cost = x
        return weights @ q, weights @ cost

    _, costs = jax.lax.scan(forward, jnp.eye(STATES)[0], (q, costs))
    return -jnp.sum(costs)


def numpyro_step(means: Any):
    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(logits=jnp.asarray(STAY)[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    return step


def numpyro_model(ys):
    control_flow.scan(numpyro_step(numpyro.param("means")), 0, ys)


def numpyro_guide(ys):
    logits, slopes = numpyro.param("logits"), numpyro.param("slopes")

    def step(z, y):
        table = dist.Categorical(logits=logits[z] + y * slopes)
        return numpyro.sample("z", table, infer={"enumerate": "parallel"}), None

    control_flow.scan(step, 0, ys)


def unrolled_model(ys):
    z, means = 0, numpyro.param("means")
    for t in enumeration.markov(range(len(ys))):
        z = numpyro.sample(f"z{t}", dist.Categorical(logits=jnp.asarray(STAY)[z]))
        numpyro.sample(f"y{t}", dist.Normal(means[z], 1.0), obs=ys[t])


def unrolled_guide(ys):
    z, logits, slopes = 0, numpyro.param("logits"), numpyro.param("slopes")
    for t in enumeration.markov(range(len(ys))):
        table = dist.Categorical(logits=logits[z] + ys[t] * slopes)
        z = numpyro.sample(f"z{t}", table)


NO_CATEGORICAL = "GenJAX 1.0.14 has no gradient estimator of a categorical choice that works"


def bound(steps: int = 500, unrolled: bool = False) -> Task:
    """`unrolled`: with NumPyro's estimates of a Python loop, whose code grows with the steps."""
    sides = {
        OURS: our_elbo(model, guide, lambda ys: ({"chain": {"y": ys}}, (ys,))),
        BY_HAND: by_hand(loss),
        peers.ENUM: peers.by_numpyro(peers.ENUM, numpyro_model, numpyro_guide, max_plate_nesting=0),
        peers.GRAPH: peers.by_numpyro(peers.GRAPH, numpyro_model, numpyro_guide),
    }
    if unrolled:
        sides[f"{peers.ENUM}, unrolled"] = peers.by_numpyro(
            peers.ENUM,
            unrolled_model,
            lambda ys: enumeration.config_enumerate(unrolled_guide)(ys),
            max_plate_nesting=0,
        )
        sides[f"{peers.GRAPH}, unrolled"] = peers.by_numpyro(
            peers.GRAPH, unrolled_model, unrolled_guide
        )
    start = {"means": jnp.asarray(MEANS), "logits": jnp.asarray(STAY)}
    return Task(
        name=f"HMM, bound, {steps} steps",
        sides=sides,
        start={**start, "slopes": jnp.zeros(STATES)},
        data=jnp.asarray(load(steps)),
        fit_steps=192,
        remarks={peers.GENJAX: NO_CATEGORICAL},
    )


# ------------------------------------------------------------------------------- the likelihood


def our_likelihood(ys: Any) -> vi.Objective:
    chain = marginal(scan(step, length=len(ys)), keep="y", by=by_enumeration())
    return vi.objective(lambda ys: density(chain)({"y": ys}, 0))


def forward_loss(key, params, ys):
    del key
    log_stay = jax.nn.log_softmax(jnp.asarray(STAY))
    log_y = -0.5 * (ys[:, None] - params["means"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi)

    def forward(log_weights, log_y):
        return logsumexp(log_weights[:, None] + log_stay, 0) + log_y, None

    log_weights, _ = jax.lax.scan(forward, log_stay[0] + log_y[0], log_y[1:])
    return -logsumexp(log_weights)


def likelihood_model(ys):
    enumeration.config_enumerate(numpyro_model)(ys)


def by_log_density(ys: Any) -> Gradient:
    """NumPyro's enumerated density, which its samplers use."""

    def loss(key, params, ys):
        model = enumeration.enum(
            enumeration.config_enumerate(numpyro_model), first_available_dim=-1
        )
        return -enumeration.log_density(model, (ys,), {}, params)[0]

    return jax.value_and_grad(loss, argnums=1)


def likelihood(steps: int = 500) -> Task:
    return Task(
        name=f"HMM, likelihood, {steps} steps",
        sides={
            OURS: ours(our_likelihood, lambda ys: (ys,)),
            BY_HAND: by_hand(forward_loss),
            "NumPyro log_density": by_log_density,
            peers.ENUM: peers.by_numpyro(
                peers.ENUM, likelihood_model, lambda ys: None, max_plate_nesting=0
            ),
        },
        start={"means": jnp.asarray(MEANS)},
        data=jnp.asarray(load(steps)),
        fit_steps=192,
        remarks={peers.GENJAX: NO_CATEGORICAL},
    )
