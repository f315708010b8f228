"""Random programs: the compiled estimator against the reference, and against itself rewritten.

With 2,000 draws and |z| < 5.5 (false-alarm rate 4e-8 for each number) a bias of an eighth of the
estimator's standard deviation is found; where all choices are enumerated, any difference. The few
programs here keep the machinery alive; `pytest -m exhaustive` runs thousands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from ppl.compiler import compile
from ppl.compiler.plan import CannotEnumerate
from ppl.syntax import ast, show
from ppl.syntax.text import loads
from ppl.testing.programs import (
    DISCRETE,
    programs,
    renamed,
    rewrite,
    with_strategies,
    without_strategies,
)
from ppl.testing.unrolled import has_loops, unrolled
from spec.reference import value

from .differential import Z_BOUND, compare, estimates, params_of, z_score

few = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
fewer = settings(few, max_examples=2)
KEY = jax.random.key(0)


@few
@given(programs(bits=6))
def test_compiled_equals_reference(file):
    compare(file)


@few
@given(programs(bits=6, distributions=DISCRETE, strategies=lambda d: ("enum",)))
def test_enumerated_programs_are_exact(file):
    assert compare(file, draws=2).kind in ("exact", "refused")


@fewer
@given(programs(bits=5, distributions=DISCRETE))
def test_strategies_agree(file):
    """All choices drawn, against those that the planner picks."""
    drawn = with_strategies(file, lambda choice: "score")
    assert compare(drawn).z < Z_BOUND
    assert compare(without_strategies(file)).z < Z_BOUND


@fewer
@given(programs(bits=6))
def test_names_of_choices_do_not_matter(file):
    """Other keys, the same expectation."""
    other = renamed(file, lambda name: f"renamed_{name}")
    assert value(other, "cost", {}, params_of(other)) == pytest.approx(
        value(file, "cost", {}, params_of(file)), rel=1e-12
    )
    compare(other)


def with_dead_code(file: ast.File) -> ast.File:
    """The guide and the model with a choice that nothing reads."""
    dead = ast.Choice(
        ast.Target("dead"),
        ast.Call("flip", (ast.Argument(None, ast.Name("t")),)),
        ast.Strategy("enum"),
    )

    def change(node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Program) and node.kind != "objective":
            statement = dead if node.kind == "guide" else replace(dead, strategy=None)
            return replace(node, body=ast.Block((*node.body.statements, statement)))
        return node

    return rewrite(file, change)


@fewer
@given(programs(bits=5, distributions=DISCRETE, strategies=lambda d: ("enum", None)))
def test_dead_code_does_not_matter(file):
    """A choice that no cost depends on changes no draw; density(p) - 0 counts it, so not there."""
    objective = file.declarations[-1]
    if (
        "density" in show(ast.File((objective,)))
        or "log_q" in show(ast.File((objective,))).split("return")[-1]
    ):
        return
    plain, _ = estimates(file, 16, 0)
    dead, _ = estimates(with_dead_code(file), 16, 0)
    np.testing.assert_allclose(plain, dead, rtol=1e-4, atol=1e-5)


@few
@given(programs(bits=6))
def test_explain_lists_every_choice(file):
    estimator = compile(loads(show(file)).objectives["cost"])
    try:
        text = str(estimator.explain())
    except Exception as e:  # an enumeration that was asked for may be too large
        assert type(e).__name__ == "CannotEnumerate"
        return
    guide = file.declarations[0]
    for choice in (n for n in ast.walk((guide,)) if isinstance(n, ast.Choice)):
        assert f"q/{choice.target.name}" in text


with_loops = programs(bits=6).filter(has_loops)
enumerated = programs(bits=6, distributions=DISCRETE, strategies=lambda d: ("enum",))


def with_its_loops_written_out(file: ast.File) -> ast.File:
    """The file without loops, of the same value by the reference."""
    other = unrolled(file)
    assert not has_loops(other)
    expected = value(file, "cost", {}, params_of(file))
    assert value(other, "cost", {}, params_of(other)) == pytest.approx(expected, rel=1e-9)
    return other


@few
@given(with_loops)
def test_loops_are_what_they_are_written_out(file):
    """`scan` is its steps one after the other, a plate its lanes: law, density, cost, gradient."""
    compare(with_its_loops_written_out(file))
    compare(file)


@few
@given(enumerated.filter(has_loops))
def test_enumerated_loops_are_what_they_are_written_out(file):
    """Where both can be summed, value and gradient are equal; no draws."""
    other = with_its_loops_written_out(file)
    try:
        found = [estimates(f, 1, 0) for f in (file, other)]
    except CannotEnumerate:
        return
    (a, da), (b, db) = found
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert da.keys() == db.keys()
    for name in da:
        np.testing.assert_allclose(da[name], db[name], rtol=1e-4, atol=1e-4)


LOOP = """
guide q() {{
  param t: unit_interval = 0.3
  {body}
}}
objective cost() {{
  let (z, log_q) = sim(q())
  return {cost}
}}"""


def test_scan_equals_unrolled_and_plate_equals_loop():
    """Written out statement by statement, the same value and gradient (all enumerated: exact)."""
    scan = LOOP.format(
        body="""scan i in 3 with k = false {
          x[i] ~ flip(if k then 0.9 else t) via enum
          next k = x[i]
        }
        plate i in 3 { y[i] ~ flip(t / 2) via enum }""",
        cost="sum(real(z.x)) + sum(real(z.x) * real(z.y)) * 2",
    )
    written = LOOP.format(
        body="""x0 ~ flip(t) via enum
        x1 ~ flip(if x0 then 0.9 else t) via enum
        x2 ~ flip(if x1 then 0.9 else t) via enum
        y0 ~ flip(t / 2) via enum  y1 ~ flip(t / 2) via enum  y2 ~ flip(t / 2) via enum""",
        cost="real(z.x0) + real(z.x1) + real(z.x2) + 2 * (real(z.x0) * real(z.y0)"
        " + real(z.x1) * real(z.y1) + real(z.x2) * real(z.y2))",
    )
    found = []
    for text in (scan, written):
        estimator = compile(loads(text).objectives["cost"])
        found.append(estimator.value_and_grad(KEY, estimator.init(KEY)))
    (a, da), (b, db) = found
    np.testing.assert_allclose([a, da["t"]], [b, db["t"]], rtol=1e-5)


def test_a_wrong_estimator_is_noticed():
    """The test of the test: values off by 5 %."""
    rng = np.random.default_rng(0)
    draws = 1.0 + 0.2 * rng.normal(size=2_000)
    assert z_score(draws, 1.0)[0] < Z_BOUND
    assert z_score(1.05 * draws, 1.0)[0] > Z_BOUND


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(10))
def test_many(part):
    """500 programs each, 5 minutes of CPU; `-s` shows how they were checked."""
    kinds = Counter()

    @seed(part)
    @settings(few, max_examples=500, derandomize=False)
    @given(programs(bits=7))
    def run(file):
        kinds[compare(file).kind] += 1

    run()
    print(f"part {part}: {dict(kinds)}")
    jax.clear_caches()


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(4))
def test_many_written_out(part):
    """250 programs with loops each, and the same without; 5 minutes of CPU."""
    kinds = Counter()

    @seed(part)
    @settings(few, max_examples=250, derandomize=False)
    @given(with_loops)
    def run(file):
        kinds[compare(with_its_loops_written_out(file)).kind] += 1
        compare(file)

    run()
    print(f"part {part}: {dict(kinds)}")
    jax.clear_caches()
