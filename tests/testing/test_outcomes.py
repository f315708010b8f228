"""Sums over all outcomes: closed forms, and estimators that are wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import boxes, compile
from ppl.compiler.moments import Sampler
from ppl.compiler.strategies import Enumerate, Score
from ppl.compiler.tables import Val
from ppl.errors import UnsupportedError
from ppl.lang import categorical, delta, flip, normal, param, poisson
from ppl.testing import BiasError, assert_exactly_unbiased, exact_estimate, exact_expectation

P = 0.3


def theta():
    return param("theta", P)


def number(bit):
    return jnp.asarray(bit).astype(float)


def one_flip(site=flip):
    return number(site(theta())) * 3.0 + theta() ** 2


def structures(site=flip):
    """Lanes, a loop with a state, a branch that draws, and a choice among three."""
    t = theta()
    z = site(t)
    step = lambda s, _: (s + number(site(jnp.where(z, t, 0.9 - t))), None)
    total = lax.scan(step, 0.0, None, length=2)[0]
    k = categorical.via("score")(jnp.stack([t * number(z), 0.2, -t]))
    taken = lax.cond(z, lambda: number(site(t)) * 2.0, lambda: k * 1.0)
    lanes = number(site(t * jnp.ones(2)))
    return total**2 + taken * k + jnp.exp(number(z) * t) + jnp.prod(lanes)


def test_expectation_of_one_flip():
    value, grad = exact_expectation(one_flip)
    assert value == pytest.approx(3 * P + P**2, rel=1e-6)
    assert grad["theta"] == pytest.approx(3 + 2 * P, rel=1e-6)


def test_expectation_of_structures():
    """By hand: two steps are a binomial, the branch and the categorical depend on z."""

    def by_hand(t):
        total = 0.0
        for z in (0, 1):
            q = t if z else 0.9 - t
            p_k = jax.nn.softmax(jnp.stack([t * z, 0.2, -t]))
            mean_k, mean_k2 = p_k @ jnp.arange(3.0), p_k @ jnp.arange(3.0) ** 2
            square = 2 * q * (1 - q) + 4 * q**2
            branch = 2 * t * mean_k if z else mean_k2
            total += (t if z else 1 - t) * (square + branch + jnp.exp(z * t) + t**2)
        return total

    exact_value, exact_grad = jax.value_and_grad(by_hand)(P)
    value, grad = exact_expectation(structures)
    assert value == pytest.approx(float(exact_value), rel=1e-5)
    assert grad["theta"] == pytest.approx(float(exact_grad), rel=1e-5)


def test_one_draw_is_known_by_heart():
    """The score estimator of one flip: (3 + p^2 - b) (x - p) / (p (1 - p)) + 2 p."""
    found = exact_estimate(lambda: one_flip(flip.via(Score("none"))), num_samples=1)
    gradients = np.array([2 * P, (3 + 0.0) / P + 2 * P])  # the cost alone is charged
    mean = (1 - P) * gradients[0] + P * gradients[1]
    assert found.outcomes == 2
    assert found.grad["theta"] == pytest.approx(mean, rel=1e-5)
    variance = (1 - P) * P * np.diff(gradients) ** 2
    assert found.variance["theta"] == pytest.approx(float(variance[0]), rel=1e-4)


def test_the_variance_is_that_of_draws():
    est = compile(lambda: structures(flip.score), num_samples=1)
    exact = exact_estimate(est)
    params = est.init(jax.random.key(0))
    draws = Sampler(lambda k: est.grad(k, params), jax.random.key(0)).more(8)
    assert draws.variance[0] == pytest.approx(float(exact.variance["theta"]), rel=0.1)
    assert abs(draws.mean[0] - exact.grad["theta"]) < 5.5 * draws.standard_error[0]


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "running_mean"])
def test_score_is_exactly_unbiased(baseline):
    score = flip.via(Score(baseline))
    assert_exactly_unbiased(lambda: structures(score), num_samples=1)
    both = lambda: one_flip(score) * number(score(jnp.where(score(theta()), 0.3, theta())))
    assert_exactly_unbiased(both, num_samples=2)


def test_a_score_choice_below_an_enumerated_one():
    """One draw for each value of the parent."""

    def objective():
        z = flip.enum(theta())
        x = flip.score(jnp.where(z, 0.9 - theta(), theta()))
        return jnp.exp(number(z) + 2 * number(x))

    found = exact_estimate(objective)
    assert found.outcomes == 2**4  # two samples of one draw per value
    assert_exactly_unbiased(objective)


def test_enumeration_is_one_outcome():
    found = exact_estimate(lambda: one_flip(flip.enum))
    assert found.outcomes == 1 and found.variance["theta"] == 0


def test_a_point_mass_has_one_value():
    assert_exactly_unbiased(lambda: number(flip.score(delta(theta()))))


# -------------------------------------------------------------------------- refused, with reason


def test_what_cannot_be_enumerated_is_refused():
    with pytest.raises(UnsupportedError, match=r"no finite list.*normal") as error:
        exact_estimate(lambda: normal(theta(), 1.0) * number(flip.score(0.5)))
    assert "assert_unbiased" in error.value.fix
    with pytest.raises(UnsupportedError, match="cannot be listed") as error:
        exact_estimate(lambda: poisson(theta()) * 1.0)
    assert error.value.address == "poisson" and "test_outcomes.py" in error.value.where
    with pytest.raises(UnsupportedError, match="too many joint values") as error:
        exact_estimate(lambda: jnp.sum(number(flip.score(theta() * jnp.ones(20)))))
    assert "num_samples=1" in error.value.fix


@dataclass(frozen=True)
class Jitter(Score):
    """A score strategy with noise of its own, as the DisARM family has."""

    def lower(self, choice):
        value = super().lower(choice)
        noise = jax.random.uniform(choice.new_key())
        choice.logp(Val(choice.log_density(value).array * (2 * noise)))
        return value


def test_noise_of_a_strategy_is_refused():
    with pytest.raises(UnsupportedError, match="beside the choices' values"):
        exact_estimate(lambda: one_flip(flip.via(Jitter("none"))))


# ------------------------------------------------------------------------- planted biases fail


@dataclass(frozen=True)
class NoScoreTerm(Score):
    def lower(self, choice):
        value = choice.draw()
        choice.logp(Val(jnp.zeros(value.array.shape)))
        return value


@dataclass(frozen=True)
class ThreePercent(Score):
    def lower(self, choice):
        value = choice.draw()
        choice.logp(Val(1.03 * choice.log_density(value).array))
        return value


@dataclass(frozen=True)
class Frozen(Score):
    """Draws while it is traced: the same in every run."""

    def lower(self, choice):
        value = Val(jnp.asarray(True))
        choice.logp(choice.log_density(value))
        return value


@dataclass(frozen=True)
class WrongProbabilities(Enumerate):
    def lower(self, choice):
        value = super().lower(choice)
        logp = choice.log_density(value)
        choice.probabilities(Val(jnp.exp(0.97 * logp.array), logp.axes))
        return value


PLANTED = [NoScoreTerm("none"), ThreePercent("none"), Frozen("none"), WrongProbabilities()]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda s: type(s).__name__)
def test_a_wrong_strategy_fails(planted):
    with pytest.raises(BiasError, match="theta") as error:
        assert_exactly_unbiased(lambda: one_flip(flip.via(planted)), num_samples=1)
    assert "flip" in error.value.fix and not error.value.report.passed


def test_a_baseline_that_sees_its_own_draw_fails(monkeypatch):
    others = boxes.leave_one_out
    mixed = lambda cost, n: 0.95 * others(cost, n) + 0.05 * lax.stop_gradient(cost)
    monkeypatch.setattr(boxes, "leave_one_out", mixed)
    with pytest.raises(BiasError):
        assert_exactly_unbiased(lambda: one_flip(flip.score))
