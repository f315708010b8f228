"""`cond` and `switch`: one of several programs, chosen by a value."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any

import genjax
import jax
import jax.numpy as jnp
from genjax.core import GFI, Tr, Trace
from jaxtyping import Array, ArrayLike

from ppl.errors import AddressError, ShapeError, suggestion
from ppl.lang.gfi import Combinators, choice_shapes, takes_value
from ppl.lang.interop import as_program, converts
from ppl.lang.mask import Mask, masked_by
from ppl.lang.observed import flat_choices
from ppl.lang.scope import address_of_choice, current_address


def cond(then: GFI, otherwise: GFI) -> Branch:
    """`cond(then, otherwise)(flag, *args)`: `then(*args)` where `flag` is true, else the other.

    The choices are those of both branches together. An address in both must have the same shape
    and dtype, and holds the taken branch's value; one that is only in the branch not taken is
    present (drawn as usual) but adds no log-density. The log-density is the taken branch's.

    Both branches are evaluated. In the one not taken, values come from its supports, not from the
    other branch, and its log-densities are masked one by one, so that its gradient is exactly 0
    and not NaN, unless its own arithmetic is not finite at every value.

    Raises:
        AddressError: one branch is a distribution, the other a program with named choices; or
            (when run) the given choices exceed or miss the branches' addresses.
        ShapeError (when run): the branches disagree about the shape of a choice or of their
            results, or the flag is not a single boolean.

    >>> cond(occupied, empty)(flag, room) @ "visits"  # doctest: +SKIP
    """
    return _branch((then, otherwise), by_flag=True)


def switch(*programs: GFI) -> Branch:
    """`switch(a, b, c)(index, *args)`: the program number `index`, as `cond` does for two.

    An index out of range is clamped, as in `jax.lax.switch`.
    """
    if not programs:
        raise ValueError("switch needs at least one program")
    return _branch(programs, by_flag=False)


def _branch(programs: tuple[GFI, ...], *, by_flag: bool) -> Branch:
    programs = tuple(as_program(p) for p in programs)
    if len({takes_value(p) for p in programs}) > 1:
        raise AddressError(
            "the branches have different kinds of choices",
            because="some are distributions, some are programs with named choices",
            fix="wrap the distribution in a program that gives its choice a name",
        )
    return Branch(programs, genjax.const(by_flag))


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class BranchTr(Tr):
    """The trace of a branch: as a whole, and of every program."""

    traces: tuple[Any, ...]


@genjax.Pytree.dataclass
class Branch(Combinators, GFI):
    """One of several programs; made by `cond` and `switch`."""

    programs: tuple[GFI, ...]
    by_flag: genjax.Const[bool]

    def simulate(self, index: ArrayLike, *args: Any, **kwargs: Any) -> BranchTr:
        taken = self._taken(index)
        traces = [p.simulate(*args, **kwargs) for p in self._under(taken)]
        return self._trace(taken, traces, (index, *args), kwargs)

    def generate(
        self, x: Any, index: ArrayLike, *args: Any, **kwargs: Any
    ) -> tuple[BranchTr, Array]:
        taken, given = self._taken(index), self._split(x, args, kwargs)
        runs = [
            p.generate(g, *args, **kwargs) for p, g in zip(self._under(taken), given, strict=True)
        ]
        traces, weights = zip(*runs, strict=True)
        return self._trace(taken, traces, (index, *args), kwargs), _sum(weights)

    def assess(self, x: Any, index: ArrayLike, *args: Any, **kwargs: Any) -> tuple[Array, Any]:
        taken, given = self._taken(index), self._split(x, args, kwargs)
        runs = [
            p.assess(g, *args, **kwargs) for p, g in zip(self._under(taken), given, strict=True)
        ]
        log_densities, retvals = zip(*runs, strict=True)
        return _sum(log_densities), self._select_result(taken, retvals)

    def update(
        self, tr: BranchTr, x_: Any, index: ArrayLike, *args: Any, **kwargs: Any
    ) -> tuple[BranchTr, Array, Any]:
        # Every branch gets the visible values, not those that it drew itself while not taken:
        # another branch may be taken now, and the choices must not change unasked.
        taken, old = self._taken(index), tr.get_choices()
        given = self._split(_replace(old, x_), args, kwargs)
        runs = [
            p.update(t, g, *args, **kwargs)
            for p, t, g in zip(self._under(taken), tr.traces, given, strict=True)
        ]
        traces, weights, _ = zip(*runs, strict=True)
        return self._trace(taken, traces, (index, *args), kwargs), _sum(weights), old

    def regenerate(
        self, tr: BranchTr, s: Any, index: ArrayLike, *args: Any, **kwargs: Any
    ) -> tuple[BranchTr, Array, Any]:
        # First the visible values into every branch, as in `update`.
        taken, visible = self._taken(index), tr.get_choices()
        runs = [
            p.regenerate(_with_choices(t, visible), s, *args, **kwargs)
            for p, t in zip(self._under(taken), tr.traces, strict=True)
        ]
        traces, weights, discards = zip(*runs, strict=True)
        new = self._trace(taken, traces, (index, *args), kwargs)
        return new, _sum(weights), reduce(_first, discards)

    def merge(self, x: Any, x_: Any, check: Array | None = None) -> tuple[Any, Any]:
        return self.programs[0].merge(x, x_, check)

    def filter(self, x: Any, selection: Any) -> tuple[Any, Any]:
        return self.programs[0].filter(x, selection)

    @property
    def name(self) -> str:
        return "cond" if self.by_flag.value else "switch"

    @property
    def takes_value(self) -> bool:
        return takes_value(self.programs[0])

    def masked_by(self, mask: Mask) -> Branch:
        return dataclasses.replace(self, programs=tuple(masked_by(p, mask) for p in self.programs))

    def _taken(self, index: ArrayLike) -> list[Array]:
        """For every program, whether it is the one."""
        index = jnp.asarray(index)
        if index.ndim:
            raise ShapeError(
                f"{self.name}: the {'flag' if self.by_flag.value else 'index'} must be a scalar",
                address=current_address(self.name),
                because=f"its shape is {index.shape}",
                fix="put it into a plate: plate(cond(a, b))(flags, xs)",
            )
        if self.by_flag.value:
            flag = index.astype(bool)
            return [flag, ~flag]
        index = jnp.clip(index, 0, len(self.programs) - 1)
        return [index == i for i in range(len(self.programs))]

    def _under(self, taken: list[Array]) -> list[GFI]:
        """Every program, adding its log-density only if it is taken."""
        return [
            masked_by(p, Mask(flag, flag)) for p, flag in zip(self.programs, taken, strict=True)
        ]

    def _split(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Every program's part of the given choices."""
        if self.takes_value or x is None:
            return [x] * len(self.programs)
        shapes = [choice_shapes(p, args, kwargs) for p in self.programs]
        known = {address for s in shapes for address in flat_choices(s)}
        prefixes = {"/".join(a.split("/")[:i]) for a in known for i in range(1, a.count("/") + 2)}
        if unknown := sorted(set(flat_choices(x)) - prefixes):
            raise AddressError(
                f"no branch has a choice {unknown[0]!r}",
                address=address_of_choice(unknown[0]),
                because=suggestion(unknown[0], known),
                fix="remove the value, or correct its address",
            )
        return [_restrict(x, s) for s in shapes]

    def _trace(
        self, taken: list[Array], traces: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BranchTr:
        choices = self._select_choices(taken, [t.get_choices() for t in traces], current_address())
        retval = self._select_result(taken, [t.get_retval() for t in traces])
        score = _sum(t.get_score() for t in traces)
        return BranchTr(self, (args, kwargs), choices, retval, score, tuple(traces))

    def _select_choices(self, taken: list[Array], choices: list[Any], path: str) -> Any:
        """The choices of all programs together, with the values of the one taken."""
        if not all(isinstance(c, dict) for c in choices):
            return self._select(taken, choices, path)
        merged = {}
        for address in dict.fromkeys(a for c in choices for a in c):
            having = [i for i, c in enumerate(choices) if address in c]
            merged[address] = self._select_choices(
                [taken[i] for i in having],
                [choices[i][address] for i in having],
                "/".join(filter(None, [path, address])),
            )
        return merged

    def _select(self, taken: Any, values: Any, address: str) -> Array:
        """The taken program's value; the last one's if none of those that have it is taken."""
        kinds = {
            "a dictionary" if isinstance(v, dict) else f"{jnp.result_type(v)}{list(jnp.shape(v))}"
            for v in values
        }
        if len(kinds) > 1:
            raise ShapeError(
                f"{self.name}: the branches disagree about a choice",
                address=address,
                because="it is " + " in one, and ".join(sorted(kinds)) + " in another",
                fix="give the choices different addresses, or the same shape and dtype",
            )
        *first, last = zip(taken, values, strict=True)
        return reduce(lambda rest, own: jnp.where(own[0], own[1], rest), first, last[1])

    def _select_result(self, taken: list[Array], results: Any) -> Any:
        trees = {jax.tree.structure(r) for r in results}
        shapes = {tuple(jnp.shape(x) for x in jax.tree.leaves(r)) for r in results}
        if len(trees) > 1 or len(shapes) > 1:
            raise ShapeError(
                f"{self.name}: the branches return different things",
                address=current_address(self.name),
                because=" and ".join(map(str, trees if len(trees) > 1 else shapes)),
                fix="return values of the same structure and shapes from all branches",
            )
        *first, last = zip(taken, results, strict=True)
        return reduce(
            lambda rest, own: jax.tree.map(lambda a, b: jnp.where(own[0], a, b), own[1], rest),
            first,
            last[1],
        )


def _restrict(x: Any, shapes: Any) -> Any:
    """The part of nested choices whose addresses `shapes` has."""
    if not (isinstance(x, dict) and isinstance(shapes, dict)):
        return x
    return {a: _restrict(x[a], s) for a, s in shapes.items() if a in x}


def _replace(old: Any, new: Any) -> Any:
    """Nested choices with some replaced."""
    if new is None:
        return old
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**new, **{a: _replace(v, new.get(a)) for a, v in old.items()}}


def _first(a: Any, b: Any) -> Any:
    """All entries of two nested choices, the first one's where both have one."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: _first(a.get(k), b.get(k)) for k in {**a, **b}}
    return b if a is None else a


def _with_choices(tr: Any, choices: Any) -> Any:
    """A trace with some of its values replaced; what was computed from them stays."""
    if isinstance(tr, BranchTr):
        traces = tuple(_with_choices(t, choices) for t in tr.traces)
        return dataclasses.replace(tr, _choices=_replace(tr._choices, choices), traces=traces)
    inner = tr._choices
    if isinstance(inner, Trace):
        inner = _with_choices(inner, choices)
    elif isinstance(inner, dict):
        inner = {
            a: _with_choices(t, choices.get(a, {}))
            if isinstance(t, Trace)
            else _replace(t, choices.get(a))
            for a, t in inner.items()
        }
    elif not isinstance(choices, dict):
        inner = choices
    return dataclasses.replace(tr, _choices=inner)


def _sum(terms: Iterable[Array]) -> Array:
    return reduce(operator.add, terms)


@converts(genjax.Cond)
def _from_genjax(branch: genjax.Cond) -> Branch:
    return cond(branch.callee, branch.callee_)
