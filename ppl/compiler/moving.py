"""Which values a derivative with respect to the program's parameters flows through."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from ppl.lang.staged import Block, Eqn, Lit, Staged, Var


def moving_values(staged: Staged, moves: Callable[[Eqn], bool]) -> set[Var]:
    """The values that may move with the parameters; a superset.

    Args:
        moves: whether a choice's value moves with the choice's parameters.
    """
    found = {v for decl in staged.params.values() for v in decl.leaves.values()}
    _Walk(found, moves).block(staged.block)
    return found


class _Walk:
    def __init__(self, found: set[Var], moves: Callable[[Eqn], bool]):
        self.found, self.moves = found, moves

    def block(self, block: Block) -> None:
        for eqn in block.eqns:
            if eqn.kind == "scan":
                self.scan(eqn)
            else:
                for inner in eqn.blocks:
                    self.block(inner)
            if eqn.kind != "stop_gradient" and (eqn.kind != "site" or self.moves(eqn)):
                self.found.update(v for i, v in enumerate(eqn.outs) if self.output(eqn, i))

    def output(self, eqn: Eqn, i: int) -> bool:
        real = jnp.issubdtype(eqn.outs[i].aval.dtype, jnp.inexact)
        reads = [*eqn.ins, *(b.outs[i] for b in eqn.blocks)]
        return real and any(a in self.found for a in reads if not isinstance(a, Lit))

    def scan(self, eqn: Eqn) -> None:
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        self.found.update(v for v, a in zip(body.ins, eqn.ins, strict=True) if a in self.found)
        while True:
            self.block(body)
            carried = zip(body.ins[:n], body.outs[:n], strict=True)
            back = {v for v, a in carried if a in self.found}
            if back <= self.found:
                return
            self.found.update(back)
