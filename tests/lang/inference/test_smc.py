"""SMC: the two guarantees exactly on a small discrete chain, gradients, and the Kalman filter."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import (
    condition,
    density,
    enumeration,
    flip,
    gen,
    marginal,
    normal,
    normalize,
    param,
    scan,
    seed,
    sim,
    smc,
    unit_interval,
    vi,
)
from ppl.errors import BiasWarning, UnsupportedError
from ppl.lang.inference.resampling import schemes
from tests.compiler.exact import QUICK, check_unbiased

THETA = 0.35
YS = jnp.array([True, False])


@gen
def step(z, _):
    z = flip(jnp.where(z, 0.8, param("theta", THETA, support=unit_interval))) @ "z"
    flip(jnp.where(z, 0.9, 0.3)) @ "y"
    return z, z


chain = scan(step, length=2)
filtered = {
    name: marginal(chain, keep="y", by=smc(particles=2, **options))
    for name, options in {
        "multinomial": {"resampling": "multinomial"},
        "stratified": {"resampling": "stratified"},
        "systematic": {"resampling": "systematic"},
        "trigger": {"resampling": "multinomial", "ess": 0.9, "trigger_width": 0.3},
    }.items()
}


def evidence(theta):
    exact = marginal(chain, keep="y", by=enumeration())
    est = vi.compile(lambda: jnp.exp(density(exact)({"y": YS}, False)))
    value, grad = est.value_and_grad(jax.random.key(0), {"theta": jnp.float32(theta)})
    return float(value), float(grad["theta"])


@pytest.mark.parametrize("name", list(schemes))
@pytest.mark.parametrize("retained", [False, True])
def test_densities_of_the_schemes(name, retained):
    """The log-probability of ancestors is that of their draws, and each particle has K W_i children
    on average.

    100,000 draws of 3 ancestors; each of 27 frequencies within 5.5 standard errors (false-alarm
    rate 1e-6)."""
    log_w = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    family = getattr(schemes[name], "retained" if retained else "ancestors").family.value
    index = {"index": jnp.int32(2)} if retained else {}
    n = 100_000
    draws = np.asarray(
        jax.jit(lambda k: family.sample(k, (n,), log_weights=log_w, **index))(jax.random.key(0))
    )
    every = np.array(list(itertools.product(range(3), repeat=3)), np.int32)
    probs = np.exp(np.asarray(family.log_density(jnp.asarray(every), log_weights=log_w, **index)))
    if retained:
        probs = np.where((every == 2).any(1), probs, 0.0)
    assert probs.sum() == pytest.approx(1.0, abs=1e-5)
    found = np.array([(draws == a).all(1).mean() for a in every])
    stderr = np.sqrt(np.maximum(probs * (1 - probs), 1e-9) / n)
    assert np.all(np.abs(found - probs) < 5.5 * stderr + 1e-7)
    if not retained:
        children = np.array([(every == i).sum(1) @ probs for i in range(3)])
        np.testing.assert_allclose(children, [0.6, 1.5, 0.9], atol=1e-5)


@pytest.mark.parametrize("name", list(filtered))
def test_the_evidence_estimate_is_unbiased_with_its_gradient(name):
    """At least 20,000 draws, |z| < 5.5 (false-alarm rate 4e-8); a bias of 3 % would fail."""
    value, grad = evidence(THETA)
    objective = lambda: jnp.exp(density(filtered[name])({"y": YS}, False))
    check_unbiased(objective, grad, exact_value=value, strategies={"*": "score"}, bias=0.05)


@pytest.mark.parametrize("name", list(filtered))
def test_the_reciprocal_is_unbiased(name):
    """E[1(y) / s] = 1; 200,000 draws, |z| < 5.5 (false-alarm rate 4e-8); a bias of 4 % fails."""

    def reciprocal():
        z, log_s = sim(filtered[name])(False)
        return jnp.where(jnp.all(z["y"] == YS), jnp.exp(-log_s), 0.0)

    n = 200_000
    est = vi.compile(reciprocal, num_samples=1)
    params = est.init(jax.random.key(0))
    run = jax.jit(jax.vmap(lambda k: est.value(k, params)), compiler_options=QUICK)
    draws = np.asarray(run(jax.random.split(jax.random.key(1), n)), np.float64)
    stderr = draws.std() / np.sqrt(n)
    assert abs(draws.mean() - 1) < 5.5 * stderr and 5.5 * stderr < 0.04


@pytest.mark.parametrize("name", ["multinomial", "systematic"])
def test_law_of_the_sampled_sequences(name):
    """density estimates the law of sim, and sim's weight its reciprocal: for each of four
    sequences, both and the frequency agree. 40,000 draws, |z| < 5.5 (false-alarm rate 1e-6)."""
    posterior = normalize(condition(chain, {"y": YS}), by=smc(particles=2, resampling=name))
    every = jnp.array(list(itertools.product([False, True], repeat=2)))

    def objective():
        z, log_s = sim(posterior)(False)
        here = jnp.all(z["z"] == every, 1).astype(float)
        d = jnp.stack([jnp.exp(density(posterior)({"z": e}, False)) for e in every])
        return jnp.concatenate([here, here * jnp.exp(-log_s), d])

    n = 40_000
    out = jax.jit(jax.vmap(seed(objective)))(jax.random.split(jax.random.key(0), n))
    out = np.asarray(out, np.float64)
    frequency, reciprocal, d = np.split(out, 3, axis=1)
    error = lambda x: x.std(0) / np.sqrt(n)
    gap = np.abs(frequency.mean(0) - d.mean(0))
    assert np.all(gap < 5.5 * np.hypot(error(frequency), error(d)))
    assert np.all(np.abs(reciprocal.mean(0) - 1) < 5.5 * error(reciprocal))
    assert np.all(5.5 * error(frequency) < 0.02)


def test_kalman_filter_and_the_bound():
    """20 linear-Gaussian steps: exp of the bound is unbiased for the Kalman evidence, and the bound
    grows with the particles towards it. 4,000 draws of up to 64 particles, |z| < 5.5."""
    ys = jnp.asarray(np.random.default_rng(1).normal(size=20), jnp.float32)

    @gen
    def move(x, _):
        x = normal(0.9 * x, 1.0) @ "x"
        normal(x, 0.7) @ "y"
        return x, None

    def kalman(ys):
        mean, var, total = 0.0, 0.0, 0.0
        for y in np.asarray(ys, np.float64):
            mean, var = 0.9 * mean, 0.81 * var + 1.0
            s = var + 0.49
            total += -0.5 * ((y - mean) ** 2 / s + np.log(2 * np.pi * s))
            gain = var / s
            mean, var = mean + gain * (y - mean), var * (1 - gain)
        return total

    @gen
    def optimal(data, x, _):
        var = 1 / (1 + 1 / 0.49)
        normal.reparam(var * (0.9 * x + data["y"] / 0.49), var**0.5) @ "x"

    exact = kalman(ys)
    means = []
    for particles in (4, 64):
        objective = vi.fivo(
            scan(move, length=20), observed={"y": ys}, particles=particles, args=(0.0,)
        )
        est = vi.compile(objective, num_samples=1)
        draws = jax.jit(jax.vmap(lambda k, est=est: est.value(k, {})))(
            jax.random.split(jax.random.key(0), 4_000)
        )
        ratio = np.exp(np.asarray(draws, np.float64) - exact)
        stderr = ratio.std() / np.sqrt(len(ratio))
        assert abs(ratio.mean() - 1) < 5.5 * stderr
        means.append(float(jnp.mean(draws)))
    assert 5.5 * stderr < 0.05
    assert means[0] < means[1] < exact + 0.01
    guided = vi.fivo(scan(move, length=20), optimal, observed={"y": ys}, particles=4, args=(0.0,))
    est = vi.compile(guided, num_samples=1)
    better = jax.jit(jax.vmap(lambda k: est.value(k, {})))(
        jax.random.split(jax.random.key(0), 1_000)
    )
    assert means[0] < float(jnp.mean(better)) < exact + 0.05


def test_dropping_the_resampling_gradient_is_reported():
    dropped = marginal(chain, keep="y", by=smc(particles=2, drop_resampling_gradient=True))
    est = vi.compile(lambda: density(dropped)({"y": YS}, False))
    assert any("resample" in address for address in est.biased())
    assert "biased" in str(est.explain())
    whole = vi.compile(lambda: density(filtered["systematic"])({"y": YS}, False))
    assert not whole.biased()


def test_a_threshold_is_reported():
    @gen
    def move(x, _):
        x = normal.reparam(param("a", 0.5) * x, 1.0) @ "x"
        normal(x, 1.0) @ "y"
        return x, None

    hard = marginal(scan(move, length=2), keep="y", by=smc(particles=2, ess=0.5, trigger_width=0.0))
    est = vi.compile(lambda: density(hard)({"y": jnp.zeros(2)}, 1.0))
    with pytest.warns(BiasWarning, match="jumps"):
        est.plan()


def test_errors():
    with pytest.raises(ValueError, match="at least 1"):
        smc(particles=0)
    with pytest.raises(ValueError, match="did you mean 'systematic'"):
        smc(particles=2, resampling="sistematic")
    with pytest.raises(UnsupportedError, match="and this program is none"):
        density(marginal(step, keep="y", by=smc(particles=2)))({"y": True}, False, None)
