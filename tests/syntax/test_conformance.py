"""The programs of `spec/conformance`: the reference and the compiler both give what they say.

Where the estimate varies its mean of 4,000 draws is z-tested, |z| < 5.5 (false-alarm rate 4e-8 for
each number); it would catch a bias of a tenth of the standard deviation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ppl.compiler import compile
from ppl.syntax import check_path
from ppl.syntax.text import load
from spec.reference import value_and_gradient

from .differential import QUICK, Z_BOUND, z_score

SPEC = Path(__file__).parents[2] / "spec"
PROGRAMS = sorted((SPEC / "conformance").glob("*.ppl"))
DRAWS = 4_000


def headers(path: Path) -> dict[str, str]:
    """What the comments at the top say: `# value: 0.3`."""
    return dict(re.findall(r"^# ([a-z]+(?: \w+)?): (.*)$", path.read_text(), re.MULTILINE))


def initial_params(path: Path) -> dict[str, Any]:
    estimator = compile(load(path).objectives["cost"])
    found = estimator.init(jax.random.key(0), *load(path).objectives["cost"].data)
    given = json.loads("{" + headers(path).get("params", "").replace("w =", '"w":') + "}")
    return {n: given.get(n, x) for n, x in found.items()}


def expected(path: Path) -> tuple[float, dict[str, Any]]:
    head = headers(path)
    gradients = {n.split()[1]: json.loads(v) for n, v in head.items() if n.startswith("gradient ")}
    return float(head["value"]), gradients


with_value = [p for p in PROGRAMS if "value" in headers(p)]


@pytest.mark.parametrize("path", with_value, ids=lambda p: p.stem)
def test_the_reference_agrees(path):
    if headers(path).get("reference") == "no":
        pytest.skip("files, Python functions and estimates are not the reference's")
    value, gradients = expected(path)
    checked = check_path(path).raise_errors()
    params = {n: np.asarray(x, float) for n, x in initial_params(path).items()}
    objective = load(path).objectives["cost"]
    data = dict(zip(objective.arguments, objective.data, strict=True))
    found, slopes = value_and_gradient(checked.file, "cost", data, params)
    assert found == pytest.approx(value, abs=2e-6)
    for name, slope in gradients.items():
        np.testing.assert_allclose(slopes[name], slope, atol=2e-6)


@pytest.mark.parametrize("path", with_value, ids=lambda p: p.stem)
def test_the_compiler_agrees(path):
    value, gradients = expected(path)
    objective = load(path).objectives["cost"]
    estimator, data = compile(objective), objective.data
    params = initial_params(path)
    estimator.init(jax.random.key(0), *data)
    params = {n: jax.numpy.asarray(x, float) for n, x in params.items()}
    run = jax.vmap(lambda key: estimator.value_and_grad(key, params, *data))
    keys = jax.random.split(jax.random.key(1), DRAWS)
    values, slopes = jax.jit(run, compiler_options=QUICK)(keys)
    assert z_score(np.asarray(values, float), value)[0] < Z_BOUND, (np.mean(values), value)
    for name, slope in gradients.items():
        draws = np.asarray(slopes[name], float).reshape(DRAWS, -1)
        for column, exact in zip(draws.T, np.ravel(slope), strict=True):
            assert z_score(column, float(exact))[0] < Z_BOUND, (name, column.mean(), exact)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_errors_are_found_where_they_are(path):
    checked = check_path(path)
    lines = checked.source.text.split("\n")
    wanted = {
        i + 1: line.split("# error: ")[1] for i, line in enumerate(lines) if "# error: " in line
    }
    found: dict[int, list[str]] = {}
    for e in checked.errors:
        found.setdefault(checked.source.position(e.span[0])[0], []).append(e.what)
    assert found.keys() == wanted.keys()
    assert all(what in found[line] for line, what in wanted.items())


def test_every_rule_has_a_program():
    rules = set(re.findall(r"\*\*\[(\w-\w+)\]\*\*", (SPEC / "language.md").read_text()))
    named = {r for p in PROGRAMS for r in headers(p)["rules"].split(", ")}
    assert len(rules) > 40
    assert rules == named


def test_the_reference_names_rules_that_exist():
    rules = set(re.findall(r"\*\*\[(\w-\w+)\]\*\*", (SPEC / "language.md").read_text()))
    modules = (SPEC / "reference").glob("*.py")
    cited = {r for m in modules for r in re.findall(r"\[([A-Z]-[A-Z]+)\]", m.read_text())}
    assert cited and cited <= rules
