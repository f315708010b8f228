"""Values and gradients of objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ppl.syntax import ast
from spec.reference.interpreter import Interpreter
from spec.reference.outcomes import World, expectation

STEP = 1e-30


def value(
    file: ast.File, objective: str, data: Mapping[str, Any], params: Mapping[str, Any]
) -> float:
    """The expected value of an objective at given parameters."""
    return float(_expectation(file, objective, data, params).real)


def value_and_gradient(
    file: ast.File, objective: str, data: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[float, dict[str, np.ndarray]]:
    """The expected value of an objective, and its derivative by each parameter."""
    gradient = {}
    for name, x in params.items():
        x = np.asarray(x, float)
        entries = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            moved = x.astype(complex)
            moved[index] += 1j * STEP
            found = _expectation(file, objective, data, {**params, name: moved})
            entries[index] = found.imag / STEP
        gradient[name] = entries
    return value(file, objective, data, params), gradient


def _expectation(file: ast.File, objective: str, data: Any, params: Any) -> complex:
    program = Interpreter(file, params)
    args = {n: np.asarray(x) if not isinstance(x, int) else x for n, x in data.items()}
    d = program.declared[objective]
    assert isinstance(d, ast.Program)
    given = {p.name: args[p.name] for p in d.parameters}
    return expectation(lambda world: program.call(d, given, world))


def outcomes(file: ast.File, objective: str, data: Any, params: Any) -> Iterator[complex]:
    """The weights of all outcomes: they sum to 1."""
    program = Interpreter(file, params)
    d = program.declared[objective]
    assert isinstance(d, ast.Program)
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        world = World(scripts.pop())
        program.call(d, data, world)
        scripts += world.open
        yield world.weight
