"""What the blocks of loops and branches, and comprehensions, see of the values around them.

A lane sees its entry `x[i]` of an array as a mapped argument, not as an index into it: the compiler
then knows that lanes are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.errors import PplError
from ppl.syntax import ast
from ppl.syntax.environment import Env


@dataclass(frozen=True, eq=False)
class Seen:
    """What the block of a loop sees of the values around it.

    Attributes:
        names, entries: arrays that are the same in all runs.
        static: names and entries that are no arrays: sizes, numbers.
        mapped: arrays of which each run sees one entry.
    """

    names: dict[str, Any]
    entries: dict[Any, Any]
    static: dict[str, Any]
    mapped: dict[Any, Any]

    @staticmethod
    def of(nodes: Any, env: Env, variable: str | None = None, size: int = 0) -> Seen:
        used = {n.name for n in ast.walk(nodes) if isinstance(n, ast.Name)}
        known = {n: x for n, x in env.names.items() if n in used}
        arrays = {n: x for n, x in known.items() if _is_dynamic(x)}
        entries = {key_of(*k): x for k, x in env.entries.items() if _root(k[0]) in used}
        static = {n: x for n, x in known.items() if n not in arrays}
        mapped: dict[Any, Any] = {}
        for node in ast.walk(nodes):
            if variable is not None and isinstance(node, ast.Index):
                mapped.update(_mapped(node, env, variable, size))
        return Seen(arrays, entries, static, mapped)

    def shared(self) -> tuple[dict[str, Any], dict[Any, Any]]:
        return self.names, self.entries

    def env(self, env: Env, shared: Any, mapped: Any, variable: str, index: Any) -> Env:
        """The environment of one run."""
        names, entries = shared
        every = {unkey(k): x for k, x in {**entries, **mapped}.items()}
        inner = env.inside({**self.static, **names}, every, variable)
        if variable:
            inner.names[variable] = index
        return inner


def key_of(name: str, indices: tuple[str, ...]) -> str:
    return f"{name}[{','.join(indices)}]"  # dictionaries of arrays have keys that sort


def unkey(key: str) -> tuple[str, tuple[str, ...]]:
    name, _, indices = key[:-1].partition("[")
    return name, tuple(indices.split(","))


def _is_dynamic(x: Any) -> bool:
    return all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(x)) and not (
        isinstance(x, int | float | bool)
    )


def _mapped(node: ast.Index, env: Env, variable: str, size: int) -> dict[str, Any]:
    """`x[i, ...]` in a loop over i: the array x, of which each run sees one entry."""
    name = path_of(node.base)
    if name is None or _root(name) not in env.names.keys() | {n for n, _ in env.entries}:
        return {}
    indices = tuple(i.name if isinstance(i, ast.Name) else "" for i in node.indices)
    if variable not in indices:
        return {}
    known = indices[: indices.index(variable)]
    if known:
        array = env.entries.get((name, known))
    else:
        array = _at(node.base, env) if _root(name) in env.names else None
    if array is None or not isinstance(array, jax.Array | np.ndarray) or len(jnp.shape(array)) == 0:
        return {}
    if array.shape[0] < size:
        raise PplError(
            f"{name}[{variable}] is outside of the array",
            because=f"{variable} goes up to {size - 1}, and {name} has {array.shape[0]} entries",
        )
    return {key_of(name, (*known, variable)): array[:size] if array.shape[0] > size else array}


def path_of(e: ast.Expr) -> str | None:
    """A name, or a field of a record that has one, `z.theta`."""
    if isinstance(e, ast.Field):
        base = path_of(e.base)
        return None if base is None else f"{base}.{e.name}"
    return e.name if isinstance(e, ast.Name) else None


def _at(e: ast.Expr, env: Env) -> Any:
    """The value of what has a path."""
    return _at(e.base, env)[e.name] if isinstance(e, ast.Field) else env.names[e.name]  # type: ignore[attr-defined]


def _root(path: str) -> str:
    return path.partition(".")[0]
