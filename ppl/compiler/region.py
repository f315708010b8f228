"""The additive region: where the objective is a sum of costs.

E[sum of costs] = sum of E[cost], so each cost needs only the choices that influence it. The
region is found by walking back from the objective through operations that are linear in the
running value. The values that enter it are the *cost terms*.

The walk also says which variables are needed as they are (`plain`) and which as estimates that
carry the gradient of their expectation (`boxed`); a running sum that is also read non-linearly
is needed both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from ppl.compiler.influence import Analysis
from ppl.lang.staged import Atom, Block, Eqn, Lit, Var, has_effect

LinearRule = Callable[[Eqn, Callable[[Atom], bool]], "Sequence[int] | None"]
"""`rule(eqn, random)`: the operands in which the equation is linear with coefficients that no
choice influences, or `None` if it is not linear."""

linear_rules: dict[str, LinearRule] = {}


def linear_rule_for(*names: str) -> Callable[[LinearRule], LinearRule]:
    def register(rule: LinearRule) -> LinearRule:
        linear_rules.update(dict.fromkeys(names, rule))
        return rule

    return register


@linear_rule_for("add", "sub", "neg", "add_any", "copy", "concatenate", "stack")
def _all_operands(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int]:
    return range(len(eqn.ins))


@linear_rule_for(
    "reduce_sum", "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice",
    "rev", "cumsum", "split", "unstack", "tile",
)  # fmt: skip
def _first_operand(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    return None if any(random(a) for a in eqn.ins[1:]) else [0]


@linear_rule_for("dynamic_slice", "gather")
def _indexed(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    return None if any(random(a) for a in eqn.ins[1:]) else [0]


@linear_rule_for("convert_element_type")
def _convert(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    # An integer or boolean has no tangent: it enters the region only after it became a float.
    floats = all(jnp.issubdtype(a.aval.dtype, jnp.floating) for a in (eqn.ins[0], eqn.outs[0]))
    return [0] if floats else None


@linear_rule_for("mul", "dot_general")
def _one_random_factor(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    which = [i for i, a in enumerate(eqn.ins) if random(a)]
    return which if len(which) == 1 else None


@linear_rule_for("div")
def _numerator(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    return None if random(eqn.ins[1]) else [0]


@linear_rule_for("select_n")
def _cases(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    return None if random(eqn.ins[0]) else range(1, len(eqn.ins))


@linear_rule_for("pad")
def _padded(eqn: Eqn, random: Callable[[Atom], bool]) -> Sequence[int] | None:
    return None if random(eqn.ins[1]) else [0]


class Region:
    """The additive region of a staged program.

    Attributes:
        plain: variables needed as they are.
        boxed: variables needed as estimates that carry the gradient of their expectation.
        parts: for each boxed variable inside the region, what it is a linear function of.
        costs: the boxed variables at which the walk ended, in the order found.
        summed: for each scan, the carries that accumulate costs.
    """

    def __init__(self, block: Block, analysis: Analysis):
        self.analysis = analysis
        self.plain: set[Var] = set()
        self.boxed: set[Var] = set()
        self.parts: dict[Var, list[Atom]] = {}
        self.costs: dict[Var, None] = {}
        self.summed: dict[Eqn, set[int]] = {}
        self._slots: dict[Var, tuple[Eqn, int]] = {}
        self._effects: list[Eqn] = []
        self._index(block)
        self._box(block.outs)
        for eqn in self._effects:
            for a in (*eqn.ins, *eqn.outs):
                self._need_plain(a)

    def _index(self, block: Block) -> None:
        """Remember which loop input each block input is, and what must run anyway (prints)."""
        for eqn in block.eqns:
            if has_effect(eqn):
                self._effects.append(eqn)
            if eqn.kind == "scan":
                self._slots.update((v, (eqn, i)) for i, v in enumerate(eqn.blocks[0].ins))
            for inner in eqn.blocks:
                self._index(inner)

    def random(self, atom: Atom) -> bool:
        """Whether any choice influences the value."""
        return bool(self.analysis.of(atom))

    def _carry(self, atom: Atom) -> tuple[Eqn, int] | None:
        """(loop, number) if the atom is a loop's carry as a step sees it."""
        slot = self._slots.get(atom) if isinstance(atom, Var) else None
        return slot if slot and slot[1] < slot[0].params["num_carry"] else None

    # ------------------------------------------------------------------------------- boxed

    def _box(self, atoms: Sequence[Atom]) -> None:
        """Ask for estimates of `atoms`; walks back through the region."""
        todo = list(atoms)
        while todo:
            atom = todo.pop()
            if isinstance(atom, Lit) or atom in self.boxed:
                continue
            if not self.random(atom):
                self._need_plain(atom)
                continue
            self.boxed.add(atom)
            if carry := self._carry(atom):
                todo += self._sum(*carry)
                continue
            parts = self._linear_parts(atom)
            if parts is None:
                self.costs[atom] = None
                self._need_plain(atom)
                continue
            self.parts[atom] = parts
            todo += parts
            eqn = atom.eqn
            assert eqn is not None  # an input is no linear function of anything
            if eqn.kind == "scan" and (i := eqn.outs.index(atom)) < eqn.params["num_carry"]:
                todo += self._sum(eqn, i)
            elif not eqn.blocks:
                for a in eqn.ins:
                    if a not in parts:
                        self._need_plain(a)

    def _linear_parts(self, var: Var) -> list[Atom] | None:
        """What a variable is a linear function of, or `None`."""
        eqn = var.eqn
        if eqn is None:
            return None
        if eqn.kind == "checkpoint":
            return [eqn.blocks[0].outs[eqn.outs.index(var)]]
        if eqn.kind == "scan":
            i = eqn.outs.index(var)
            stacked = i >= eqn.params["num_carry"]
            return [eqn.blocks[0].outs[i]] if stacked or self._accumulates(eqn, i) else None
        rule = linear_rules.get(eqn.kind)
        which = None if rule is None else rule(eqn, self.random)
        return None if which is None else [eqn.ins[i] for i in which if self.random(eqn.ins[i])]

    def _accumulates(self, loop: Eqn, carry: int) -> bool:
        """Whether a carry at the end of a step is linear in itself at the start."""
        body = loop.blocks[0]
        start, todo, seen = body.ins[carry], [body.outs[carry]], set()
        while todo:
            atom = todo.pop()
            if atom is start:
                return True
            if isinstance(atom, Lit) or atom in seen or not self.random(atom):
                continue
            seen.add(atom)
            if slot := self._carry(atom):
                if slot[0] is loop:
                    todo.append(body.outs[slot[1]])
                continue
            todo += self._linear_parts(atom) or ()
            inner = atom.eqn
            if inner is not None and inner.kind == "scan":
                i = inner.outs.index(atom)
                todo += inner.ins[i : i + 1] if i < inner.params["num_carry"] else []
        return False

    def _sum(self, loop: Eqn, carry: int) -> list[Atom]:
        """Accumulate estimates in a loop's carry; what that needs."""
        slots = self.summed.setdefault(loop, set())
        if carry in slots:
            return []
        slots.add(carry)
        body = loop.blocks[0]
        self.boxed.add(body.ins[carry])
        return [loop.ins[carry], body.outs[carry]]

    # ------------------------------------------------------------------------------- plain

    def _need_plain(self, atom: Atom) -> None:
        todo: list[Atom] = [atom]
        while todo:
            a = todo.pop()
            if isinstance(a, Lit) or a in self.plain:
                continue
            self.plain.add(a)
            if slot := self._slots.get(a):
                todo += self._loop_input(*slot)
            elif a.eqn is not None:
                todo += self._inputs(a)

    def _loop_input(self, loop: Eqn, i: int) -> list[Atom]:
        carried = i < loop.params["num_carry"]
        return [loop.ins[i], *([loop.blocks[0].outs[i]] if carried else [])]

    def _inputs(self, var: Var) -> list[Atom]:
        eqn = var.eqn
        i = eqn.outs.index(var)
        if eqn.kind != "scan":
            return [*eqn.ins, *(inner.outs[i] for inner in eqn.blocks)]
        body = eqn.blocks[0]
        carried = i < eqn.params["num_carry"]
        return [body.outs[i], *([body.ins[i]] if carried else [])]
