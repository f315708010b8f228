"""GenJAX and us: its programs inside ours, and its inference on ours."""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from genjax import const, sel
from genjax.inference import (
    chain,
    extend,
    hmc,
    init,
    mala,
    mh,
    rejuvenate,
    rejuvenation_smc,
    resample,
)

from ppl.lang.branch import Branch
from ppl.lang.density import density, sim
from ppl.lang.distributions import normal
from ppl.lang.interop import as_program
from ppl.lang.loop import Loop
from ppl.lang.plate import Plate, plate
from ppl.lang.program import Program, gen
from ppl.lang.seed import seed
from ppl.lang.trace_type import trace_type

from .programs import xs

Z_BOUND = 5.5  # false alarms: 4e-8 per test

# ------------------------------------------------------------------- their programs inside ours


@genjax.gen
def their_point(x, scale):
    z = genjax.normal(x, scale) @ "z"
    return genjax.normal(z, 1.0) @ "y"


@genjax.gen
def their_step(carry, x):
    z = genjax.normal(carry + x, 1.0) @ "z"
    return z, z


@genjax.gen
def their_other(x, scale):
    return genjax.normal(-x, scale) @ "z"


@genjax.gen
def their_model(xs):
    rows = their_point.vmap(in_axes=(0, None))(xs, 1.0) @ "rows"
    last, _ = genjax.Scan(their_step, length=const(3))(0.0, xs) @ "steps"
    genjax.normal.vmap(in_axes=(0, None))(rows, 2.0) @ "more"
    normal(last, 1.0) @ "ours"
    return genjax.Cond(their_point, their_other)(last > 0, last, 2.0) @ "either"


def test_their_combinators_are_converted():
    kinds = {
        their_point: Program,
        their_point.vmap(in_axes=(0, None)): Plate,
        genjax.Scan(their_step, length=const(3)): Loop,
        genjax.Cond(their_point, their_other): Branch,
    }
    for theirs, ours in kinds.items():
        assert type(as_program(theirs)) is ours


def test_their_program_stages_as_ours():
    types = trace_type(their_model, xs)
    shapes = {a: c.shape for a, c in types.items()}
    assert shapes == {
        "rows/z": (3,), "rows/y": (3,), "steps/z": (3,), "more": (3,), "ours": (),
        "either/z": (), "either/y": (),
    }  # fmt: skip
    assert all(c.support is not None for c in types.values())


def test_their_program_has_the_right_density(key):
    choices, log_q = seed(sim(their_model))(key, xs)
    np.testing.assert_allclose(log_q, density(their_model)(choices, xs), rtol=1e-5)
    rows, z = choices["rows"], choices["steps"]["z"]
    logpdf = lambda x, m, s: normal.logpdf(x, m, s)
    expected = (
        logpdf(rows["z"], xs, 1.0)
        + logpdf(rows["y"], rows["z"], 1.0)
        + logpdf(z, jnp.array([0.0, *z[:-1]]) + xs, 1.0)
        + logpdf(choices["more"], rows["y"], 2.0)
        + logpdf(choices["ours"], z[-1], 1.0)
    )
    either = choices["either"]
    if z[-1] > 0:
        expected += logpdf(either["z"], z[-1], 2.0) + logpdf(either["y"], either["z"], 1.0)
    else:
        expected += logpdf(either["z"], -z[-1], 2.0)
    np.testing.assert_allclose(log_q, expected, rtol=1e-5)


def test_our_distributions_work_in_their_programs(key):
    @genjax.gen
    def theirs(x):
        return normal(x, 1.0) @ "z"

    tr = seed(theirs.simulate)(key, 0.5)
    np.testing.assert_allclose(
        tr.get_score(), -normal.logpdf(tr.get_choices()["z"], 0.5, 1.0), rtol=1e-6
    )


# -------------------------------------------------------------- draws that GenJAX makes by itself


def their_draws(_):
    return genjax.uniform.sample(0.0, 1.0)


FOREIGN = {
    "modular_vmap": lambda: genjax.modular_vmap(their_draws)(jnp.zeros(4)),
    "modular_vmap in scan": lambda: jax.lax.scan(
        lambda c, _: (c, genjax.modular_vmap(their_draws)(jnp.zeros(2))), 0.0, None, length=3
    )[1],
    "scan in modular_vmap": lambda: genjax.modular_vmap(
        lambda x: jax.lax.scan(lambda c, _: (c, their_draws(c)), x, None, length=2)[1]
    )(jnp.zeros(3)),
    "a sample shape": lambda: genjax.normal.sample(0.0, 1.0, sample_shape=(5,)),
    "beside ours": lambda: jnp.array(
        [their_draws(0), normal.sample(0.0, 1.0), their_draws(0), normal.sample(0.0, 1.0)]
    ),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_their_draws_follow_our_key_and_differ(key, name):
    run = jax.jit(seed(FOREIGN[name]))
    draws = np.ravel([run(key), run(jax.random.key(1))])
    assert len(np.unique(draws)) == draws.size


# --------------------------------------------------------------------------- their inference


@gen
def conjugate(scale):
    mu = normal(0.0, 1.0) @ "mu"
    plate(normal, size=3, in_axes=None)(mu, scale) @ "y"
    return mu


YS = jnp.array([1.0, 2.0, 0.5])
KERNELS = {
    "mh": lambda tr: mh(tr, sel("mu")),
    "mala": lambda tr: mala(tr, sel("mu"), 0.5),
    "hmc": lambda tr: hmc(tr, sel("mu"), 0.2, 5),
}


@pytest.mark.parametrize("name", list(KERNELS))
def test_mcmc_finds_the_posterior(name):
    chains, steps, burn_in = 300, 90, 30

    def run():
        tr, _ = conjugate.generate({"y": YS}, 1.0)
        result = chain(KERNELS[name])(tr, const(steps), burn_in=const(burn_in))
        mu = result.traces.get_choices()["mu"]
        return jnp.mean(mu), jnp.mean(mu**2)

    mean, square = jax.jit(jax.vmap(seed(run)))(jax.random.split(jax.random.key(1), chains))
    exact_mean, exact_variance = jnp.sum(YS) / 4, 1 / 4
    for found, exact in [(mean, exact_mean), (square, exact_mean**2 + exact_variance)]:
        stderr = np.std(found, ddof=1) / np.sqrt(chains)
        assert abs(np.mean(found) - exact) < Z_BOUND * stderr
        assert stderr < 0.02


def test_mcmc_on_a_plate_at_the_top(key):
    rows = plate(conjugate, size=2, in_axes=None)

    def run():
        tr, _ = rows.generate({"y": jnp.stack([YS, -YS])}, 1.0)
        return chain(lambda tr: mh(tr, sel("mu")))(tr, const(20)).traces.get_choices()["mu"]

    assert seed(run)(key).shape == (20, 2)


def test_several_chains_at_once(key):
    tr, _ = seed(conjugate.generate)(key, {"y": YS}, 1.0)
    result = jax.jit(seed(lambda tr: chain(KERNELS["mh"])(tr, const(20), n_chains=const(3))))(
        key, tr
    )
    mu = np.asarray(result.traces.get_choices()["mu"])
    assert mu.shape == (3, 20) and len(np.unique(mu[:, -1])) == 3


@gen
def state(previous):
    x = normal(0.8 * previous, 1.0) @ "x"
    normal(x, 0.7) @ "y"
    return x


SERIES = jnp.array([1.0, 2.0, 0.5])


def exact_log_evidence():
    """The Kalman filter."""
    mean, variance, total = 0.0, 0.0, 0.0
    for y in np.asarray(SERIES):
        mean, variance = 0.8 * mean, 0.64 * variance + 1
        s = variance + 0.49
        total -= 0.5 * (np.log(2 * np.pi * s) + (y - mean) ** 2 / s)
        gain = variance / s
        mean, variance = mean + gain * (y - mean), variance * (1 - gain)
    return total


def step_by_step():
    particles = init(state, (0.0,), const(100), {"y": SERIES[0]})
    for y in SERIES[1:]:
        particles = rejuvenate(resample(particles), lambda tr: mh(tr, sel("x")))
        particles = extend(particles, state, particles.traces.get_retval(), {"y": y})
    return particles.log_marginal_likelihood()


def in_one_go():
    return rejuvenation_smc(
        state,
        mcmc_kernel=const(lambda tr: mh(tr, sel("x"))),
        observations={"y": SERIES},
        initial_model_args=(0.0,),
        n_particles=const(100),
    ).log_marginal_likelihood()


@pytest.mark.parametrize("smc", [step_by_step, in_one_go])
def test_smc_estimates_the_evidence_without_bias(smc):
    runs = 60
    logs = jax.jit(jax.vmap(seed(smc)))(jax.random.split(jax.random.key(2), runs))
    ratio = np.exp(np.asarray(logs) - exact_log_evidence())
    stderr = np.std(ratio, ddof=1) / np.sqrt(runs)
    assert stderr < 0.05
    assert abs(np.mean(ratio) - 1) < Z_BOUND * stderr
