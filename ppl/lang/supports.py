"""Supports: the set on which a distribution or a parameter lives.

A support knows how to test membership, whether it contains another one, and the TFP bijector
that maps unconstrained reals onto it (`None` for discrete supports).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike
from tensorflow_probability.substrates import jax as tfp

tfb = tfp.bijectors


@dataclass(frozen=True, eq=False)
class Support:
    """A set of values.

    Attributes:
        name: as shown to users.
        event_ndims: rank of one element (0 number, 1 vector, 2 matrix).
        discrete: whether the values are integers or booleans.
        check: elementwise membership test, `value -> bool array` over the batch.
        bijector: from unconstrained reals onto the set (`None`: not an open set of reals).
        bounds: (lower, upper) where the set is an interval of numbers, `None` otherwise;
            an entry is `None` where it depends on a traced parameter.
        point: an element of the set, as a function of its shape; from the bijector if `None`.
        parts: the sets of which this one is the union; empty if it is not a union.
    """

    name: str
    event_ndims: int
    discrete: bool
    check: Callable[[Array], Array]
    bijector: Callable[[], Any] | None = None
    bounds: tuple[Any, Any] | None = None
    point: Callable[[tuple[int, ...]], ArrayLike] | None = None
    parts: tuple[Support, ...] = ()

    def __repr__(self) -> str:
        return self.name

    def example(self, event_shape: tuple[int, ...] = ()) -> Array:
        """Some element of the set, of shape `event_shape`, with batch axes if its bounds have any.

        It stands in for a value that must not be looked at (missing data, a branch not taken).
        """
        if self.point is not None:
            return jnp.asarray(self.point(event_shape))
        if self.bijector is None:
            return jnp.zeros(event_shape)
        return self.constrain(jnp.zeros(self.bijector().inverse_event_shape(event_shape)))

    def constrain(self, unconstrained: ArrayLike) -> Array:
        """Map unconstrained reals onto the support."""
        return self._bijector().forward(jnp.asarray(unconstrained))

    def unconstrain(self, value: ArrayLike) -> Array:
        """The inverse of `constrain`."""
        return unconstrain_all((self,), [jnp.asarray(value)])[0]

    def _bijector(self) -> Any:
        if self.bijector is None:
            raise TypeError(f"the support {self.name!r} has no map from unconstrained reals")
        return self.bijector()


# For many values at once and compiled as a whole: run one by one, each operation is compiled for
# itself, and a fit's start values then take as long as its loop to compile.


@functools.partial(jax.jit, static_argnums=0)
def unconstrain_all(supports: tuple[Support, ...], values: Sequence[Array]) -> list[Array]:
    """Each value mapped from its support to unconstrained reals."""
    return [s._bijector().inverse(x) for s, x in zip(supports, values, strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def contains_all(supports: tuple[Support, ...], values: Sequence[Array]) -> list[Array]:
    """Whether all elements of each value are in its support, one truth value for each."""
    return [jnp.all(s.check(x)) for s, x in zip(supports, values, strict=True)]


def _all_events(ndims: int, test: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Reduce an elementwise test over the last `ndims` axes."""
    axes = tuple(range(-ndims, 0))
    return lambda x: jnp.all(test(jnp.asarray(x)), axis=axes) if axes else test(jnp.asarray(x))


_INF = float("inf")


def _number(
    name: str, lower: float, upper: float, test: Callable, bijector: Callable, point: float
) -> Support:
    return Support(name, 0, False, _all_events(0, test), bijector, (lower, upper), lambda _: point)


real = _number("real", -_INF, _INF, jnp.isfinite, tfb.Identity, 0.0)
positive = _number("positive", 0.0, _INF, lambda x: (x > 0) & (x < _INF), tfb.Softplus, 1.0)
nonnegative = _number("nonnegative", 0.0, _INF, lambda x: (x >= 0) & (x < _INF), tfb.Softplus, 1.0)
unit_interval = _number("unit_interval", 0.0, 1.0, lambda x: (x >= 0) & (x <= 1), tfb.Sigmoid, 0.5)


def interval(lower: ArrayLike, upper: ArrayLike) -> Support:
    """The numbers from `lower` to `upper`."""
    return Support(
        f"interval({_show(lower)}, {_show(upper)})",
        0,
        False,
        lambda x: (x >= lower) & (x <= upper),
        lambda: tfb.Sigmoid(low=lower, high=upper),
        (_static(lower), _static(upper)),
        lambda _: (jnp.asarray(lower) + upper) / 2,
    )


def greater_than(lower: ArrayLike) -> Support:
    """The numbers above `lower`."""
    return Support(
        f"greater_than({_show(lower)})",
        0,
        False,
        lambda x: (x > lower) & (x < _INF),
        lambda: tfb.Chain([tfb.Shift(lower), tfb.Softplus()]),
        (_static(lower), _INF),
        lambda _: jnp.asarray(lower) + 1,
    )


def vector(support: Support, ndims: int = 1) -> Support:
    """Arrays of rank `ndims` whose entries lie in the number support `support`."""
    name = {1: "vector", 2: "matrix"}.get(ndims, f"rank-{ndims} array")
    return Support(
        f"{support.name}_{name}",
        ndims,
        support.discrete,
        _all_events(ndims, support.check),
        support.bijector,
        support.bounds,
        lambda shape: jnp.broadcast_to(support.example(), shape),
    )


real_vector = vector(real)
real_matrix = vector(real, 2)


class _SimplexBijector(tfb.SoftmaxCentered):
    """TFP's takes volumes within the hyperplane, sqrt(K) times those of the first K - 1 entries,
    by which densities on the simplex (Dirichlet's, and all others here) are counted."""

    def _forward_log_det_jacobian(self, x: Array) -> Array:
        return super()._forward_log_det_jacobian(x) - 0.5 * math.log(x.shape[-1] + 1)

    def _inverse_log_det_jacobian(self, y: Array) -> Array:
        return super()._inverse_log_det_jacobian(y) + 0.5 * math.log(y.shape[-1])


simplex = Support(
    "simplex",
    1,
    False,
    lambda x: jnp.all(x >= 0, -1) & (jnp.abs(jnp.sum(x, -1) - 1) < 1e-4),
    _SimplexBijector,
    point=lambda shape: jnp.full(shape, 1 / shape[-1]),
)
ordered = Support(
    "ordered",
    1,
    False,
    lambda x: jnp.all(x[..., 1:] > x[..., :-1], -1),
    tfb.Ascending,
    point=lambda shape: jnp.arange(shape[-1]) * 1.0,
)


def _is_positive_definite(x: Array) -> Array:
    size = jnp.max(jnp.abs(x), (-1, -2), keepdims=True)
    symmetric = jnp.all(jnp.abs(x - jnp.swapaxes(x, -1, -2)) <= 1e-4 * size, (-1, -2))
    # Not by eigenvalues: rounding makes them negative for matrices that still have a factor.
    return symmetric & jnp.all(jnp.isfinite(jnp.linalg.cholesky(x)), (-1, -2))


def _is_lower_cholesky(x: Array) -> Array:
    positive_diagonal = jnp.all(jnp.diagonal(x, axis1=-2, axis2=-1) > 0, -1)
    return jnp.all(jnp.triu(x, 1) == 0, (-1, -2)) & positive_diagonal


positive_definite = Support(
    "positive_definite",
    2,
    False,
    _is_positive_definite,
    lambda: tfb.Chain([tfb.CholeskyOuterProduct(), tfb.FillScaleTriL()]),
    point=lambda shape: jnp.eye(shape[-1]),
)
lower_cholesky = Support(
    "lower_cholesky",
    2,
    False,
    _is_lower_cholesky,
    tfb.FillScaleTriL,
    point=lambda shape: jnp.eye(shape[-1]),
)
correlation_cholesky = Support(
    "correlation_cholesky",
    2,
    False,
    lambda x: _is_lower_cholesky(x) & jnp.all(jnp.abs(jnp.sum(x**2, -1) - 1) < 1e-4, -1),
    tfb.CorrelationCholesky,
    point=lambda shape: jnp.eye(shape[-1]),
)


def image_of_reals(
    bijector: Callable[[], Any], event_shape: tuple[int, ...], name: str, dtype: Any = None
) -> Support:
    """What a TFP bijector maps unconstrained reals onto, one of the sets above if it is known.

    Args:
        event_shape: of one element of the set.
        name: of what the set is the support of, for messages.
    """
    made, ndims = bijector(), len(event_shape)
    standard = getattr(made, "low", None) is None
    known = {
        "identity": real,
        "exp": positive,
        "softplus": positive if standard else None,
        "sigmoid": unit_interval if standard else None,
        "softmax_centered": simplex,
    }.get(made.name)
    if known is not None:
        return vector(known, ndims) if ndims > known.event_ndims else known
    if made.name == "sigmoid" and ndims == 0:
        return interval(made.low, made.high)
    rank = len(made.inverse_event_shape(event_shape))
    finite = _all_events(rank, jnp.isfinite)
    check = lambda value: finite(bijector().inverse(jnp.asarray(value, dtype)))
    return Support(f"support of {name}", ndims, False, check, bijector)


def image_of(bijector: Callable[[], Any], domain: Support, inner_shape: tuple[int, ...]) -> Support:
    """The image of a set under a TFP bijector; `inner_shape` is that of an element of the set."""
    made = bijector()
    outer = tuple(made.forward_event_shape(inner_shape))
    name = f"{made.name} of {domain.name}"
    if domain.bounds is not None and _covers_reals(domain.bounds):
        return image_of_reals(bijector, outer, name)
    inside = lambda value: domain.check(bijector().inverse(jnp.asarray(value)))
    chain = domain.bijector and (lambda: tfb.Chain([bijector(), domain._bijector()]))
    point = lambda _: bijector().forward(domain.example(inner_shape))
    return Support(name, len(outer), False, inside, chain, point=point)


boolean = Support("boolean", 0, True, lambda x: (x == 0) | (x == 1), bounds=(0, 1))


def integer_interval(lower: ArrayLike, upper: ArrayLike) -> Support:
    """The integers from `lower` to `upper`, both included."""
    return Support(
        f"integer_interval({_show(lower)}, {_show(upper)})",
        0,
        True,
        lambda x: (x >= lower) & (x <= upper) & (x == jnp.floor(x)),
        bounds=(_static(lower), _static(upper)),
        point=lambda _: lower,
    )


nonnegative_integer = Support(
    "nonnegative_integer",
    0,
    True,
    lambda x: (x >= 0) & (x < _INF) & (x == jnp.floor(x)),
    bounds=(0, _INF),
)


def one_hot(size: int) -> Support:
    """Vectors of length `size` with a single one."""
    return Support(
        f"one_hot({size})",
        1,
        True,
        lambda x: jnp.all((x == 0) | (x == 1), -1) & (jnp.sum(x, -1) == 1),
        point=lambda shape: jnp.arange(shape[-1]) == 0,
    )


def union(supports: Iterable[Support]) -> Support:
    """The values that lie in any of several supports (those of a choice in several branches)."""
    kept: list[Support] = []
    for s in supports:
        if not any(is_within(s, other) for other in kept):
            kept = [*(other for other in kept if not is_within(other, s)), s]
    if len(kept) == 1:
        return kept[0]
    return Support(
        " or ".join(s.name for s in kept),
        kept[0].event_ndims,
        all(s.discrete for s in kept),
        lambda x: functools.reduce(operator.or_, [s.check(x) for s in kept]),
        point=kept[0].example,
        parts=tuple(kept),
    )


def _static(bound: Any) -> Any:
    """A bound's value if it is known when the program is built, else `None`."""
    try:
        return np.asarray(bound)
    except Exception:  # a tracer: the bound depends on the run
        return None


def _show(bound: Any) -> str:
    value = _static(bound)
    if value is None:
        return "?"
    return f"{value:g}" if value.ndim == 0 else "array"


def is_within(inner: Support, outer: Support) -> bool:
    """Whether `inner` is contained in `outer`, as far as is known when the program is built.

    Bounds that depend on a traced parameter are taken to fit.
    """
    if inner is outer or (inner.name == outer.name and inner.bounds is None and not inner.parts):
        return True
    if inner.parts:
        return all(is_within(part, outer) for part in inner.parts)
    if outer.parts:
        return any(is_within(inner, part) for part in outer.parts)
    if inner.event_ndims != outer.event_ndims:
        return False
    if inner.bounds is None or outer.bounds is None:
        # A set without bounds (simplex, ...) lies within the whole real space of its rank, and,
        # as its entries are non-negative, a simplex within non-negative vectors.
        whole = outer.bounds is not None and _covers_reals(outer.bounds)
        return whole or (inner.name == "simplex" and _covers(outer.bounds, (0.0, 1.0)))
    if outer.discrete and not inner.discrete:
        return False
    if inner.discrete != outer.discrete:
        return False
    return _covers(outer.bounds, inner.bounds)


def _covers_reals(bounds: tuple[Any, Any]) -> bool:
    return bounds[0] is not None and bool(np.all(bounds[0] == -_INF) & np.all(bounds[1] == _INF))


def _covers(outer: tuple[Any, Any] | None, inner: tuple[Any, Any]) -> bool:
    if outer is None:
        return False
    low = outer[0] is None or inner[0] is None or bool(np.all(outer[0] <= inner[0]))
    high = outer[1] is None or inner[1] is None or bool(np.all(inner[1] <= outer[1]))
    return low and high
