"""Trace types: what choices a program makes, known without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from genjax.core import GFI

from ppl import _compat
from ppl.lang.gfi import name_of
from ppl.lang.interop import as_program
from ppl.lang.observed import flat_choices
from ppl.lang.staged import Eqn, Lit, stage
from ppl.lang.supports import Support, union


@dataclass(frozen=True)
class ChoiceType:
    """What is known of one choice.

    Attributes:
        shape: with the axes of all plates and loops around it.
        support: `None` where it is unknown (a distribution that is not ours).
        distribution: the distribution's name; several, with `/`, in the branches of a `cond`.
        where: the user's source line.
        can_check: whether the support's test may be asked: nothing in it depends on the run.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    support: Support | None
    distribution: str
    where: str | None
    can_check: bool = False

    @property
    def kind(self) -> str:
        """`"float"`, `"int"` or `"bool"`."""
        return {"f": "float", "V": "float", "b": "bool"}.get(self.dtype.kind, "int")


@dataclass(frozen=True)
class TraceType(Mapping[str, ChoiceType]):
    """The choices of a program: full address, `layer/z`, -> shape, dtype, support."""

    program: str
    choices: Mapping[str, ChoiceType]

    def __getitem__(self, address: str) -> ChoiceType:
        return self.choices[address]

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def __str__(self) -> str:
        rows = [("address", "shape", "dtype", "support", "distribution")]
        for address, c in self.choices.items():
            shape = "x".join(map(str, c.shape)) or "-"
            support = "unknown" if c.support is None else c.support.name
            rows.append((address, shape, str(c.dtype), support, c.distribution))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([f"trace type of {self.program}", *(f"  {line}" for line in lines)])


def trace_type(program: GFI, *args: Any, **kwargs: Any) -> TraceType:
    """The trace type of a program.

    Args:
        program: a generative function.
        args: its arguments; of arrays only shape and dtype matter, and `jax.ShapeDtypeStruct`s do.

    Raises:
        UnsupportedError: a random choice stands where it cannot be followed (a `while_loop`).

    >>> print(trace_type(model, xs))  # doctest: +SKIP
    """
    program = as_program(program)
    arrays, static = eqx.partition((args, kwargs), _is_abstract)

    def choices(arrays):
        args, kwargs = eqx.combine(arrays, static, is_leaf=_is_abstract)
        return program.simulate(*args, **kwargs).get_choices()

    staged = stage(choices, arrays)
    avals = jax.tree.unflatten(staged.out_tree, [atom.aval for atom in staged.block.outs])
    sites: dict[str, list[Eqn]] = {}
    for eqn in staged.sites:
        if eqn.kind == "site":
            sites.setdefault(eqn.params["address"], []).append(eqn)
    name = name_of(program)
    types = {
        address: _choice_type(aval, sites.get(address or name, []))
        for address, aval in flat_choices(avals).items()
    }
    order = [*sites, *types, name]  # the program's, as far as it is known
    return TraceType(name, dict(sorted(types.items(), key=lambda at: order.index(at[0] or name))))


def _is_abstract(x: Any) -> bool:
    return eqx.is_array(x) or isinstance(x, np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _choice_type(aval: Any, sites: list[Eqn]) -> ChoiceType:
    shape, dtype = tuple(aval.shape), np.dtype(aval.dtype)
    if not sites:
        return ChoiceType(shape, dtype, support=None, distribution="unknown", where=None)
    names = dict.fromkeys(eqn.params["family"].name for eqn in sites)
    supports, known_now = zip(*map(_support_at, sites), strict=True)
    return ChoiceType(
        shape,
        dtype,
        support=union(supports),
        distribution="/".join(names),
        where=_compat.source_line(sites[0].params["source"]),
        can_check=all(known_now),
    )


def _support_at(eqn: Eqn) -> tuple[Support, bool]:
    """The support of a choice, and whether it is known without the run."""
    family = eqn.params["family"]
    if isinstance(family.support, Support):
        return family.support, True
    known, unknown = {}, {}
    for name, atom in zip(eqn.params["names"], eqn.ins, strict=True):
        if isinstance(atom, Lit) and _compat.is_concrete(atom.val):
            known[name] = np.asarray(atom.val)
        else:
            unknown[name] = jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)
    if not unknown:
        return family.support_of(known), True
    found: list[Support] = []
    # Traced values stand in for those not known: a support computes with them but does not look
    # at them. Only what is static in the support may be used afterwards.
    jax.eval_shape(lambda values: found.append(family.support_of({**known, **values})), unknown)
    return found[0], False
