"""What a rewrite sees, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ppl.compiler.influence import Analysis, Past, site_of
from ppl.compiler.region import Region
from ppl.compiler.strategies.base import Strategy
from ppl.errors import StrategyError, suggestion
from ppl.lang.staged import Atom, Block, Eqn, Lit, Staged, Var, drop_dead_code, equal_literals


@dataclass(frozen=True)
class Rewritten:
    """One thing that a rewrite did, for people."""

    rewrite: str
    address: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.rewrite}: {self.address}: {self.what}"


class Program:
    """A staged program, to be changed in place, with what rewrites ask about it.

    Attributes:
        strategies: of each choice, as planned so far.
        analysis, region: as if every choice were scored, so that a term of the region is one that
            the objective is linear in, with a coefficient that no draw whatever influences.
    """

    def __init__(self, staged: Staged, strategies: Mapping[Eqn, Strategy]):
        self.staged, self.strategies = staged, strategies
        self.analysis = Analysis(
            staged.block, lambda e: "score", lambda e: len(e.params.get("shape", ()))
        )
        self.region = Region(staged.block, self.analysis)

    def linear_log_densities(self) -> Iterator[tuple[Eqn, Eqn]]:
        """(log-density, choice) for each log-density of a choice's own draw that only enters the
        objective linearly."""
        for eqn in self.linear_terms():
            site = choice_of(eqn.ins[0])
            if site is not None and site in self.strategies:
                yield eqn, site

    def linear_terms(self) -> Iterator[Eqn]:
        """Each log-density that depends on a choice and only enters the objective linearly."""
        for var in self.region.costs:
            eqn = var.eqn
            if eqn is None or eqn.kind != "log_density" or eqn.impl is not None:
                continue
            if not self._used_otherwise(var):
                yield eqn

    def depends(self, atoms: Sequence[Atom], site: Eqn) -> bool:
        """Whether a choice's draw can change one of these values, which stand beside it. In a
        loop: the draw of this step; what the state remembers of earlier ones is given."""
        sources = (s for a in atoms for s in self.analysis.of(a).score)
        return any(site_of(s) is site and not isinstance(s, Past) for s in sources)

    def _used_otherwise(self, var: Var) -> bool:
        """Whether a term of the region is also read where it is not just added up."""

        def uses(block: Block) -> Iterator[Var]:
            for eqn in block.eqns:
                if any(a is var for a in eqn.ins):
                    yield from eqn.outs
                for inner in eqn.blocks:
                    for out, atom in zip(eqn.outs, inner.outs, strict=False):
                        if atom is var:
                            yield out
                    yield from uses(inner)

        return any(v in self.region.plain for v in uses(self.staged.block))


def choice_of(atom: Atom) -> Eqn | None:
    """The choice whose draw this is, or `None`."""
    eqn = None if isinstance(atom, Lit) else atom.eqn
    return eqn if eqn is not None and eqn.kind == "site" else None


def at_itself(log_density: Eqn) -> bool:
    """Whether this is the density that its value was drawn from."""
    site = choice_of(log_density.ins[0])
    if site is None or any(site.params[k] != log_density.params[k] for k in ("family", "names")):
        return False
    return all(map(_same, site.ins, log_density.ins[1:]))


_SHAPES = ("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose", "copy")


def _same(a: Atom, b: Atom) -> bool:
    """Whether two atoms have the same value; sees through changes of shape, which `vmap` makes
    of a choice's parameters and of its density's apart."""
    if isinstance(a, Lit) and isinstance(b, Lit):
        return equal_literals(a, b)
    if isinstance(a, Lit) or isinstance(b, Lit) or a is b or a.eqn is None or b.eqn is None:
        return a is b
    alike = a.eqn.kind == b.eqn.kind in _SHAPES and a.eqn.params == b.eqn.params
    return alike and all(map(_same, a.eqn.ins, b.eqn.ins))


rewrites: dict[str, Callable[[Program], list[Rewritten]]] = {}
"""All rewrites by name, in the order in which they are applied."""


def rewrite[T: Callable[[Program], list[Rewritten]]](function: T) -> T:
    """Add a rewrite to the table, under the function's name (decorator)."""
    rewrites[function.__name__] = function
    return function


def check_names(names: Sequence[str]) -> None:
    """Raise a `StrategyError` if there is no rewrite of one of these names."""
    for name in names:
        if name not in rewrites:
            raise StrategyError(
                f"there is no rewrite {name!r}", because=suggestion(str(name), list(rewrites))
            )


def apply(staged: Staged, names: Sequence[str], strategies: Mapping[Eqn, Strategy]) -> None:
    """Rewrite a program in place; what was done is added to `staged.rewritten`.

    Raises:
        StrategyError: a rewrite cannot be had.
    """
    for name, function in rewrites.items():
        if name in names:
            staged.rewritten += function(Program(staged, strategies))
    drop_dead_code(staged.block)
