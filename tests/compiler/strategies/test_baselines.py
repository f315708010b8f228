"""Baselines: unbiased in every construct, and with less variance than those before them.

|z| < 5.5 (false-alarm rate 4e-8) with as many draws as it takes to see a bias of 3 %, or of 10 %
where all constructs are tested at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from ppl import vi
from ppl.compiler import compile
from ppl.compiler.baselines import Baseline, Charged, baselines, register_baseline
from ppl.compiler.learned import NVIL
from ppl.compiler.strategies import Score
from ppl.errors import StrategyError
from ppl.lang import bernoulli, flip, gen, normal, param, unit_interval
from tests.compiler.exact import QUICK, check_unbiased
from tests.compiler.strategies.programs import check, exact, flips, number, trained

# ------------------------------------------------------------------------------------- per lane


def bound(site, particles):
    """A multi-sample bound with two discrete latents per particle, parent and child."""

    def objective():
        p = param("theta", 0.4)

        def log_weight(_):
            a = number(site(p))
            b = number(site(0.3 + 0.4 * a))
            log_q = a * jnp.log(p) + (1 - a) * jnp.log1p(-p)
            return 1.5 * a - 0.7 * b + a * b - log_q

        weights = jax.vmap(log_weight)(jnp.arange(particles))
        return jax.scipy.special.logsumexp(weights) - jnp.log(particles)

    return objective


@pytest.mark.parametrize("particles", [2, 5])
def test_multi_sample_bound(particles):
    """Against the sum over all 4^K outcomes; less noise than from four independent samples."""
    value, grad = exact(bound(flip.enum, particles))
    options = dict(exact_value=value, bias=0.03)
    per_lane = flip.via(Score("per_lane"))
    sd = check_unbiased(bound(per_lane, particles), grad["theta"], num_samples=4, **options)
    others = check_unbiased(bound(flip.score, particles), grad["theta"], num_samples=4, **options)
    assert sd < 0.7 * others
    if particles == 5:
        alone = check_unbiased(bound(per_lane, 5), grad["theta"], num_samples=1, **options)
        assert alone < others  # one sample of it beats four of the other


def test_it_is_vimco_for_a_bound():
    """The estimate itself, by the paper's equations 6 and 10, from the same draws."""
    k, p = 4, 0.4
    est = compile(bound(flip.via(Score("per_lane")), k), num_samples=1)
    key = jax.random.key(3)
    grad = est.grad(key, {"theta": jnp.float32(p)})["theta"]

    draws = compile(_reveal(k), num_samples=1).value(key, {"theta": jnp.float32(p)})
    bits = [int(draws) >> i & 1 for i in range(2 * k)]
    a, b = np.array(bits[:k], float), np.array(bits[k:], float)
    log_q = a * np.log(p) + (1 - a) * np.log1p(-p)
    weights = 1.5 * a - 0.7 * b + a * b - log_q
    total = np.log(np.mean(np.exp(weights)))
    slope_q = a / p - (1 - a) / (1 - p)
    expected = np.sum(np.exp(weights) / np.sum(np.exp(weights)) * -slope_q)
    for j in range(k):
        others = np.delete(weights, j)
        replaced = np.append(others, np.mean(others))
        expected += (total - np.log(np.mean(np.exp(replaced)))) * slope_q[j]
    np.testing.assert_allclose(grad, expected, rtol=1e-4)


def _reveal(particles):
    """The draws of `bound` as the bits of a number."""

    def objective():
        p = param("theta", 0.4)

        def bits(_):
            a = number(flip.score(p))
            return a, number(flip.score(0.3 + 0.4 * a))

        a, b = jax.vmap(bits)(jnp.arange(particles))
        both = jnp.concatenate([a, b])
        return jnp.sum(both * 2.0 ** jnp.arange(2 * particles))

    return objective


def test_per_lane_everywhere():
    """Costs that combine no lanes get the other samples' mean."""
    _, grad = exact(flips(flip.enum))
    check(flips(flip.via(Score("per_lane"))), grad, bias=0.1)


def test_rows_and_particles():
    """Rows of data with particles each: a row's particles are compared with each other only."""

    def rows(site):
        def objective():
            p = param("theta", jnp.array([0.3, 0.6]))

            def row(p):
                log_weight = lambda _: 1.3 * number(site(p)) + 0.2 * number(site(p))
                weights = jax.vmap(log_weight)(jnp.arange(3))
                return jax.scipy.special.logsumexp(weights)

            return jnp.sum(jax.vmap(row)(p))

        return objective

    est = compile(rows(flip.enum))
    wanted = est.grad(jax.random.key(0), est.init(jax.random.key(0)))["theta"]
    sd = check_unbiased(rows(flip.via(Score("per_lane"))), wanted)
    assert sd < 0.7 * check_unbiased(rows(flip.score), wanted)


def test_per_lane_is_refused_where_draws_follow_the_mixture():
    def objective():
        lanes = flip.via(Score("per_lane"))(param("theta", 0.3) * jnp.ones(3))
        return jnp.exp(normal.score(jnp.sum(number(lanes)), 1.0))

    with pytest.raises(StrategyError, match="cannot be told apart") as caught:
        compile(objective).plan()
    assert caught.value.address == "flip" and "test_baselines.py" in caught.value.where


# ---------------------------------------------------------------------------------------- NVIL


def test_nvil_everywhere():
    _, grad = exact(flips(flip.enum))
    check(flips(flip.via(Score("nvil"))), grad, steps=60, bias=0.1)


DATA = np.linspace(-2, 2, 12, dtype=np.float32)


def by_row(site):
    """Costs whose size depends on a row of data."""

    def objective(x):
        z = number(site(param("theta", 0.4) * jnp.ones(12)))
        return jnp.sum((x**2 + z) ** 2)

    return objective


def sd_of(baseline, steps=1, **options):
    est = compile(by_row(flip.via(Score(baseline))), num_samples=1, **options)
    params, state = trained(est, steps, (DATA,))
    draw = lambda key: est.value_grad_and_state(key, params, state, DATA)[1]["theta"]
    return float(jnp.std(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 4000))))


def test_nvil_learns_a_baseline_of_the_data():
    optimizer = optax.adam(3e-2)
    none, mean = sd_of("none"), sd_of("running_mean", 200)
    learned = sd_of(NVIL(optimizer=optimizer), 500)
    assert learned < 0.5 * mean < 0.5 * none


def test_inputs_are_a_function_of_the_data():
    """Without its input the network can only know each lane's mean."""
    objective = by_row(flip.via(Score(NVIL(inputs=lambda x: x[:, None] ** 2, width=3))))
    state = compile(objective).init_state(DATA)
    (name,) = state
    assert name == "flip: score"
    assert state[name]["learned"]["network"]["in"].shape == (1, 3)


def test_normalised_charges_are_marked_biased():
    objective = by_row(flip.via(Score(NVIL(normalize=True))))
    est = compile(objective)
    assert est.biased(DATA) == ["flip"]
    assert any("biased: flip" in w for w in est.explain(DATA).warnings)
    with pytest.raises(StrategyError, match="biased"):
        compile(objective, strict=True).plan(DATA)


def test_normalised_charges_are_scaled():
    """Down to a signal of sd 1, as far as the network does not know it."""
    none = sd_of("none")
    assert sd_of(NVIL(normalize=True, optimizer=optax.sgd(0.0)), 100) < 0.5 * none


def test_a_fit_carries_the_network():
    """The guide's flips stand for a posterior that is known."""

    @gen
    def model():
        z = bernoulli(probs=0.5 * jnp.ones(3)) @ "z"
        normal(number(z), 0.5) @ "y"

    @gen
    def guide():
        p = param("p", 0.5 * jnp.ones(3), support=unit_interval)
        bernoulli.via(Score("nvil"))(probs=p) @ "z"

    ys = jnp.array([1.0, 0.5, 0.1])
    fit = vi.fit(vi.elbo(model, guide, observed={"y": ys}), steps=600, progress=False,
                 optimizer=optax.adam(3e-2), num_samples=4)  # fmt: skip
    exact = 1 / (1 + jnp.exp((ys - 1) ** 2 / 0.5 - ys**2 / 0.5))
    np.testing.assert_allclose(fit.params["p"], exact, atol=0.06)


# ------------------------------------------------------------------------------- a user's own


def test_a_baseline_of_ones_own():
    @register_baseline
    @dataclass(frozen=True)
    class Constant(Baseline):
        at: float = 3.0
        name: ClassVar[str] = "constant"

        def value(self, charged: Charged) -> jax.Array:
            return jnp.full((), self.at)

    try:
        _, grad = exact(flips(flip.enum))
        check(flips(flip.via(Score("constant"))), grad, bias=0.1)
        noisy, still = sd_of("none"), sd_of(Constant(12.0))
        assert noisy != still
    finally:
        del baselines["constant"]


def test_unknown_baseline():
    with pytest.raises(StrategyError, match="did you mean 'leave_one_out'"):
        Score("leave_one_ou")


def test_running_means_in_loops_have_names():
    def objective():
        t = param("theta", 0.3)

        def step(x, _):
            x = normal.via(Score("running_mean"))(t * x, 1.0)
            return x, x**2

        return jnp.sum(lax.scan(step, 1.0, None, length=3)[1])

    est = compile(objective)
    state = est.init_state()
    assert set(state) == {"cost 1: running_mean"}
    run = jax.jit(est.value_grad_and_state, compiler_options=QUICK)
    after = run(jax.random.key(0), {"theta": jnp.float32(0.3)}, state)[2]
    assert float(after["cost 1: running_mean"][1]) == pytest.approx(0.1)
