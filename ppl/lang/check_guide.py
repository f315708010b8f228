"""Does a guide fit a model? Checked on their trace types, before anything runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from genjax.core import GFI

from ppl import _compat
from ppl.errors import AddressError, ShapeError, SupportError, suggestion
from ppl.lang.observed import Choices, PartlyObserved, check_data, flat_choices
from ppl.lang.supports import is_within
from ppl.lang.trace_type import ChoiceType, TraceType, trace_type


def check_guide(
    model: GFI,
    guide: GFI,
    observed: Choices = None,
    args: tuple[Any, ...] = (),
    guide_args: tuple[Any, ...] | None = None,
) -> tuple[TraceType, TraceType]:
    """Check that the guide makes exactly the choices of the model that are not observed.

    Args:
        observed: nested dictionaries from address to data, or to `masked(values, mask)`, whose
            address the guide has too.
        args: the arguments of both programs.
        guide_args: those of the guide, if they differ.

    Returns:
        the trace types of model and guide.

    Raises:
        DataError: the data holds NaN.
        AddressError: an observed address is not the model's; the guide misses a choice, or has one
            that the model has not, or that is observed.
        ShapeError: the shape or kind (float, int, bool) of data or of a guide's choice is wrong.
        SupportError: the data lies outside of the model's support, or the guide's support does.
    """
    model_type = check_observed(model, observed, args)
    guide_type = trace_type(guide, *(args if guide_args is None else guide_args))
    data = flat_choices(observed)
    fixed = {a for a, v in data.items() if not isinstance(v, PartlyObserved)}
    latent = {a: c for a, c in model_type.items() if a not in fixed}
    for address, choice in guide_type.items():
        _check_known(address, choice, fixed, model_type, latent)
    for address, choice in latent.items():
        if address not in guide_type:
            raise AddressError(
                f"the guide {guide_type.program!r} misses a choice of the model",
                address=address,
                where=choice.where,
                because=f"the model {model_type.program!r} has {_describe(choice)} there, and it "
                "is not observed",
                fix=f'add a choice @ "{address.split("/")[-1]}" to the guide, or observe it',
            )
        _check_match(address, guide_type[address], choice)
    return model_type, guide_type


def check_observed(model: GFI, observed: Choices, args: tuple[Any, ...] = ()) -> TraceType:
    """Check that the data are values that the model's choices can have; returns its trace type.

    Raises:
        DataError, AddressError, ShapeError, SupportError: as `check_guide`, of the data.
    """
    check_data(observed)
    model_type = trace_type(model, *args)
    for address, value in flat_choices(observed).items():
        _check_observed(address, value, model_type)
    return model_type


def _check_observed(address: str, value: Any, model: TraceType) -> None:
    if address not in model:
        raise AddressError(
            "an observed address is not a choice of the model",
            address=address,
            because=f"{suggestion(address, model)} (in {model.program!r})",
            fix="correct the address; those of nested programs are nested dictionaries",
        )
    choice = model[address]
    values = value.values if isinstance(value, PartlyObserved) else value
    if jnp.shape(values) != choice.shape:
        raise ShapeError(
            "the observed data has the wrong shape",
            address=address,
            where=choice.where,
            because=f"expected {choice.shape}, found {jnp.shape(values)}",
            fix="give one value for each that the model draws",
        )
    _check_data_in_support(address, value, choice)


def _check_data_in_support(address: str, value: Any, choice: ChoiceType) -> None:
    partly = isinstance(value, PartlyObserved)
    values, mask = (value.values, value.mask) if partly else (value, True)
    if not all(_compat.is_concrete(x) for x in (values, mask)):
        return
    inside = _inside(choice, jnp.asarray(values))
    if inside is None:
        return
    mask = np.asarray(mask)
    mask = mask.reshape(mask.shape + (1,) * max(inside.ndim - mask.ndim, 0))
    wrong = ~inside & (mask if mask.ndim == inside.ndim else mask.any(-1))
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise SupportError(
            "the observed data lies outside of the support",
            address=address,
            where=choice.where,
            because=f"the support of {choice.distribution} is {choice.support}, and {wrong.sum()} "
            f"of {wrong.size} values are not in it, the first at index {first}: "
            f"{np.asarray(values)[first]}",
            fix="correct the data, or use a distribution that allows these values",
        )


def _inside(choice: ChoiceType, values: Any) -> Any:
    """Which values lie in the support, as far as it is known before the run."""
    if choice.support is not None and choice.can_check:
        return np.asarray(jax.jit(choice.support.check)(values))
    if choice.support is None or choice.support.bounds is None:
        return None
    low, high = choice.support.bounds
    return np.asarray((low is None or values >= low) & (high is None or values <= high))


def _check_known(
    address: str, choice: ChoiceType, fixed: set[str], model: TraceType, latent: dict[str, Any]
) -> None:
    if address in fixed:
        raise AddressError(
            "the guide has a choice that is observed",
            address=address,
            where=choice.where,
            because="an observation fixes the whole value",
            fix="remove it from the guide or from the observations; or, if only some entries are "
            "observed, observe masked(values, mask)",
        )
    if address not in latent:
        raise AddressError(
            "the guide has a choice that the model has not",
            address=address,
            where=choice.where,
            because=f"{suggestion(address, latent)} (latent choices of {model.program!r})",
            fix="correct the address; or, if it is auxiliary, integrate it out: "
            "marginal(guide, keep=...)",
        )


def _check_match(address: str, guide: ChoiceType, model: ChoiceType) -> None:
    if (guide.shape, guide.kind) != (model.shape, model.kind):
        raise ShapeError(
            "the guide's choice is of another type than the model's",
            address=address,
            where=guide.where,
            because=f"the model has {_describe(model)} (at {model.where}), the guide has "
            f"{_describe(guide)}",
            fix="give both the same shape and kind of values",
        )
    if guide.support is None or model.support is None:
        return
    if not is_within(guide.support, model.support):
        raise SupportError(
            "the guide's support is not inside the model's",
            address=address,
            where=guide.where,
            because=f"{guide.distribution} draws from {guide.support}, but the model's "
            f"{model.distribution} (at {model.where}) allows {model.support} only: its "
            "log-density is -inf elsewhere",
            fix=f"choose a distribution on {model.support} for the guide",
        )


def _describe(choice: ChoiceType) -> str:
    size = f"[{', '.join(map(str, choice.shape))}]" if choice.shape else ""
    return f"{choice.distribution} ({choice.kind}{size})"
