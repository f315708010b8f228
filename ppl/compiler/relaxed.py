"""Relaxed values: where a value between two discrete ones can stand in for them.

A relaxed choice (`rebar`) has a float for a value, whatever type its distribution says. So the
program may move the value about and convert it to a float, which it then already is; anything else
that is made for booleans or integers is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax.numpy as jnp

from ppl.errors import StrategyError
from ppl.lang.staged import Block, Eqn, Staged, Var

MOVES = (
    "broadcast_in_dim reshape transpose squeeze expand_dims slice rev copy gather dynamic_slice "
    "optimization_barrier"
).split()
"""Operations that take floats as well, with the value as their first operand."""


def relaxed_values(staged: Staged, sites: Iterable[Eqn]) -> set[Var]:
    """The values of relaxed choices, as they are or moved about.

    Raises:
        StrategyError: the program uses one in a way that no float can stand for.
    """
    uses: dict[Var, list[tuple[Eqn, Var | None]]] = {}
    found: set[Var] = set()
    for site in sites:
        if not uses:
            for operand, eqn, result in _uses(staged.block):
                uses.setdefault(operand, []).append((eqn, result))
        todo = [site.outs[0]]
        while todo:
            var = todo.pop()
            if var in found:
                continue
            found.add(var)
            for eqn, result in uses.get(var, ()):
                if result is not None:
                    todo.append(result)
                elif eqn.kind in MOVES and var is eqn.ins[0]:
                    todo += eqn.outs
                elif not _takes_floats(eqn, var):
                    raise _refusal(site, eqn)
    return found


def _takes_floats(eqn: Eqn, var: Var) -> bool:
    if eqn.kind == "log_density":
        return var is eqn.ins[0] and eqn.params["family"].relaxation is not None
    return eqn.kind == "convert_element_type" and jnp.issubdtype(
        eqn.outs[0].aval.dtype, jnp.inexact
    )


def _uses(block: Block) -> Iterator[tuple[Var, Eqn, Var | None]]:
    """(operand, equation, what it is called there), the last for what passes as it is."""
    for eqn in block.eqns:
        if eqn.kind == "scan":
            yield from _scan_uses(eqn)
        else:
            yield from ((a, eqn, None) for a in eqn.ins if isinstance(a, Var))
            for inner in eqn.blocks:
                results = eqn.outs if eqn.kind == "checkpoint" else [None] * len(eqn.outs)
                for atom, result in zip(inner.outs, results, strict=True):
                    if isinstance(atom, Var):
                        yield atom, eqn, result
        for inner in eqn.blocks:
            yield from _uses(inner)


def _scan_uses(eqn: Eqn) -> Iterator[tuple[Var, Eqn, Var | None]]:
    body, n = eqn.blocks[0], eqn.params["num_carry"]
    pairs = [*zip(eqn.ins, body.ins, strict=True), *zip(body.outs, eqn.outs, strict=True)]
    carries = {*body.ins[:n], *eqn.outs[:n]}
    for atom, result in pairs:
        if isinstance(atom, Var):
            yield atom, eqn, None if result in carries else result


def _refusal(site: Eqn, use: Eqn) -> StrategyError:
    name, address = site.params["family"].name, site.params["address"]
    what = "carries it as it is" if use.kind in ("scan", "cond") else "needs it as it is"
    return StrategyError(
        f"this {name} cannot be relaxed",
        address=address,
        where=site.where,
        because=f"'{use.kind}' at {use.where} {what}, and a number between 0 and 1 cannot stand in",
        fix="convert the value to a float first, z = z.astype(float), and write 'where' as "
        f"arithmetic, z * a + (1 - z) * b; or strategies={{'{address}': 'disarm'}}",
    )
