"""`explain()`: every choice and every cost, in lines that fit a terminal."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl import vi
from ppl.compiler import compile
from ppl.compiler.strategies import Score
from ppl.errors import BiasWarning
from ppl.lang import flip, gen, normal, param, plate, poisson, sim

LANES = 4


def theta():
    return param("theta", 0.3)


def number(bit):
    return jnp.asarray(bit).astype(float)


@gen
def model():
    slope = normal(0.0, 10.0) @ "slope"
    outlier = plate(flip)(jnp.full(LANES, 0.1)) @ "outlier"
    normal(slope * jnp.arange(1.0, LANES + 1), jnp.where(outlier, 10.0, 1.0)) @ "y"


@gen
def guide():
    normal(theta(), 1.0) @ "slope"
    plate(flip)(jnp.full(LANES, 0.5)) @ "outlier"


def linear_regression(**options):
    return compile(vi.elbo(model, guide, observed={"y": np.ones(LANES)}), **options).explain()


def by_address(explanation):
    return {c.address: c for c in explanation.choices}


def test_choices_of_a_guide():
    explanation = linear_regression()
    choices = by_address(explanation)
    assert list(choices) == ["guide/slope", "guide/outlier"]
    slope, outlier = choices.values()
    assert (slope.distribution, slope.lanes, slope.strategy) == ("normal", (), "reparam")
    assert (outlier.distribution, outlier.lanes, outlier.strategy) == ("flip", (LANES,), "enum")
    assert "explicit" in slope.why and "2 values" in outlier.why
    assert all("test_explain.py" in c.where for c in choices.values())
    assert (explanation.objective, explanation.samples) == ("elbo", 1)
    assert not explanation.warnings


def test_costs_of_a_guide():
    """Every cost sees the lanes of `outlier` apart: two states, not 2^4."""
    explanation = linear_regression()
    enumerated = [c for c in explanation.costs if c.summed]
    assert enumerated
    for cost in enumerated:
        assert cost.shape == (LANES,) and cost.states == 2 and not cost.charged
        assert cost.summed == ("guide/outlier",)


def test_strategies_that_were_asked_for():
    explanation = linear_regression(strategies={"guide/*": "score"})
    assert {(c.strategy, c.why) for c in explanation.choices} == {("score", "asked for")}
    assert explanation.samples == 4
    charged = {c for cost in explanation.costs for c in cost.charged}
    assert any("guide/outlier (axis 0)" in c for c in charged), charged
    assert any("guide/slope" in c for c in charged)


def test_first_pattern_wins():
    explanation = linear_regression(strategies={"guide/slope": "reparam", "*": "score"})
    strategies = {a: c.strategy for a, c in by_address(explanation).items()}
    assert strategies == {"guide/slope": "reparam", "guide/outlier": "score"}


def test_dead_choices_are_listed():
    def objective():
        normal(0.0, 1.0)
        flip.enum(0.5)
        poisson(2.0)
        return number(flip(theta()))

    choices = compile(objective).explain().choices
    assert [c.strategy for c in choices] == ["dead", "dead", "dead", "enum"]
    assert choices[0].why == "nothing depends on it"


def test_lanes_and_steps_of_a_charge():
    def objective():
        t = theta()
        lanes = normal.score(t * jnp.ones(3), 1.0)

        def step(x, _):
            x = normal.score(x, 1.0)
            return x, x**2

        steps = lax.scan(step, t, None, length=5)[1]
        return jnp.sum(lanes**2) + jnp.sum(jnp.exp(jnp.cumsum(lanes))) + jnp.sum(steps)

    costs = compile(objective).explain().costs
    charged = [c.charged for c in costs]
    assert ("normal (axis 0)",) in charged  # each lane with its own cost
    assert ("normal (<=axis 0)",) in charged  # a cumulative sum: lanes up to its own
    assert any("normal[earlier steps]" in c for cost in charged for c in cost)
    assert all("test_explain.py" in c.where for c in costs)


def test_why_a_choice_is_scored():
    def objective():
        x = normal(theta(), 1.0)
        n = poisson(2.0)
        step = lambda total, _: (total + number(flip(theta())), None)
        total = lax.scan(step, 0.0, None, length=3)[0]
        return jnp.where(x > 0, 1.0, 0.0) + n * 1.0 + total**2

    why = {c.address: c.why for c in compile(objective).explain().choices}
    assert "'gt'" in why["normal"] and "jumps" in why["normal"]
    assert "no finite list" in why["poisson"]
    assert "remembers" in why["flip"]


def test_joint_lanes_are_said():
    objective = lambda: jnp.exp(jnp.sum(number(flip(theta() * jnp.ones(5)))))
    (choice,) = compile(objective).explain().choices
    assert choice.strategy == "enum" and "all lanes together" in choice.why
    (cost,) = [c for c in compile(objective).explain().costs if c.summed]
    assert cost.states == 2**5


def test_warnings():
    biased = compile(lambda: jnp.where(normal.reparam(theta(), 1.0) > 0, 1.0, 0.0))
    with pytest.warns(BiasWarning):
        (warning,) = biased.explain().warnings
    assert warning.startswith("biased: normal: 'gt'")
    alone = compile(lambda: normal.score(theta(), 1.0), num_samples=1).explain()
    assert any("leave-one-out" in w for w in alone.warnings)
    quiet = compile(lambda: normal.via(Score("none"))(theta(), 1.0), num_samples=1).explain()
    assert not quiet.warnings


def test_nothing_random():
    text = str(compile(lambda: theta() ** 2).explain())
    assert "none" in text


def long_names():
    @gen
    def inner_program_with_a_long_name(x):
        normal(x, 1.0) @ "a_choice_with_quite_a_long_name_of_its_own"
        flip.score(0.5) @ "another_choice_with_quite_a_long_name"

    @gen
    def outer_program_with_a_long_name():
        plate(inner_program_with_a_long_name)(theta() * jnp.ones(7)) @ "a_plate_with_a_long_name"

    return outer_program_with_a_long_name


@pytest.mark.parametrize("name", ["regression", "all scored", "long names", "jumps"])
def test_text_fits_a_terminal(name):
    def jumps():
        choices, _ = sim(long_names())()
        lanes = choices["a_plate_with_a_long_name"]
        x = lanes["a_choice_with_quite_a_long_name_of_its_own"]
        flips = lanes["another_choice_with_quite_a_long_name"]
        return jnp.sum(jnp.where(x > 0, jnp.exp(x), 0.0) * flips)

    explanation = {
        "regression": lambda: linear_regression(),
        "all scored": lambda: linear_regression(strategies={"*": "score"}, num_samples=1),
        "long names": lambda: compile(
            lambda: sum(jnp.sum(number(x)) for x in jax.tree.leaves(sim(long_names())()[0]))
        ).explain(),
        "jumps": lambda: compile(jumps).explain(),
    }[name]()
    text = str(explanation)
    assert max(map(len, text.splitlines())) <= 80, text
    flat = "".join(text.split())  # long addresses are broken
    for choice in explanation.choices:
        assert "".join(choice.address.split()) in flat
        assert choice.strategy in flat
    for part in ("choices", "cost terms"):
        assert part in text


def test_it_is_data():
    explanation = linear_regression()
    as_dict = dataclasses.asdict(explanation)
    assert set(as_dict) == {"objective", "samples", "choices", "costs", "warnings"}
    assert set(as_dict["choices"][0]) == {
        "address", "distribution", "lanes", "strategy", "why", "where",
    }  # fmt: skip
    assert set(as_dict["costs"][0]) == {"where", "shape", "charged", "summed", "states"}


def test_it_is_deterministic():
    assert str(linear_regression()) == str(linear_regression())
