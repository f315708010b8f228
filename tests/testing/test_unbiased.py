"""The z-tests pass what is unbiased, fail a bias of 3 %, and refuse to test what they cannot see.

False alarms: at most 1e-6 per call; keys are fixed.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from ppl.compiler import boxes, compile
from ppl.compiler.strategies import Score
from ppl.errors import BiasWarning
from ppl.lang import flip, gen, normal, param, poisson, sim
from ppl.testing import (
    BiasError,
    InconclusiveError,
    assert_mean,
    assert_unbiased,
    assert_unbiased_draws,
    z_bound,
)

from .test_outcomes import PLANTED, one_flip

EXACT = 3 + 2 * 0.3


def theta(value=0.3):
    return param("theta", value)


def square():
    """E = theta^2 + 1, at 1.5."""
    return normal(theta(1.5), 1.0) ** 2


def two_parameters():
    scale = param("scale", jnp.array([1.0, 2.0]))
    x = normal(theta(), 1.0)
    bit = jnp.asarray(flip(jax.nn.sigmoid(x))).astype(float)
    return jnp.sum((x - scale * bit) ** 2)


# ----------------------------------------------------------------------------------- it passes


def test_against_an_exact_gradient():
    report = assert_unbiased(square, exact=3.0, exact_value=3.25)
    assert report.names == ["theta", "value"]
    assert report.detectable[0] <= 0.03 * 3.0 * 1.02  # what it promises to catch
    assert report.draws >= 8_192
    assert assert_unbiased(square, exact={"theta": 3.0}).names == ["theta"]


def test_against_an_exact_function():
    report = assert_unbiased(square, exact=lambda params: params["theta"] ** 2 + 1)
    assert set(report.names) == {"theta", "value"}


def test_at_other_parameters():
    assert_unbiased(square, params={"theta": 2.0}, exact=4.0)


def test_against_the_all_score_plan():
    report = assert_unbiased(two_parameters)
    assert report.names == ["scale[0]", "scale[1]", "theta", "value"]


def test_against_a_named_plan():
    assert_unbiased(square, strategies={"*": Score("none")}, reference={"*": "reparam"})


def test_an_exact_estimator_needs_few_draws():
    report = assert_unbiased(lambda: one_flip(flip.enum), exact=EXACT)
    assert report.draws == 8_192 and report.sd[0] < 1e-5


def test_counts_have_a_reference():
    assert_unbiased(lambda: poisson(theta(1.3)) * 1.0, exact=1.0, exact_value=1.3)


# ------------------------------------------------------------------------------------ it fails


@pytest.mark.parametrize("planted", PLANTED, ids=lambda s: type(s).__name__)
def test_a_wrong_strategy_fails(planted):
    with pytest.raises(BiasError) as error:
        # 3 % of the score term is 2.5 % of the gradient.
        objective = lambda: one_flip(flip.via(planted))
        assert_unbiased(objective, exact=EXACT, num_samples=1, bias=0.02)
    text = str(error.value)
    assert "theta" in text and "by score z =" in error.value.fix  # where to look
    assert "test_outcomes.py" in error.value.fix


@pytest.mark.parametrize(("strategy", "factor"), [("enum", 0.97), ("score", 1.03)])
def test_3_percent_of_one_entry_fails(strategy, factor):
    est = compile(two_parameters, strategies={"flip": strategy})
    params = est.init(jax.random.key(0))

    def draw(key):
        value, grad = est.value_and_grad(key, params)
        return value, {**grad, "scale": grad["scale"] * jnp.array([1.0, factor])}

    reference = assert_unbiased(est)
    exact = {"scale": reference.expected[:2], "theta": reference.expected[2]}
    with pytest.raises(BiasError, match=r"scale\[1\]"):
        # Twice as sharp, as the reference is noisy itself.
        assert_unbiased_draws(draw, exact, bias=0.015)


def test_a_baseline_that_sees_its_own_draw_fails(monkeypatch):
    others = boxes.leave_one_out
    monkeypatch.setattr(boxes, "leave_one_out", lambda c, n: 0.9 * others(c, n) + 0.1 * c)
    with pytest.raises(BiasError):
        assert_unbiased(square, exact=3.0, strategies={"*": "score"})


def test_a_missed_jump_fails_and_is_located():
    """The jump's choice by score: the deviation is gone. The other's: it is not."""

    @gen
    def program():
        normal.reparam(theta(), 1.0) @ "jumps"
        normal.reparam(theta(), 1.0) @ "smooth"

    def objective():
        z, _ = sim(program)()
        return jnp.where(z["jumps"] > 0, 1.0, 0.0) + z["smooth"]

    with pytest.warns(BiasWarning), pytest.raises(BiasError) as error:
        assert_unbiased(objective, exact=norm.pdf(0.3) + 1)
    found = dict(re.findall(r"program/(\w+): reparam; by score z = (\S+)", error.value.fix))
    assert abs(float(found["jumps"])) < 5 and abs(float(found["smooth"])) > 10


def test_not_a_number_fails():
    with pytest.raises(BiasError):
        assert_mean(lambda k: jnp.log(jax.random.normal(k)), 0.0)


# ------------------------------------------------------------- a test that cannot fail is none


def test_too_few_draws_are_an_error():
    with pytest.raises(InconclusiveError, match="would not be caught") as error:
        assert_unbiased(
            lambda: normal.score(theta(0.001), 1.0) ** 2, exact=0.002, max_draws=100_000
        )
    assert "max_draws" in error.value.fix


def test_comparing_with_itself_is_an_error():
    with pytest.raises(ValueError, match="compared with itself"):
        assert_unbiased(square, strategies={"*": Score("none")})


def test_an_exact_gradient_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match="entries"):
        assert_unbiased(square, exact={"theta": np.ones(2)})
    with pytest.raises(ValueError, match="entries"):
        assert_unbiased(square, exact={"phi": 3.0})


# ---------------------------------------------------------------------------------- error rates


def test_error_rates():
    """Of 400 runs: no false alarm at 1e-6; at a bias of the detectable size, misses at most 5 %.

    Expected misses: 1 %, so 4 of 400; more than 20 has probability 1e-9.
    """
    bound, n = z_bound(1), 1000
    target = (bound + 2.326) / np.sqrt(n)  # the bias to be caught, in units of the sd
    z = np.random.default_rng(0).normal(size=(400, n)).mean(1) * np.sqrt(n)
    assert np.all(np.abs(z) < bound)
    assert np.mean(np.abs(z + target * np.sqrt(n)) < bound) < 0.05


@pytest.mark.parametrize("checks", [1, 10, 1000])
def test_bonferroni(checks):
    assert 2 * checks * norm.sf(z_bound(checks)) == pytest.approx(1e-6, rel=1e-6)


def test_false_alarms_at_a_loose_level():
    """At false_alarm = 0.5 about that part of unbiased estimators fail: 1 to 15 of 16 runs."""
    failures = 0
    for seed in range(16):
        try:
            assert_mean(
                lambda k: jax.random.normal(k) + 3.0,
                3.0,
                false_alarm=0.5,
                bias=0.05,
                key=jax.random.key(seed),
            )
        except BiasError:
            failures += 1
    assert 1 <= failures <= 15
