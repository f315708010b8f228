"""`vi.compare_plans`: what its numbers are, which plans it makes, and how it prints."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ppl import vi
from ppl.errors import BiasWarning
from ppl.lang import flip, gen, normal, param, sim
from ppl.vi.compare import Comparison, PlanRow, all_plans

matplotlib.use("Agg")


def theta(value=0.3):
    return param("theta", value)


def one_flip():
    return 3.0 * flip(theta()).astype(float)


def two_choices():
    x = normal(theta(), 1.0)
    return x * flip(0.5)


def test_variance_is_that_of_the_estimator():
    """The score gradient of one flip without baseline: 3 / p with probability p, else 0."""
    plans = {"exact": {"*": "enum"}, "score": {"*": vi.Score("none")}}
    found = vi.compare_plans(one_flip, plans=plans, num_samples=1, draws=8_000)
    p = 0.3
    assert found["score"].variance == pytest.approx(p * (1 - p) * (3 / p) ** 2, rel=0.1)
    assert found["exact"].variance == 0 and found["exact"].strategies == {"flip": "enum"}
    assert found.best.name == "exact" and found.reference == "exact"
    assert found.relative(found["score"]) == math.inf
    row = found["score"]
    assert row.z < 5 and 0 < row.seconds < 1 and row.compile_seconds > 0
    assert row.cost == row.variance * row.seconds
    assert 0.01 < row.catches < 0.5
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80 and "score" in text
    assert json.loads(json.dumps(found.to_dict()))["rows"][1]["name"] == "score"
    axes = found.plot()
    assert axes.get_xlabel() and len(axes.texts) == 2
    plt.close("all")


def test_a_biased_plan_stands_out():
    """Reparameterised across a jump: the plan says so, and so does its mean."""

    def objective():
        return jnp.where(normal(theta(), 1.0) > 0, 1.0, 0.0) + 0.1 * normal(theta(), 1.0)

    plans = {"planned": {}, "all reparam": {"*": "reparam"}}
    with pytest.warns(BiasWarning):
        found = vi.compare_plans(objective, plans=plans, draws=2_000)
    row = found["all reparam"]
    assert row.biased and row.z > 5
    assert found.best.name == "planned" and "biased" in str(found)


def test_a_plan_that_is_refused_says_why():
    plans = {"planned": {}, "reparam": {"flip": "reparam"}}
    found = vi.compare_plans(one_flip, plans=plans, draws=400)
    assert "discrete" in found["reparam"].refused and math.isnan(found["reparam"].variance)
    assert "refused" in str(found)
    with pytest.raises(ValueError, match="reference plan 'reparam' is refused"):
        vi.compare_plans(one_flip, plans=plans, draws=400, reference="reparam")


def test_all_plans():
    plans = all_plans(vi.objective(two_choices), ())
    assert plans["planned"] == {}
    assert plans["normal: score"] == {"normal": "score"}
    assert plans["all score"] == {"normal": "score", "flip": "score"}
    assert not any(p == {"flip": "enum"} for p in plans.values())  # as planned
    chosen = [
        tuple(s.name for s in vi.compile(two_choices, strategies=p).plan().strategies.values())
        for p in plans.values()
    ]
    assert len(set(chosen)) == len(chosen)


def test_baselines_that_remember_are_warmed_up():
    """A running mean at its first step is 0, which is no baseline."""
    objective = lambda: 10.0 + one_flip()
    plans = {"none": vi.Score("none"), "running mean": vi.Score("running_mean")}
    plans = {n: {"*": s} for n, s in plans.items()}
    found = vi.compare_plans(objective, plans=plans, num_samples=4, draws=2_000)
    assert found["running mean"].variance < 0.5 * found["none"].variance


def test_too_many_plans_are_refused():
    def objective():
        return sum(normal(theta(), 1.0) @ f"x{i}" for i in range(15))

    program = gen(objective)
    with pytest.raises(ValueError, match="pass plans="):
        vi.compare_plans(lambda: sum(sim(program)()[0].values()))


def test_exact_plans_are_ordered_by_time():
    rows = [PlanRow(n, {}, 1, variance=0.0, seconds=s) for n, s in (("a", 2.0), ("b", 1.0))]
    found = Comparison("f", tuple(rows), "a", 1)
    assert found.best.name == "b" and found.relative(found["a"]) == 2
    assert np.isfinite(found.relative(found["b"]))
