"""Smoothness: a random value that moves with the parameters must not decide anything that jumps.

The derivative along the path of a draw misses every jump: E[1(x > 0)] would get gradient 0 for a
reparameterised x, and E[1(x > theta)] for any x. This pass follows the values that carry such a
derivative and reports the operations that jump, unless they stand in a library function that is
known to be continuous (`relu`, `logsumexp`, ...), in a function with its own derivative rule, or
in one that the user vouched for (`assume_continuous`). For the same reason a score choice's
support must not move with the parameters: its log-density jumps at the border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl import _compat
from ppl.compiler.region import Region
from ppl.compiler.strategies.base import Strategy, follows_path, relaxes, strategies
from ppl.lang.staged import Atom, Block, Eqn, Lit, Staged, Var, inlined, stage
from ppl.lang.supports import Support

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

TRUSTED_FUNCTIONS = frozenset({"interp", "_interp", "sinc"})
"""Such functions of `jax.numpy`, where others do jump."""


@dataclass(frozen=True)
class Kink:
    """A discontinuous operation on a random value that moves with the parameters.

    Attributes:
        site: the choice whose draw carries the derivative; or, if a parameter meets a draw
            directly, as in `x > theta`, that draw.
        can_score: whether nothing is biased here if this is a score choice.
    """

    site: Eqn
    operation: str
    where: str
    can_score: bool


class Flow:
    """Where the derivative with respect to the parameters flows through a planned program.

    For each value: what carries its derivative (`moves`: reparameterised choices, and `None` for
    a parameter itself), and which continuous choices it depends on (`noise`). An operation that
    jumps is a kink if its operands have both: without noise its jumps are met with probability
    zero, and without a derivative there is nothing to miss.

    Attributes:
        kinks: all discontinuous operations that the objective depends on.
    """

    def __init__(self, staged: Staged, chosen: Mapping[Eqn, Strategy], region: Region):
        # Relaxed worlds beside the actual one are followed along the path of the relaxed value.
        self.relaxed = {e for e, s in chosen.items() if relaxes(s) and s.kind == "worlds"}
        self.pathwise = self.relaxed | {e for e, s in chosen.items() if follows_path(s)}
        self.region = region
        self.moves: dict[Var, dict[Eqn | None, None]] = {}
        self.noise: dict[Var, dict[Eqn, None]] = {}
        self._kinks: dict[Kink, None] = {}
        self._covered: bool | None = None
        for decl in staged.params.values():
            self.moves.update((v, {None: None}) for v in decl.leaves.values() if _is_real(v))
        self._block(staged.block)

    @property
    def kinks(self) -> list[Kink]:
        return list(self._kinks)

    def moving_support(self, eqn: Eqn) -> str | None:
        """A parameter of a choice that moves its support, and moves with the parameters."""
        params = dict(zip(eqn.params["names"], eqn.ins, strict=True))
        moving = [n for n, a in params.items() if self._of(self.moves, a)]
        bounds = _support_parameters(eqn) if moving else ()
        return next((n for n in moving if n in bounds), None)

    def _of(self, table: Mapping[Var, dict[Any, None]], atom: Atom) -> dict[Any, None]:
        return {} if isinstance(atom, Lit) else table.get(atom, {})

    def _union(self, table: Mapping[Var, dict[Any, None]], atoms: Iterable[Atom]) -> dict:
        return {k: None for a in atoms for k in self._of(table, a)}

    def _set(self, var: Var, moves: dict[Eqn | None, None], noise: dict[Eqn, None]) -> None:
        # A discrete value has no derivative, and where it jumps was seen where it was made.
        real = _is_real(var)
        self.moves[var] = moves if real else {}
        self.noise[var] = noise if real else {}

    def _block(self, block: Block) -> None:
        for eqn in block.eqns:
            rule = _flow_rules.get(eqn.kind, Flow._plain)
            rule(self, eqn)

    def _plain(self, eqn: Eqn) -> None:
        moves, noise = self._union(self.moves, eqn.ins), self._union(self.noise, eqn.ins)
        for inner in eqn.blocks:
            self._block(inner)
        for i, var in enumerate(eqn.outs):
            if moves and noise:
                self._check(eqn, var, moves, noise)
            leaves = [b.outs[i] for b in eqn.blocks]
            seen = moves | self._union(self.moves, leaves)
            stopped = eqn.kind == "stop_gradient"
            self._set(var, {} if stopped else seen, noise | self._union(self.noise, leaves))

    def _site(self, eqn: Eqn) -> None:
        var, family = eqn.outs[0], eqn.params["family"]
        moves, noise = self._union(self.moves, eqn.ins), self._union(self.noise, eqn.ins)
        # A relaxed choice is a float, whatever its family says.
        continuous = _is_real(var) and family.name != "delta"
        own: dict[Eqn | None, None] = {eqn: None} if moves and eqn in self.pathwise else {}
        self._set(var, own, {eqn: None} if continuous else noise)

    def _call(self, eqn: Eqn) -> None:
        """A function that runs as a whole (it holds nothing of ours): look inside."""
        inner, before = inlined(eqn), self._covered
        self.moves.update(
            (v, self._of(self.moves, a)) for v, a in zip(inner.ins, eqn.ins, strict=True)
        )
        self.noise.update(
            (v, self._of(self.noise, a)) for v, a in zip(inner.ins, eqn.ins, strict=True)
        )
        if before is None:
            self._covered = any(v in self.region.plain for v in eqn.outs)
        self._block(inner)
        self._covered = before
        for var, atom in zip(eqn.outs, inner.outs, strict=True):
            self._set(var, self._of(self.moves, atom), self._of(self.noise, atom))

    def _scan(self, eqn: Eqn) -> None:
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        for var, atom in zip(body.ins, eqn.ins, strict=True):
            self._set(var, self._of(self.moves, atom), self._of(self.noise, atom))
        while True:
            self._block(body)
            grown = False
            for var, atom in zip(body.ins[:n], body.outs[:n], strict=True):
                moves, noise = self.moves[var], self.noise[var]
                self._set(
                    var, moves | self._of(self.moves, atom), noise | self._of(self.noise, atom)
                )
                grown |= (moves, noise) != (self.moves[var], self.noise[var])
            if not grown:
                break
        for i, (var, atom) in enumerate(zip(eqn.outs, body.outs, strict=True)):
            ends = [atom, *body.ins[i : i + 1]] if i < n else [atom]
            self._set(var, self._union(self.moves, ends), self._union(self.noise, ends))

    def _check(
        self, eqn: Eqn, var: Var, moves: dict[Eqn | None, None], noise: dict[Eqn, None]
    ) -> None:
        needed = var in self.region.plain if self._covered is None else self._covered
        # A derivative that is cut is missing from a relaxed value's part of the estimate.
        cut = eqn.kind == "stop_gradient" and not self.relaxed.isdisjoint(moves)
        jumps = cut or eqn.kind in JUMPS or (eqn.kind in INDEX_MAKERS and not _is_real(var))
        # What a relaxed program computes instead of a jump is smooth.
        jumps = jumps and eqn.impl is None
        if not (needed and jumps) or eqn.trusted or _in_trusted_code(eqn):
            return
        for site in moves:
            if site is not None:
                refusal = strategies["score"].refusal(site) or self.moving_support(site)
                self._kinks[Kink(site, eqn.kind, eqn.where, refusal is None)] = None
        if None in moves:
            direct = [Kink(s, eqn.kind, eqn.where, False) for s in noise if s not in moves]
            self._kinks.update(dict.fromkeys(direct))


_flow_rules: dict[str, Callable[[Flow, Eqn], None]] = {
    "site": Flow._site,
    "scan": Flow._scan,
    "remat2": Flow._call,
}


def _support_parameters(eqn: Eqn) -> list[str]:
    """The parameters of a choice whose values (not just shapes) its support depends on."""
    family, names = eqn.params["family"], eqn.params["names"]
    if isinstance(family.support, Support):
        return []

    def contains(value: Array, params: dict[str, Array]) -> Array:
        return family.support_of(params).check(value)

    avals = {
        n: jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype)
        for n, a in zip(names, eqn.ins, strict=True)
    }
    value = jax.ShapeDtypeStruct(eqn.outs[0].aval.shape, eqn.outs[0].aval.dtype)
    block = stage(contains, value, avals).block
    used = {a for e in block.eqns for a in e.ins}
    return [n for n, v in zip(sorted(avals), block.ins[1:], strict=True) if v in used]


def _is_real(var: Var) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.inexact)


def _in_trusted_code(eqn: Eqn) -> bool:
    """Whether library code that we trust made the equation."""
    for path, function, is_users in _compat.frames(eqn.source):
        if any(part in path for part in TRUSTED_FILES):
            return True
        if "/jax/_src/numpy/" in path and function in TRUSTED_FUNCTIONS:
            return True
        if is_users:
            return False
    return False
