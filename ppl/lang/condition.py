"""`condition`: a program with some of its choices observed."""

from __future__ import annotations

import dataclasses
from typing import Any

import genjax
from genjax.core import GFI, Selection, Tr, get_choices, get_fixed_choices, sel
from jaxtyping import Array

from ppl.errors import UnsupportedError
from ppl.lang.gfi import Combinators, takes_value
from ppl.lang.interop import as_program
from ppl.lang.mask import Mask, masked_by
from ppl.lang.observed import (
    Choices,
    PartlyObserved,
    check_data,
    flat_choices,
    merge_observed,
    without_observed,
)
from ppl.lang.scope import address_of_choice


def condition(program: GFI, observed: Choices) -> Conditioned:
    """The program with choices fixed to their observed values.

    Its choices are the rest; its density is the joint density of the rest and the observations, so
    it is not normalised. Data of which only some entries are observed is given as
    `masked(values, mask)`: its address remains a choice, which supplies the other entries.

    Args:
        program: a generative function.
        observed: nested dictionaries from address to value.

    Raises:
        DataError: the data holds NaN.
        AddressError (when run): the program has no such choice.

    >>> condition(model, {"y": ys, "layer": {"z": 0.0}})  # doctest: +SKIP
    """
    check_data(observed)
    return Conditioned(as_program(program), observed)


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class ConditionedTr(Tr):
    """A trace whose choices leave out the observed ones."""

    _gen_fn: Conditioned

    def get_choices(self) -> Any:
        return without_observed(get_choices(self._choices), self._gen_fn.observed)

    def get_fixed_choices(self) -> Any:
        return without_observed(get_fixed_choices(self._choices), self._gen_fn.observed)


@genjax.Pytree.dataclass
class Conditioned(Combinators, GFI):
    """A program with observations; made by `condition`."""

    program: GFI
    observed: Any

    def simulate(self, *args: Any, **kwargs: Any) -> ConditionedTr:
        return self.generate(None, *args, **kwargs)[0]

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[ConditionedTr, Array]:
        given = merge_observed(x, self.observed, partial=True)
        tr, weight = self.program.generate(given, *args, **kwargs)
        return self._trace(tr, args, kwargs), weight

    def assess(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Array, Any]:
        return self.program.assess(merge_observed(x, self.observed), *args, **kwargs)

    def update(self, tr: Tr, x_: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        given = _given(merge_observed(x_, self.observed, partial=True))
        new, weight, discard = self.program.update(tr._choices, given, *args, **kwargs)
        discard = None if discard is None else without_observed(discard, self.observed)
        return self._trace(new, args, kwargs), weight, discard

    def regenerate(self, tr: Tr, s: Selection, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        _refuse_partly_observed(s, self.observed)
        s = s ^ ~_selection(self.observed)  # GenJAX's ^ is the intersection
        new, weight, discard = self.program.regenerate(tr._choices, s, *args, **kwargs)
        return self._trace(new, args, kwargs), weight, discard

    def merge(self, x: Any, x_: Any, check: Array | None = None) -> tuple[Any, Any]:
        return self.program.merge(x, x_, check)

    def filter(self, x: Any, selection: Selection) -> tuple[Any, Any]:
        return self.program.filter(x, selection)

    @property
    def takes_value(self) -> bool:
        return takes_value(self.program) and isinstance(self.observed, PartlyObserved)

    def masked_by(self, mask: Mask) -> Conditioned:
        return dataclasses.replace(self, program=masked_by(self.program, mask))

    def _trace(self, tr: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ConditionedTr:
        return ConditionedTr(self, (args, kwargs), tr, tr.get_retval(), tr.get_score())


def _given(choices: Choices) -> Choices:
    """Nested choices without data that no choice completes: an update keeps the old values."""
    if isinstance(choices, dict):
        return {a: v for a, c in choices.items() if (v := _given(c)) is not None}
    return None if isinstance(choices, PartlyObserved) else choices


def _selection(observed: Choices) -> Selection:
    """The addresses that are observed in full."""
    if isinstance(observed, dict):
        return sel({address: _selection(value) for address, value in observed.items()})
    return sel() if isinstance(observed, PartlyObserved) else sel(())


def _refuse_partly_observed(s: Selection, observed: Choices) -> None:
    for address, value in flat_choices(observed).items():
        if not isinstance(value, PartlyObserved):
            continue
        selection = s
        for part in filter(None, address.split("/")):
            selection = selection.match(part)[1]
        if () in selection:
            raise UnsupportedError(
                "a choice that is observed in part cannot be regenerated",
                address=address_of_choice(address),
                because="the proposal would redraw the observed entries too",
                fix="leave it out of the selection, or move it by update (as HMC does)",
            )
