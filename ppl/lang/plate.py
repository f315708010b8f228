"""`plate`: a program once per lane, independently."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import equinox as eqx
import genjax
import jax
import jax.numpy as jnp
from genjax.core import GFI, Tr, Trace
from jaxtyping import Array

from ppl.errors import ShapeError
from ppl.lang.gfi import Combinators, name_of, takes_value
from ppl.lang.interop import as_program, converts
from ppl.lang.mask import Mask, masked_by
from ppl.lang.observed import PartlyObserved, Retained, leading_sizes
from ppl.lang.scope import address_of_choice, current_address

Axes = int | tuple[Any, ...] | Sequence[Any] | None

_totals: ContextVar[list[float] | None] = ContextVar("ppl_plate_totals", default=None)


@contextmanager
def recording_totals() -> Iterator[list[float]]:
    """Collect the totals of all subsampled plates that run inside."""
    token = _totals.set(found := [])
    try:
        yield found
    finally:
        _totals.reset(token)


def plate(
    program: GFI, size: int | None = None, in_axes: Axes = 0, total: float | None = None
) -> Plate:
    """The program once per lane, as `jax.vmap` runs a function.

    Lanes draw independently. The choices are those of the program with a leading axis of lanes,
    at the same addresses.

    Args:
        program: a generative function.
        size: number of lanes; may be left out where a mapped argument tells it.
        in_axes: which axis of each positional argument runs along the lanes (`None`: the same
            value for all), for all arguments or one entry for each, as in `jax.vmap`. Arguments
            by name are the same for all lanes.
        total: for a plate over a subsample: the size of the whole. Each lane's log-density is
            scaled by `total / size`, so that the sum is an unbiased estimate of the whole's if the
            subsample is uniform. Give it to the model's and to the guide's plate.

    Raises (when run):
        ShapeError: the number of lanes is unknown, or the arguments or choices disagree about it.

    >>> plate(program, in_axes=(0, None))(xs, scale) @ "points"  # doctest: +SKIP
    """
    axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    return Plate(as_program(program), genjax.const(size), genjax.const(axes), genjax.const(total))


@genjax.Pytree.dataclass
class Plate(Combinators, GFI):
    """A program once per lane; made by `plate`."""

    program: GFI
    size: genjax.Const[int | None]
    in_axes: genjax.Const[Any]
    total: genjax.Const[float | None]

    def simulate(self, *args: Any, **kwargs: Any) -> Tr:
        def lane(*args):
            return lane_parts(self.program.simulate(*args, **kwargs))

        return self._trace(self._over_lanes(lane, args), args, kwargs)

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array]:
        def lane(x, *args):
            tr, weight = self.program.generate(x, *args, **kwargs)
            return lane_parts(tr), weight

        parts, weights = self._over_lanes(lane, args, self._choices(x))
        return self._trace(parts, args, kwargs), self._total(weights, args)

    def assess(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Array, Any]:
        def lane(x, *args):
            return self.program.assess(x, *args, **kwargs)

        log_density, retval = self._over_lanes(lane, args, self._choices(x))
        return self._total(log_density, args), retval

    def update(self, tr: Tr, x_: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        def lane(tr, x, *args):
            new, weight, discard = self.program.update(tr, x, *args, **kwargs)
            return lane_parts(new), weight, discard

        parts, weights, discard = self._over_lanes(lane, args, tr._choices, self._choices(x_))
        return self._trace(parts, args, kwargs), self._total(weights, args), discard

    def regenerate(self, tr: Tr, s: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        def lane(tr, *args):
            new, weight, discard = self.program.regenerate(tr, s, *args, **kwargs)
            return lane_parts(new), weight, discard

        parts, weights, discard = self._over_lanes(lane, args, tr._choices)
        return self._trace(parts, args, kwargs), self._total(weights, args), discard

    def merge(self, x: Any, x_: Any, check: Array | None = None) -> tuple[Any, Any]:
        if check is None:
            return jax.vmap(lambda x, x_: self.program.merge(x, x_))(x, x_)
        return jax.vmap(self.program.merge)(x, x_, check)

    def filter(self, x: Any, selection: Any) -> tuple[Any, Any]:
        return jax.vmap(lambda x: self.program.filter(x, selection))(x)

    @property
    def takes_value(self) -> bool:
        return takes_value(self.program)

    def masked_by(self, mask: Mask) -> Plate:
        return dataclasses.replace(self, program=masked_by(self.program, mask))

    def _choices(self, x: Any) -> Any:
        whole = self.takes_value and not isinstance(x, PartlyObserved | Retained | None)
        return jnp.asarray(x) if whole else x

    def _trace(self, parts: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tr:
        traces, retval, scores = parts
        return Tr(self, (args, kwargs), traces, retval, self._total(scores, args))

    def _total(self, per_lane: Array, args: tuple[Any, ...]) -> Array:
        """The sum over lanes, scaled up if they are a subsample."""
        if self.total.value is None:
            return jnp.sum(per_lane)
        if (totals := _totals.get()) is not None:
            totals.append(self.total.value)
        return jnp.sum(per_lane) * (self.total.value / self._num_lanes(args, self._axes(args)))

    def _over_lanes(self, lane: Callable[..., Any], args: tuple[Any, ...], *mapped: Any) -> Any:
        """`lane(*mapped, *args)` for every lane; the leading axis of `mapped` are the lanes."""
        axes = self._axes(args)
        size = self._num_lanes(args, axes)
        for x in mapped:
            check_leading_axis(x, size, "plate")
        # The counter makes sure that something is mapped, as jax.vmap demands.
        run = jax.vmap(lambda _, *rest: lane(*rest), in_axes=(0, *(0 for _ in mapped), *axes))
        return run(jnp.arange(size), *mapped, *args)

    def _axes(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        axes = self.in_axes.value
        if not isinstance(axes, tuple):
            return (axes,) * len(args)
        if len(axes) != len(args):
            raise ShapeError(
                "plate: in_axes must have one entry per positional argument",
                address=current_address(name_of(self)),
                because=f"in_axes is {axes}, and there are {len(args)} arguments",
                fix="give one axis (or None) for each argument",
            )
        return axes

    def _num_lanes(self, args: tuple[Any, ...], axes: tuple[Any, ...]) -> int:
        sizes = {} if self.size.value is None else {"size": self.size.value}
        for i, (axis, arg) in enumerate(zip(axes, args, strict=True)):
            for path, leaf_axis, leaf in _mapped_leaves(axis, arg):
                shape = jnp.shape(leaf)
                if not -len(shape) <= leaf_axis < len(shape):
                    raise ShapeError(
                        f"plate: argument {i}{path} has no axis {leaf_axis} to map over",
                        address=current_address(name_of(self)),
                        because=f"its shape is {shape}, and in_axes is {self.in_axes.value}",
                        fix="give None in in_axes for an argument that is the same for all lanes",
                    )
                sizes[f"argument {i}{path}"] = shape[leaf_axis]
        if not sizes:
            raise ShapeError(
                "plate: the number of lanes is unknown",
                address=current_address(name_of(self)),
                because="no argument is mapped and no size was given",
                fix="plate(program, size=n, in_axes=None)",
            )
        if len(set(sizes.values())) > 1:
            raise ShapeError(
                "plate: the sizes disagree",
                address=current_address(name_of(self)),
                because=", ".join(f"{what} has {n} lanes" for what, n in sizes.items()).replace(
                    "size has", "size says"
                ),
                fix="map arguments of the same length; in_axes=(0, None) shares the second",
            )
        return next(iter(sizes.values()))


def check_leading_axis(choices: Any, size: int, kind: str) -> None:
    """Raise a `ShapeError` unless every array among the choices has `size` entries in front."""
    if isinstance(choices, Trace):
        return
    for address, shape in leading_sizes(choices).items():
        if not shape or shape[0] != size:
            raise ShapeError(
                f"{kind}: a choice has the wrong leading axis",
                address=address_of_choice(address),
                because=f"expected {size} entries in front, found shape {shape}",
                fix="stack the values of all lanes or steps along the first axis",
            )


def _mapped_leaves(axis: Any, arg: Any) -> list[tuple[str, int, Any]]:
    """(path, axis, array) of all mapped arrays of an argument; `axis` may be a tree of axes."""
    axes = jax.tree.map(
        lambda a, sub: None if a is None else jax.tree.map(lambda _: a, sub),
        axis,
        arg,
        is_leaf=lambda a: a is None,
    )
    by_path = dict(jax.tree_util.tree_leaves_with_path(arg))
    return [
        (jax.tree_util.keystr(path), leaf_axis, by_path[path])
        for path, leaf_axis in jax.tree_util.tree_leaves_with_path(axes)
    ]


def lane_parts(tr: Any) -> tuple[Any, Any, Array]:
    """(trace, return value, score) of a lane, as arrays only.

    A trace also holds its arguments, which may be anything (a network with its functions); they
    are dropped where they are no arrays, as `vmap` and `scan` return arrays only.
    """
    return eqx.filter(tr, eqx.is_array_like), tr.get_retval(), tr.get_score()


@converts(genjax.Vmap)
def _from_genjax(vmap: genjax.Vmap) -> Plate:
    return plate(vmap.gen_fn, size=vmap.axis_size.value, in_axes=vmap.in_axes.value)
