"""Smoothness: a reparameterised draw must not decide anything discontinuous.

The derivative along the path of a draw misses every jump: E[1(x > 0)] would get gradient 0. This
pass follows the values that carry such a derivative and reports the operations that jump, unless
they stand in a library function that is known to be continuous (`relu`, `logsumexp`, ...), in a
function with its own derivative rule, or in one that the user vouched for (`assume_continuous`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from ppl import _compat
from ppl.compiler.region import Region
from ppl.lang.staged import Atom, Block, Eqn, Lit, Staged, Var

JUMPS = frozenset(
    "gt lt ge le floor ceil round sign rem argmax argmin reduce_argmax while "
    "nextafter shift_left bitcast_convert_type".split()
)
"""Operations that jump. `eq` and `ne` do not count: a continuous draw meets them with
probability zero."""

INDEX_MAKERS = frozenset({"sort", "top_k", "convert_element_type", "custom_jvp_call"})
"""Operations whose results jump where they are integers or booleans."""

TRUSTED_FILES = (
    "/jax/_src/nn/",
    "/jax/_src/ops/special.py",
    "/jax/_src/scipy/",
    "/jax/_src/numpy/linalg.py",
    "/jax/_src/lax/linalg.py",
    "/tensorflow_probability/",
    "/equinox/nn/",
    "/flowjax/",
    "/ppl/lang/distributions/",
)
"""Library code whose functions are continuous although they branch inside."""


@dataclass(frozen=True)
class Kink:
    """A discontinuous operation on a reparameterised draw."""

    site: Eqn
    operation: str
    where: str


def find_kinks(staged: Staged, sites: Sequence[Eqn], region: Region) -> list[Kink]:
    """All discontinuous uses of the given draws that the objective depends on."""
    if not sites:
        return []
    walk = _Walk(frozenset(sites), region)
    walk.block(staged.block)
    return list(walk.kinks)


class _Walk:
    def __init__(self, sites: frozenset[Eqn], region: Region):
        self.sites, self.region = sites, region
        self.draws: dict[Var, frozenset[Eqn]] = {}
        self.kinks: dict[Kink, None] = {}

    def of(self, atom: Atom) -> frozenset[Eqn]:
        return frozenset() if isinstance(atom, Lit) else self.draws.get(atom, frozenset())

    def block(self, block: Block) -> None:
        for eqn in block.eqns:
            carried = frozenset().union(*map(self.of, eqn.ins)) if eqn.ins else frozenset()
            if eqn.kind == "scan":
                self._scan(eqn)
                continue
            for inner in eqn.blocks:
                self.block(inner)
            for i, var in enumerate(eqn.outs):
                seen = carried.union(*(self.of(b.outs[i]) for b in eqn.blocks))
                if eqn in self.sites:
                    seen |= {eqn}
                self._check(eqn, var, carried)
                smooth = jnp.issubdtype(var.aval.dtype, jnp.inexact) and eqn.kind != "stop_gradient"
                self.draws[var] = seen if smooth else frozenset()

    def _scan(self, eqn: Eqn) -> None:
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        entry = [self.of(a) for a in eqn.ins]
        while True:
            self.draws.update(zip(body.ins, entry, strict=True))
            self.block(body)
            after = [e | self.of(a) for e, a in zip(entry[:n], body.outs[:n], strict=True)]
            if after == entry[:n]:
                break
            entry[:n] = after
        self.draws.update(zip(eqn.outs, map(self.of, body.outs), strict=True))

    def _check(self, eqn: Eqn, var: Var, carried: frozenset[Eqn]) -> None:
        if not carried or var not in self.region.plain:
            return
        discrete = not jnp.issubdtype(var.aval.dtype, jnp.inexact)
        if eqn.kind in JUMPS or (eqn.kind in INDEX_MAKERS and discrete):
            if not (eqn.trusted or _in_trusted_code(eqn)):
                self.kinks.update((Kink(s, eqn.kind, eqn.where), None) for s in carried)


def _in_trusted_code(eqn: Eqn) -> bool:
    """Whether library code that we trust made the equation."""
    for path, _ in _compat.library_frames(eqn.source):
        if any(part in path for part in TRUSTED_FILES):
            return True
    return False
