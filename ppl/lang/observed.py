"""Observed values, whole or in part, and how they join the choices of a guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ppl import _compat
from ppl.errors import AddressError, DataError, ShapeError
from ppl.lang.scope import address_of_choice, current_address

Choices = Any
"""Nested dictionaries from address to value; a distribution's own choices are just its value."""


class PartlyObserved(eqx.Module):
    """Values of which only some are observed; made by `masked`."""

    values: Array
    mask: Array
    rest: Array | None = None
    """the other entries, if they count as drawn but are known (see `Retained`)"""

    def complete(self, draw: Callable[[], Array]) -> Array:
        """The observed entries; the rest is drawn, unless it is known."""
        return self.fill(draw() if self.rest is None else self.rest)

    def fill(self, given: ArrayLike) -> Array:
        """The observed entries, and `given` for the rest."""
        given = jnp.asarray(given)
        if given.shape != jnp.shape(self.values):
            raise ShapeError(
                "the values for the unobserved entries have the wrong shape",
                because=f"expected {jnp.shape(self.values)}, found {given.shape}",
                fix="give an array of the data's shape; its observed entries are ignored",
            )
        values = jnp.asarray(self.values).astype(given.dtype)
        return jnp.where(self.mask_of_rank(given.ndim), values, given)

    def mask_of_rank(self, ndim: int) -> Array:
        """The mask with its axes lined up with the leading axes of the values."""
        mask = jnp.asarray(self.mask)
        return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))

    def observed_lanes(self, ndim: int) -> Array:
        """The mask over `ndim` batch axes: which lanes of a distribution are observed.

        Raises:
            ShapeError: the mask splits a vector of a vector distribution.
        """
        mask = jnp.asarray(self.mask)
        if mask.ndim > ndim:
            raise ShapeError(
                "a vector is observed in part",
                address=current_address(),
                because=f"the mask has shape {mask.shape}, but a choice there is one vector per "
                "lane, and its other entries cannot be drawn given the observed ones",
                fix="give one flag per vector, or write the entries as separate choices",
            )
        return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


class Retained(eqx.Module):
    """A value for `generate` that stands in for the draw: it does not weigh, as a draw would not.

    Conditional importance sampling runs a program again with an earlier run's choices.
    """

    value: Array


def retained(choices: Choices) -> Choices:
    """The choices, each to stand in for its draw."""
    return jax.tree.map(Retained, choices)


def given_values(choices: Choices) -> tuple[Choices, int]:
    """The choices as plain values, and how many of them stand in for draws."""
    flat = jax.tree.leaves(choices, is_leaf=_is_retained)
    values = jax.tree.map(
        lambda x: x.value if _is_retained(x) else x, choices, is_leaf=_is_retained
    )
    return values, sum(map(_is_retained, flat))


def _is_retained(x: Any) -> bool:
    return isinstance(x, Retained)


def masked(values: ArrayLike, mask: ArrayLike) -> PartlyObserved:
    """Data of which only the entries where `mask` is true are observed.

    The entries elsewhere (NaN, usually) are never looked at: they are latent, and the guide
    supplies them at the same address.

    Args:
        values: the data.
        mask: booleans in the shape of the values, or of their leading axes.

    Raises:
        ShapeError: the mask is not boolean, or does not fit the values.

    >>> heights = np.array([1.7, np.nan, 1.6])
    >>> masked(heights, ~np.isnan(heights)).mask
    array([ True, False,  True])
    """
    shape, found = jnp.shape(values), jnp.shape(mask)
    if jnp.result_type(mask) != jnp.dtype(bool) or found != shape[: len(found)]:
        raise ShapeError(
            "masked: the mask does not fit the values",
            because=f"expected booleans of shape {shape} (or of its leading axes), found "
            f"{jnp.result_type(mask)} of shape {found}",
            fix="masked(values, ~numpy.isnan(values))",
        )
    return PartlyObserved(values, mask)  # type: ignore[arg-type]


def merge_choices(choices: Choices, observed: Choices) -> Choices:
    """The choices of a guide together with the observations, for `density(model)`.

    Like `choices | observed`, but deep, checked, and with `masked` data: there the choice supplies
    the unobserved entries only.

    Raises:
        AddressError: an address is both chosen and observed, or an address that is observed in
            part has no choice.
        ShapeError: a choice has not the shape of the data that it completes.
        DataError: the data holds NaN.

    >>> merge_choices({"z": 1.0}, {"layer": {"y": 2.0}})
    {'z': 1.0, 'layer': {'y': 2.0}}
    """
    check_data(observed)
    return merge_observed(choices, observed)


def merge_observed(choices: Choices, observed: Choices, *, partial: bool = False) -> Choices:
    """`merge_choices` without the check of the data.

    Args:
        partial: leave data that is observed in part as it is where no choice completes it.
    """
    return _merge(choices, observed, current_address(), partial)


def _merge(given: Any, observed: Any, path: str, partial: bool) -> Any:
    absent = _is_empty(given)
    if isinstance(observed, dict):
        inner = {} if absent else given
        if not isinstance(inner, dict):
            raise AddressError(
                "a value was given where the observations have a dictionary",
                address=path,
                because=f"the observed addresses there are {sorted(observed)}",
                fix="nest the choices as the program nests them",
            )
        merged = {a: _merge(inner.get(a), o, _join(path, a), partial) for a, o in observed.items()}
        return {**inner, **merged}
    if not isinstance(observed, PartlyObserved):
        if not absent:
            raise AddressError(
                "the choice is both observed and given",
                address=path,
                because="an observation fixes the whole value",
                fix="remove the choice from the guide; or, if only some entries are observed, "
                "observe masked(values, mask)",
            )
        return np.asarray(observed) if isinstance(observed, list | tuple) else observed
    if absent and not partial:
        raise AddressError(
            "no value was given for the unobserved entries",
            address=path,
            because="the data there is observed in part: the rest is latent",
            fix="let the guide choose a value of the data's shape at this address",
        )
    if isinstance(given, Retained):
        return PartlyObserved(observed.values, observed.mask, given.value)
    return observed if absent else observed.fill(given)


def merge_updated(old: Choices, new: Choices) -> Choices:
    """Nested choices with those of `new` in place of, or beside, the old ones."""
    if _is_empty(new):
        return old
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {a: merge_updated(old.get(a), new.get(a)) for a in {**old, **new}}


def without_observed(choices: Choices, observed: Choices) -> Choices:
    """The choices that are not observed; those observed in part stay."""
    if not isinstance(observed, dict):
        return choices if isinstance(observed, PartlyObserved) or observed is None else {}
    if not isinstance(choices, dict):
        return choices
    rest = {a: without_observed(c, observed.get(a)) for a, c in choices.items()}
    return {a: c for a, c in rest.items() if not _is_empty(c)}


def check_data(observed: Choices) -> None:
    """Refuse data with NaN (outside of the entries that are masked out).

    Data whose values are not known yet (traced) passes.

    Raises:
        DataError: names the address, how many there are, and the first one's index.
    """
    for address, value in flat_choices(observed).items():
        whole = not isinstance(value, PartlyObserved)
        values, mask = (value, True) if whole else (value.values, value.mask)
        if not (_compat.is_concrete(values) and _compat.is_concrete(mask)):
            continue
        values = np.asarray(values)
        if not np.issubdtype(values.dtype, np.inexact):
            continue
        mask = np.asarray(mask)
        missing = np.isnan(values) & mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
        if missing.any():
            first = tuple(int(i) for i in np.argwhere(missing)[0])
            raise DataError(
                "the observed data holds NaN",
                address=address_of_choice(address),
                because=f"{int(missing.sum())} of {missing.size} entries are NaN, the first at "
                f"index {first}",
                fix="observe masked(values, ~numpy.isnan(values)), and let the guide choose the "
                "missing entries; or, if the program masks them itself (normal.mask(present)), "
                "fill them with numpy.nan_to_num"
                if whole
                else "leave those entries out of the mask",
            )


def flat_choices(choices: Choices) -> dict[str, Any]:
    """Nested choices as one dictionary from full address, `layer/z`, to value."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for address, inner in value.items():
                walk(inner, _join(path, address))
        elif value is not None:
            flat[path] = value

    walk(choices, "")
    return flat


def leading_sizes(choices: Choices) -> dict[str, tuple[int, ...]]:
    """The shape of every array in nested choices, by full address."""
    return {
        address: jnp.shape(leaf)
        for address, value in flat_choices(choices).items()
        for leaf in jax.tree.leaves(value)
    }


def _is_empty(choices: Choices) -> bool:
    return choices is None or (isinstance(choices, dict) and not choices)


def _join(path: str, address: Any) -> str:
    return "/".join(filter(None, [path, str(address)]))
