"""Families: what the compiler must know about a kind of distribution.

A `Family` is data: the parameters' names and ranks, the support, a sampler and a log-density
over whole batches, and what makes gradient strategies possible (whether the sampler is
differentiable, whether the support can be listed). One file in `distributions/` declares each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ppl import _compat
from ppl.errors import ShapeError
from ppl.lang.standard_noise import StandardNoise
from ppl.lang.supports import Support, real
from ppl.lang.weak_derivatives import WeakRule

Kind = Literal["float", "int", "bool"]
Params = dict[str, Array]


@dataclass(frozen=True)
class Relaxation:
    """Values between those of a finite support, as mixtures of them.

    Attributes:
        mix: from the weights of all values of the support, `[size, *lanes]`, which sum to 1, to
            the value `[*lanes, *event]`, a float; at a corner, the value itself.
        log_density: `(value, **params)`, smooth, and the log-probability where it is finite at
            the corners.
    """

    mix: Callable[[Array], Array]
    log_density: Callable[..., Array]


@dataclass(frozen=True, eq=False)
class Family:
    """A kind of distribution.

    Attributes:
        name: as users write it.
        parameters: name -> rank of one parameter (0 for a number, 1 for a vector, ...), in the
            order in which they may be given by position.
        support: the support, or a function of the parameters' values.
        sample: `(key, shape, **params)`; draws an array of shape `shape + event_shape`. The
            parameters broadcast to the batch shape `shape`.
        noise: what a draw is made of, if `sample` uses its key for one call of it and nothing
            else, of shape `shape + noise_event_shape` and of the parameters' common dtype.
        noise_event_shape: shape of the noise of one draw, as a function of the parameters'
            shapes; `None`: `event_shape`.
        log_density: `(value, **params)`; the natural log of the density per batch element.
        probability: `(value, **params)`; the exponential of the log-density, where no logarithm is
            needed for it (a discrete distribution given by probabilities), else `None`.
        sample_with_log_density: `(key, shape, **params)`; a draw as `sample` makes it, and its
            log-density, where the noise behind the draw gives it without undoing the path: for
            `loc + scale * noise` that is cheaper than, and free of the rounding of,
            `(value - loc) / scale`.
        event_shape: shape of one draw, as a function of the parameters' shapes.
        kind: what the values are.
        reparam: how a draw depends on the parameters: `"explicit"` (the sampler is a smooth
            function of them), `"implicit"` (its derivative comes from the inverse-CDF theorem,
            Figurnov et al., arXiv 1805.08498), or `None`.
        plan_reparam: whether the planner may reparameterise; else only who asks for it.
        enumerate: all values of the support, `[size, *event_shape]`, as a function of the
            parameters (arrays where they are known when the program is built, else
            `jax.ShapeDtypeStruct`s); it, or what it returns, is `None` where there is no finite
            list.
        log_probabilities: `(**params)`; of all values that `enumerate` lists, `[size, *lanes]`,
            where that is cheaper than the log-density at each.
        relaxation: values between those of a finite support, where those have a meaning as numbers.
        weak_derivatives: for each parameter that has one, its weak (measure-valued) derivative,
            `(key, value, **params)`; see `ppl.lang.weak_derivatives`.
        shifts: for a choice of integers, and each parameter, minus the derivative of the CDF at a
            value over the value's probability, `(value, **params)`: the rate at which the value
            moves to the next larger one as the parameter grows.
        alternatives: sets of parameter names of which exactly one must be given
            (`{"logits", "probs"}`).
        defaults: values of parameters that may be left out; `None` for none at all.
        tfp: the TFP constructor with these parameter names, if there is one.
    """

    name: str
    parameters: Mapping[str, int]
    sample: Callable[..., Array]
    log_density: Callable[..., Array]
    support: Support | Callable[..., Support] = real
    event_shape: Callable[[dict[str, tuple[int, ...]]], tuple[int, ...]] = lambda shapes: ()
    kind: Kind = "float"
    probability: Callable[..., Array] | None = None
    sample_with_log_density: Callable[..., tuple[Array, Array]] | None = None
    reparam: Literal["explicit", "implicit"] | None = None
    plan_reparam: bool = True
    enumerate: Callable[[dict[str, Any]], Array | None] | None = None
    log_probabilities: Callable[..., Array] | None = None
    relaxation: Relaxation | None = None
    weak_derivatives: Mapping[str, WeakRule] = field(default_factory=dict)
    shifts: Mapping[str, Callable[..., Array]] = field(default_factory=dict)
    alternatives: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] | None = None
    noise: StandardNoise | None = None
    noise_event_shape: Callable[[dict[str, tuple[int, ...]]], tuple[int, ...]] | None = None
    tfp: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return self.name

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Params:
        """Name the parameters of a call and convert them to arrays.

        Raises:
            TypeError: a parameter is unknown, missing, or given twice.
            ShapeError: a parameter has too low a rank.
        """
        names = list(self.parameters)
        if len(args) > len(names):
            raise TypeError(f"{self.name} takes {names}; got {len(args)} positional parameters")
        given = {**dict(self.defaults or {}), **dict(zip(names, args, strict=False))}
        if twice := set(names[: len(args)]) & set(kwargs):
            raise TypeError(f"{self.name}: {sorted(twice)} given by position and by name")
        if unknown := set(kwargs) - set(names):
            raise TypeError(f"{self.name} has no parameter {sorted(unknown)}; it takes {names}")
        given = {k: v for k, v in {**given, **kwargs}.items() if v is not None}
        optional = {n for n, v in (self.defaults or {}).items() if v is None}
        required = [n for n in names if n not in self.alternatives and n not in optional]
        if missing := [n for n in required if n not in given]:
            raise TypeError(f"{self.name} needs {missing}; it takes {names}")
        if self.alternatives and len(self.alternatives & set(given)) != 1:
            raise TypeError(
                f"{self.name} needs exactly one of {sorted(self.alternatives)}; got {sorted(given)}"
            )
        arrays = {k: _as_float(given[k]) for k in names if k in given}
        for k, x in arrays.items():
            if x.ndim < self.parameters[k]:
                raise ShapeError(
                    f"{self.name}: parameter {k!r} needs rank {self.parameters[k]} or more",
                    because=f"its shape is {x.shape}",
                )
        return arrays

    def batch_shape(self, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Broadcast shape of the parameters, without their event axes."""
        batches = [s[: len(s) - self.parameters[k]] for k, s in shapes.items()]
        try:
            return np.broadcast_shapes(*batches)
        except ValueError as e:
            raise ShapeError(
                f"{self.name}: the parameters' shapes do not broadcast together",
                because=", ".join(f"{k} is {s}" for k, s in shapes.items()),
            ) from e

    def dtype(self, params: Mapping[str, Any]) -> Any:
        """Dtype of a draw."""
        if self.kind == "float":
            return jnp.result_type(*(p.dtype for p in params.values()))
        return jnp.dtype(bool) if self.kind == "bool" else jnp.dtype("int32")

    def noise_aval(self, shape: tuple[int, ...], params: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
        """Of the noise that makes a draw of lanes `shape`."""
        event_shape = self.noise_event_shape or self.event_shape
        event = event_shape({n: p.shape for n, p in params.items()})
        dtype = jnp.result_type(*(p.dtype for p in params.values()))
        return jax.ShapeDtypeStruct((*shape, *event), dtype)

    def support_of(self, params: Mapping[str, Any]) -> Support:
        return self.support if isinstance(self.support, Support) else self.support(**params)


def _as_float(x: ArrayLike) -> Array:
    if _is_known_integer(x):
        # Converted by NumPy: JAX would record the conversion while it traces, and a number of
        # trials would no longer be known when the program is built.
        return jnp.asarray(np.asarray(x, jnp.result_type(float)))
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def _is_known_integer(x: Any) -> bool:
    if not isinstance(x, int | np.ndarray | np.generic | jax.Array) or not _compat.is_concrete(x):
        return False
    return not jnp.issubdtype(jnp.result_type(x), jnp.inexact)
