"""`param`: trainable parameters declared where they are used."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ppl import _compat
from ppl.lang.frozen import as_declared
from ppl.lang.primitives import param_p
from ppl.lang.supports import Support, real


@dataclass(frozen=True, eq=False)
class ParamInfo:
    """What one leaf of a parameter says about the whole.

    Attributes:
        index: which array leaf this is.
        treedef: tree of the array leaves.
        static: the rest of the tree (functions, sizes, ...), as `equinox.partition` gives it.
        initialiser: `key -> tree`, if the initial value is random, else `None`.
    """

    support: Support
    index: int
    treedef: Any
    static: Any
    initialiser: Callable[[jax.Array], Any] | None


_fixed: ContextVar[Callable[[str], Any] | None] = ContextVar("ppl_fixed_params", default=None)


@contextmanager
def fixing(lookup: Callable[[str], Any]) -> Iterator[None]:
    """Programs that run inside get their parameters' values from `lookup(name)`."""
    token = _fixed.set(lookup)
    try:
        yield
    finally:
        _fixed.reset(token)


def param(name: str, init: Any, support: Support = real) -> Any:
    """Declare a trainable parameter and return its current value.

    May stand anywhere in a program or an objective, also inside plates and scans (one value,
    shared). The same name used again is the same parameter.

    Args:
        name: global name of the parameter.
        init: initial value: an array or number, a pytree, an Equinox module, or a function
            `key -> value` for a random one. Arrays of floats train, and floats in other pytrees
            than Equinox modules, where a float is a constant of the network.
        support: set in which the values stay; they are optimised in unconstrained space.

    Returns:
        the value, with the structure of `init`. Outside of a compiled objective (`seed`,
        GenJAX) it is the initial value.

    >>> param("scale", 1.0, support=positive)  # doctest: +SKIP
    """
    if (lookup := _fixed.get()) is not None:
        return lookup(name)
    initialiser = None
    if callable(init) and not isinstance(init, eqx.Module):
        initialiser, key = init, jax.random.key(zlib.crc32(name.encode()))
        init = init(key)
    if isinstance(init, bool | int | float | complex):
        init = jnp.asarray(init, jnp.result_type(float))
    elif not isinstance(init, eqx.Module):
        init = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, init)
    arrays, static = eqx.partition(init, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    source = _compat.current_source()
    leaves = [
        as_declared(
            param_p.bind(
                jnp.asarray(leaf),
                name=name,
                info=ParamInfo(support, i, treedef, static, initialiser),
                source=source,
            )
        )
        for i, leaf in enumerate(leaves)
    ]
    return eqx.combine(jax.tree.unflatten(treedef, leaves), static)
