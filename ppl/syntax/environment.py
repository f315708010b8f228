"""What a text program's expressions and statements are run with: names, arguments, entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ppl.errors import PplError
from ppl.syntax import ast

if TYPE_CHECKING:
    from ppl.syntax.elaborate import Module


@dataclass(frozen=True)
class App:
    """A generative function with its arguments, before it is run."""

    program: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        return self.program(*self.args, **self.kwargs)


@dataclass(frozen=True)
class Env:
    """The values of names at one place of a program.

    Attributes:
        names: name -> value.
        entries: (name, indices) -> the entry of an array in this run of the loops over the indices.
        loops: the loops around.
        module: what the file declares.
        numbers: of the factors of the program, by the identity of the statement.
    """

    module: Module
    names: dict[str, Any] = field(default_factory=dict)
    entries: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict)
    loops: tuple[str, ...] = ()
    numbers: Mapping[int, int] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def define(self, target: ast.Target, value: Any) -> None:
        if target.indices:
            self.entries[target.name, target.indices] = value
        else:
            self.names[target.name] = value

    def inside(self, names: Mapping[str, Any], entries: Mapping[Any, Any], loop: str = "") -> Env:
        loops = (*self.loops, loop) if loop else self.loops
        return replace(self, names=dict(names), entries=dict(entries), loops=loops, state={})


def bind(
    name: str,
    parameters: tuple[ast.Parameter, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The values of parameters, and of the sizes in their types."""
    names = [p.name for p in parameters]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if len(args) > len(names) or set(given) != set(names):
        raise PplError(
            f"{name} takes {', '.join(names) or 'no arguments'}",
            because=f"it was given {len(args)} by position and {sorted(kwargs)} by name",
        )
    bound: dict[str, Any] = {}
    for p in parameters:
        x = given[p.name]
        if p.type == ast.ArrayType("size"):
            bound[p.name] = _static_size(name, p.name, x)
        else:
            bound[p.name] = _bind_sizes(p.type, x, f"{name}: {p.name}", bound)
    return bound


def _static_size(program: str, name: str, x: Any) -> int:
    try:
        return int(x)
    except (TypeError, ValueError):  # of a tracer, JAX's is a TypeError
        raise PplError(
            f"{program}: the size {name!r} must be known when the program is built",
            because=f"found {x}, which is computed during the run",
            fix="close over it, or take it from the shape of an array",
        ) from None


def _bind_sizes(t: ast.Type, x: Any, what: str, bound: dict[str, Any]) -> Any:
    if isinstance(t, ast.RecordType):
        return {p.name: _bind_sizes(p.type, x[p.name], f"{what}.{p.name}", bound) for p in t.fields}
    if isinstance(t, ast.TupleType):
        return tuple(_bind_sizes(i, v, what, bound) for i, v in zip(t.items, x, strict=True))
    assert isinstance(t, ast.ArrayType)
    if not isinstance(x, int | float | bool):
        x = jnp.asarray(x)
    shape = jnp.shape(x)
    if len(shape) != len(t.sizes):
        raise PplError(f"{what} has rank {len(t.sizes)}", because=f"the shape found is {shape}")
    for size, found in zip(t.sizes, shape, strict=True):
        if isinstance(size, ast.Name) and bound.setdefault(size.name, found) != found:
            raise PplError(f"{what}: {size.name} is {bound[size.name]} elsewhere, here {found}")
    return x
