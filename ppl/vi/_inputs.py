"""Checks of what users pass to `vi.fit`: wrong arguments are refused before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from ppl.errors import AddressError, DataError, ShapeError, SupportError, suggestion
from ppl.lang.observed import PartlyObserved
from ppl.lang.supports import Support


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 1.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"vi.fit: {name} is a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"vi.fit: {name} must be at least 1, not {value}")
    return int(value)


def check_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """An optax optimiser.

    Raises:
        TypeError: it is something else.
    """
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return optimizer
    found = repr(optimizer) if isinstance(optimizer, int | float) else type(optimizer).__name__
    fix = f"optax.adam({optimizer!r})" if isinstance(optimizer, float) else "optax.adam(1e-2)"
    raise TypeError(f"vi.fit: optimizer must be an optax optimiser, not {found}; for example {fix}")


def check_key(key: Any) -> jax.Array:
    """A single random key; `None` is `jax.random.key(0)`.

    Raises:
        TypeError: it is something else.
    """
    if key is None:
        return jax.random.key(0)
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if typed and key.ndim == 0:
            return key
        if key.dtype == jnp.uint32 and key.ndim == 1:
            return jax.random.wrap_key_data(key)
    raise TypeError(f"vi.fit: key must be one random key, jax.random.key(0), not {key!r}")


def check_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    """A sequence of functions, or one.

    Raises:
        TypeError: it is something else.
    """
    callbacks = (callbacks,) if callable(callbacks) else callbacks
    if not isinstance(callbacks, Iterable) or not all(map(callable, callbacks := [*callbacks])):
        raise TypeError("vi.fit: callbacks is a sequence of functions of a vi.Report")
    return tuple(callbacks)


def bind_data(objective: Any, data: Any) -> tuple[Any, ...]:
    """The objective's positional arguments: its own data, or those given.

    A tuple holds all arguments; anything else is the only one.

    Raises:
        TypeError: the objective takes another number of arguments.
        DataError: an array is empty or has NaN.
    """
    if data is None:
        data = tuple(getattr(objective, "data", None) or ())
    data = data if isinstance(data, tuple) else (data,)
    names = _argument_names(objective, data)
    for name, value in zip(names, data, strict=True):
        partly = lambda x: isinstance(x, PartlyObserved)
        for path, leaf in jax.tree_util.tree_leaves_with_path(value, is_leaf=partly):
            if isinstance(leaf, PartlyObserved):  # its unobserved entries are never looked at
                leaf = leaf.fill(jnp.zeros(jnp.shape(leaf.values), float))
            _check_array(name + jax.tree_util.keystr(path), leaf)
    return data


def _argument_names(objective: Any, data: tuple[Any, ...]) -> list[str]:
    try:
        signature = inspect.signature(getattr(objective, "fun", objective))
    except (TypeError, ValueError):
        return [f"data[{i}]" for i in range(len(data))]
    try:
        bound = signature.bind(*data)
    except TypeError:
        name = getattr(objective, "name", None) or getattr(objective, "__name__", "the objective")
        message = f"vi.fit: {name} takes {signature}, but data has {len(data)} argument(s)"
        raise TypeError(f"{message}; pass them all as one tuple, data=(xs, ys)") from None
    names: list[str] = []
    for name, value in bound.arguments.items():
        repeated = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        names += [f"{name}[{i}]" for i in range(len(value))] if repeated else [name]
    return names


def _check_array(name: str, leaf: Any) -> None:
    if isinstance(leaf, Tracer) or not eqx.is_array_like(leaf):
        return
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return
    # JAX arrays are counted where they are.
    count = int(jnp.sum(jnp.isnan(leaf)) if isinstance(leaf, jax.Array) else np.isnan(leaf).sum())
    if count:
        size = np.size(leaf)
        raise DataError(
            f"{name} has {count} NaN in {size} value{'s' * (size != 1)}",
            because="a NaN makes the objective and all gradients NaN, also where a mask hides it",
            fix="drop these values, or put any number in their place and mask them",
        )


def start_params(
    init: dict[str, Any], given: Any, supports: Mapping[str, Support]
) -> dict[str, Any]:
    """The initial parameters, with those given in place of the declared ones.

    Raises:
        AddressError: there is no parameter of that name.
        ShapeError: a value has another structure, shape or kind of number than the declared one.
        SupportError: a value lies outside of the parameter's support.
    """
    if given is None:
        return init
    if not isinstance(given, dict):
        raise TypeError(f"vi.fit: params is a dictionary by name, not {type(given).__name__}")
    for name, value in given.items():
        if name not in init:
            raise AddressError(
                f"params: there is no parameter {name!r}", because=suggestion(name, init)
            )
        _check_like(name, value, init[name])
        _check_support(name, value, supports[name])
    # With the declared types: a Python number would change the type of the loop's state.
    like = lambda old, new: jnp.asarray(new, old.dtype) if eqx.is_array(old) else new
    return init | {n: jax.tree.map(like, init[n], value) for n, value in given.items()}


def _check_like(name: str, value: Any, declared: Any) -> None:
    if jax.tree.structure(value) != jax.tree.structure(declared):
        found, expected = jax.tree.structure(value), jax.tree.structure(declared)
        raise ShapeError(
            f"params[{name!r}] has another structure than the parameter",
            because=f"expected {expected}, found {found}",
        )
    old = jax.tree_util.tree_leaves_with_path(declared)
    for (path, leaf), new in zip(old, jax.tree.leaves(value), strict=True):
        if np.shape(leaf) != np.shape(new):
            raise ShapeError(
                f"params[{name!r}]{jax.tree_util.keystr(path)} has the wrong shape",
                because=f"expected {np.shape(leaf)}, found {np.shape(new)}",
            )


def _check_support(name: str, value: Any, support: Support) -> None:
    for leaf in jax.tree.leaves(eqx.filter(value, eqx.is_inexact_array_like)):
        if not bool(jnp.all(support.check(jnp.asarray(leaf)))):
            raise SupportError(
                f"params[{name!r}] lies outside of its support, {support}",
                because=f"the value is {leaf}" if np.size(leaf) < 10 else None,
            )
