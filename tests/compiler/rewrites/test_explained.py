"""Rewrites say what they did."""

from __future__ import annotations

from ppl import vi
from ppl.compiler import compile
from tests.compiler.rewrites.test_stl_dreg import guide, model


def test_in_the_plan_and_in_explain():
    program = vi.elbo(model, guide, observed={"y": 1.0})
    explanation = compile(program, rewrites=("stl",)).explain()
    (line,) = explanation.rewrites
    assert line.startswith("stl: guide/z: no score") and "test_stl_dreg.py" in line
    assert "rewrites" in str(explanation) and max(map(len, str(explanation).splitlines())) <= 80
    assert compile(program).explain().rewrites == ()
