"""`explain()`: every choice and every cost, in lines that fit a terminal."""

from __future__ import annotations

import json

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
        n = poisson(theta())
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
    as_dict = explanation.to_dict()
    assert as_dict == json.loads(json.dumps(as_dict))
    assert set(as_dict) == {
        "objective", "samples", "worlds", "choices", "costs", "warnings", "variance", "rewrites",
    }  # fmt: skip
    assert set(as_dict["choices"][0]) == {
        "address", "distribution", "lanes", "strategy", "why", "where", "values", "worlds",
        "biased",
    }  # fmt: skip
    assert set(as_dict["costs"][0]) == {
        "name", "where", "shape", "charged", "baselines", "compared", "summed", "states",
        "entries",
    }  # fmt: skip
    assert as_dict["variance"] is None


def test_sizes():
    """Numbers computed: 4 lanes of a cost, times 2 states; and one per world."""
    explanation = linear_regression()
    assert by_address(explanation)["guide/outlier"].values == 2
    assert [c.name for c in explanation.costs] == ["cost 1", "cost 2", "cost 3"]
    assert all(c.entries == 2 * LANES for c in explanation.costs)
    assert "summed over 2 states of guide/outlier: 8 numbers" in str(explanation)


def test_worlds_and_baselines():
    def objective():
        t = theta()
        return number(flip.mvd(t)) * 2.0 + normal.via(Score("running_mean"))(t, 1.0) ** 2

    explanation = compile(objective).explain()
    choices = by_address(explanation)
    assert choices["flip"].worlds >= 1 and explanation.worlds >= 2
    compared = [c.compared for c in explanation.costs if c.compared]
    assert compared == [("flip",)]
    charged = [(c.charged, c.baselines) for c in explanation.costs if c.charged]
    assert charged == [(("normal",), ("running_mean",))]
    text = str(explanation)
    assert "compared between worlds of flip" in text and "baseline running_mean" in text


def test_biased_choices_are_marked():
    est = compile(lambda: jnp.where(normal.reparam(theta(), 1.0) > 0, 1.0, 0.0))
    with pytest.warns(BiasWarning):
        explanation = est.explain()
    (choice,) = explanation.choices
    assert choice.biased and "'gt'" in choice.biased
    lines = [line.strip() for line in str(explanation).splitlines()]
    assert any(line.startswith("biased: 'gt'") for line in lines)  # at the choice
    assert any(line.startswith("biased: normal: 'gt'") for line in lines)  # a warning


# ----------------------------------------------------------------------------- its variance


def two_normals():
    """The gradient by score of a x + 2 b y, whose parts are known: see the test."""
    x, y = normal.via(Score("none"))(theta(), 1.0), normal.reparam(theta(), 1.0)
    return x + y**2


def test_variance_of_each_choice():
    """The gradient is x (x - t) + 2 y with independent x and y: parts add up.

    Var(x (x - t)) = t^2 + 2 for x = t + e: x (x - t) = t e + e^2. Var(2 y) = 4. 20,000 gradients:
    the relative error of a variance is sqrt(8 / n) or so, 2 %, and 10 % is allowed.
    """
    explanation = compile(two_normals, num_samples=1).explain(variance=True, draws=20_000)
    found = explanation.variance
    t = 0.3
    parts = {c.address: c.variance for c in found.choices}
    # Both choices have the address "normal": they count as one.
    assert parts["normal"] == pytest.approx(t**2 + 2 + 4, rel=0.1)
    assert found.total == pytest.approx(t**2 + 2 + 4, rel=0.1)
    assert found.parameters == {"theta": found.total}
    assert found.draws >= 20_000


@gen
def two_addresses():
    normal.via(Score("none"))(theta(), 1.0) @ "x"
    normal.reparam(theta(), 1.0) @ "y"
    flip.enum(0.5) @ "bit"


def test_variance_by_address():
    def objective():
        z, _ = sim(two_addresses)()
        return z["x"] + z["y"] ** 2 + number(z["bit"])

    est = compile(objective, num_samples=1)
    explanation = est.explain(variance=True, draws=20_000)
    parts = {c.address: c.variance for c in explanation.variance.choices}
    assert set(parts) == {"two_addresses/x", "two_addresses/y"}  # enumerated: no noise
    assert parts["two_addresses/x"] == pytest.approx(0.3**2 + 2, rel=0.1)
    assert parts["two_addresses/y"] == pytest.approx(4, rel=0.1)
    text = str(explanation)
    assert "from two_addresses/y" in text and max(map(len, text.splitlines())) <= 80
    assert explanation.to_dict()["variance"]["total"] == explanation.variance.total
    elsewhere = est.explain(variance=True, params={"theta": jnp.array(3.0)}, draws=20_000)
    parts = {c.address: c.variance for c in elsewhere.variance.choices}
    assert parts["two_addresses/x"] == pytest.approx(9 + 2, rel=0.1)


def test_it_is_deterministic():
    assert str(linear_regression()) == str(linear_regression())
