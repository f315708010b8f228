"""Checking expressions: their types."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import reduce
from typing import Any

from ppl.errors import suggestion
from ppl.syntax import ast
from ppl.syntax.distributions import FAMILIES
from ppl.syntax.functions import FUNCTIONS, IN_OBJECTIVES, PROGRAMS
from ppl.syntax.scope import Scope, Var
from ppl.syntax.types import (
    INF,
    NONNEGATIVE,
    POSITIVE,
    REAL,
    UNIT,
    UNKNOWN,
    Expect,
    Interval,
    Num,
    Rec,
    Shape,
    Size,
    Tup,
    Type,
    broadcast,
    join,
    map_nums,
)

_KINDS = ("bool", "int", "real")


class Expressions:
    """The checker's methods for expressions, by the name of the node."""

    error: Any
    expect: Any
    type: Any
    size: Any
    call: Any
    join_types: Any
    signature: Any
    file: ast.File
    programs: dict[str, ast.Program]
    expectations: int

    def expr(self, e: ast.Expr, scope: Scope) -> Type:
        """The type of an expression; errors are reported where they are."""
        return getattr(self, f"_{type(e).__name__.lower()}_type")(e, scope)

    def number(self, e: ast.Expr, scope: Scope) -> Num | None:
        """The type of an expression that must be a number or an array."""
        found = self.expr(e, scope)
        if isinstance(found, Num):
            return found
        if found is not UNKNOWN:
            fix = None
            if isinstance(found, Expect):
                fix = "only sums, differences and multiples of expectations are unbiased"
            self.error(e, f"{found} is not a number", fix=fix)
        return None

    # ------------------------------------------------------------------------------------ atoms

    def _number_type(self, e: ast.Number, scope: Scope) -> Type:
        v = e.value
        at = Interval(v, v)
        return Num("int", at, size=Size(v)) if isinstance(v, int) else Num("real", at)

    def _boolean_type(self, e: ast.Boolean, scope: Scope) -> Type:
        return Num("bool", UNIT)

    def _name_type(self, e: ast.Name, scope: Scope) -> Type:
        var = scope.names.get(e.name)
        if var is None:
            return self._unknown_name(e, scope)
        if var.indices:
            return self.error(
                e,
                f"{e.name!r} has one value in each run of the loop",
                because="all of them are known only after the loop",
                fix=f"write {e.name}[{', '.join(var.indices)}]",
            )
        return var.type

    def _unknown_name(self, e: ast.Name, scope: Scope) -> Type:
        if e.name in self.file.unreadable:
            return UNKNOWN
        if e.name in self.programs or e.name in FAMILIES or e.name in FUNCTIONS:
            return self.error(e, f"{e.name!r} is called with arguments", fix=f"{e.name}(...)")
        return self.error(e, f"unknown name {e.name!r}", suggestion(e.name, scope.names))

    def _tuple_type(self, e: ast.Tuple, scope: Scope) -> Type:
        return Tup(tuple(self.expr(i, scope) for i in e.items))

    def _record_type(self, e: ast.Record, scope: Scope) -> Type:
        fields: dict[str, Type] = {}
        for f in e.fields:
            if f.name in fields:
                self.error(f, f"the field {f.name!r} stands twice")
            fields[f.name or ""] = self.expr(f.value, scope)
        return Rec(fields)

    def _array_type(self, e: ast.Array, scope: Scope) -> Type:
        items = [self.number(i, scope) for i in e.items]
        known = [i for i in items if i is not None]
        if len(known) < len(items):
            return UNKNOWN
        for node, item in zip(e.items, known, strict=True):
            if item.shape != known[0].shape:
                return self.error(
                    node,
                    "the entries of an array have different shapes",
                    because=f"the first is {known[0]}, this is {item}",
                )
        # A list of numbers is not a simplex, even where they could be one: that is ascribed.
        return reduce(join, known).plain().lifted(Size(len(known)))

    def _comprehension_type(self, e: ast.Comprehension, scope: Scope) -> Type:
        size = self.size(e.size, scope)
        inner = replace(scope, names=dict(scope.names))
        high = INF if size.known is None else max(size.known - 1, 0)
        inner.names[e.variable] = Var(Num("int", Interval(0, high)), ast.NOWHERE)
        return map_nums(self.expr(e.value, inner), lambda n: n.lifted(size))

    def _ascribe_type(self, e: ast.Ascribe, scope: Scope) -> Type:
        found, wanted = self.expr(e.value, scope), self.type(e.type, scope)
        if isinstance(found, Num) and isinstance(wanted, Num):
            # Where the values lie is the author's word; shape and kind are checked.
            loose = replace(wanted, within=REAL, event=None)
            self.expect(e.value, found, loose, "the value")
            return replace(wanted, noise=found.noise, random=found.random)
        self.expect(e.value, found, wanted, "the value")
        return wanted

    def _field_type(self, e: ast.Field, scope: Scope) -> Type:
        base = self.expr(e.base, scope)
        if isinstance(base, Rec):
            if e.name in base.fields:
                return base.fields[e.name]
            return self.error(e, f"there is no field {e.name!r}", suggestion(e.name, base.fields))
        if base is not UNKNOWN:
            self.error(e, f"{base} has no fields")
        return UNKNOWN

    def _wholeaxis_type(self, e: ast.WholeAxis, scope: Scope) -> Type:
        return self.error(e, "':' stands outside of an index")

    # ---------------------------------------------------------------------------------- indices

    def _index_type(self, e: ast.Index, scope: Scope) -> Type:
        base, indices = self._entry(e, scope)
        if not isinstance(base, Num) or not indices:
            if indices and base is not UNKNOWN:
                self.error(e.base, f"{base} has no entries")
            return base
        if len(indices) > len(base.shape):
            return self.error(
                e, f"{len(indices)} indices for {len(base.shape)} axes", f"the value is {base}"
            )
        shape, noise, random = self._indexed_shape(indices, base, scope)
        # A structure lies along the last axes, and stays if these are all kept.
        rest = base.entry(len(indices)) if all(_is_scalar(i) for i in indices) else base.plain()
        kept = rest.event if len(shape) >= len(rest.shape) else None
        return replace(
            base,
            shape=shape,
            event=kept,
            size=None,
            noise=base.noise | noise,
            random=base.random or random,
        )

    def _entry(self, e: ast.Index, scope: Scope) -> tuple[Type, tuple[ast.Expr, ...]]:
        """What is indexed; of a value made in a loop, the entry of this run of the loop."""
        var = scope.names.get(e.base.name) if isinstance(e.base, ast.Name) else None
        if var is None or not var.indices:
            return self.expr(e.base, scope), e.indices
        count = len(var.indices)
        own = tuple(i.name if isinstance(i, ast.Name) else "?" for i in e.indices[:count])
        if own != var.indices:
            name = e.base.name if isinstance(e.base, ast.Name) else ""
            fix = f"write {name}[{', '.join(var.indices)}]"
            if "?" in own:
                fix += ", or carry the value of the step before as a state: scan ... with"
            return (
                self.error(
                    e, f"{name!r} is read in another run of the loop", "it is not known yet", fix
                ),
                (),
            )
        return var.type, e.indices[count:]

    def _indexed_shape(
        self, indices: tuple[ast.Expr, ...], base: Num, scope: Scope
    ) -> tuple[Shape, frozenset[str], bool]:
        shape: list[Size] = []
        noise: frozenset[str] = frozenset()
        random = False
        for axis, index in zip(base.shape, indices, strict=False):
            if isinstance(index, ast.WholeAxis):
                shape.append(axis)
                continue
            found = self.number(index, scope)
            if found is None:
                continue
            if found.kind != "int":
                self.error(index, "an index is a whole number", f"found {found}")
            if axis.known is not None and found.within.low >= axis.known:
                self.error(
                    index,
                    "the index is outside of the array",
                    because=f"the axis has {axis} entries, counted from 0",
                )
            shape += found.shape
            noise, random = noise | found.noise, random or found.random
        return (*shape, *base.shape[len(indices) :]), noise, random

    # -------------------------------------------------------------------------------- operators

    def _unary_type(self, e: ast.Unary, scope: Scope) -> Type:
        found = self.expr(e.operand, scope)
        if isinstance(found, Expect) and e.op == "-":
            return found
        n = self.number(e.operand, scope) if not isinstance(found, Num) else found
        if n is None:
            return UNKNOWN
        if e.op == "not":
            if n.kind != "bool":
                self.error(e.operand, "not needs truth values", f"found {n}")
            return n
        kind = "int" if n.kind == "bool" else n.kind
        size = None if n.size is None else -n.size
        return n.plain(kind=kind, within=-n.within, size=size)

    def _binary_type(self, e: ast.Binary, scope: Scope) -> Type:
        left, right = self.expr(e.left, scope), self.expr(e.right, scope)
        if UNKNOWN in (left, right):
            return UNKNOWN
        if isinstance(left, Rec) and isinstance(right, Rec) and e.op == "+":
            return self._merged(e, left, right)
        if isinstance(left, Expect) or isinstance(right, Expect):
            return self._expectation(e, left, right)
        for node, found in ((e.left, left), (e.right, right)):
            if not isinstance(found, Num):
                return self.error(node, f"{found} is not a number", f"it stands beside {e.op!r}")
        assert isinstance(left, Num) and isinstance(right, Num)
        if e.op == "@":
            return self._matmul(e, left, right)
        shape = self.broadcast(e, left, right)
        joined = join(left, right).plain(shape=shape)
        if e.op in ("and", "or"):
            if {left.kind, right.kind} != {"bool"}:
                self.error(e, f"{e.op!r} needs truth values", f"found {left} and {right}")
            return joined.plain(kind="bool", within=UNIT)
        if e.op in ("==", "!=", "<", "<=", ">", ">="):
            self.refuse_noise(e, joined, f"{e.op!r}")
            return joined.plain(kind="bool", within=UNIT, noise=frozenset())
        return self._arithmetic(e, left, right, joined)

    def _arithmetic(self, e: ast.Binary, left: Num, right: Num, joined: Num) -> Num:
        kind = max("int", left.kind, right.kind, key=_KINDS.index)
        a, b = left.within, right.within
        if e.op == "^":
            return joined.plain(kind=_power_kind(kind, right), within=_power(a, b))
        if e.op == "/":
            return joined.plain(kind="real", within=a / b)
        combined = {"+": lambda: a + b, "-": lambda: a + -b, "*": lambda: a * b}[e.op]()
        if e.left == e.right and e.op == "*":
            combined = Interval(max(0.0, combined.low), combined.high, a.is_positive)
        size = None
        if left.size is not None and right.size is not None:
            s, t = left.size, right.size
            size = {"+": lambda: s + t, "-": lambda: s - t, "*": lambda: s * t}[e.op]()
        return joined.plain(kind=kind, within=combined, size=size)

    def refuse_noise(self, at: ast.Node, n: Num, what: str) -> None:
        """A reparameterised value must not decide anything: its gradient would be lost."""
        if n.noise:
            name = sorted(n.noise)[0]
            self.error(
                at,
                f"{what} on the reparameterised choice {name!r}: the gradient would be biased",
                because="a derivative along the draw's path does not see jumps",
                fix=f"{name} ~ ... via score, or assume_continuous({name}) if there is no jump",
            )

    def broadcast(self, at: ast.Node, left: Num, right: Num) -> Shape:
        shape = broadcast(left.shape, right.shape)
        if shape is None:
            self.error(at, "the shapes do not fit together", f"{left} and {right}")
            return left.shape
        return shape

    def _matmul(self, e: ast.Binary, left: Num, right: Num) -> Type:
        if not left.shape or not right.shape or len(right.shape) > 2:
            return self.error(e, "@ needs vectors or matrices", f"found {left} and {right}")
        *batch, last = list(left.shape)
        first, *columns = list(right.shape)
        if last != first:
            return self.error(e, "the shapes do not fit together", f"{left} @ {right}")
        shape = (*batch, *columns)
        within = left.within * right.within
        within = NONNEGATIVE if within.low >= 0 else REAL
        return join(left, right).plain(kind="real", within=within, shape=shape)

    def _merged(self, e: ast.Binary, left: Rec, right: Rec) -> Type:
        if both := sorted(set(left.fields) & set(right.fields)):
            self.error(e, f"both records have the field {both[0]!r}")
        return Rec({**left.fields, **right.fields})

    def _expectation(self, e: ast.Binary, left: Type, right: Type) -> Type:
        """Sums, differences, multiples and independent products keep an estimate unbiased."""
        draws = [t.draws for t in (left, right) if isinstance(t, Expect)]
        both = len(draws) == 2
        wrong = None
        if e.op == "*" and both and draws[0] & draws[1]:
            wrong = "E(x)^2 is not E(x^2): the two share their draws"
        elif (
            e.op == "*" and not both and any(isinstance(t, Num) and t.random for t in (left, right))
        ):
            wrong = "the factor depends on draws, and may depend on those of the expectation"
        elif e.op not in ("+", "-", "*") and not (e.op == "/" and isinstance(right, Num)):
            wrong = f"the mean of {e.op!r} of an estimate is not {e.op!r} of the mean"
        if wrong:
            self.error(
                e,
                f"{e.op!r} of expectations would bias the estimate",
                because=wrong,
                fix="take the function inside E, or estimate each factor anew: E(f()) * E(f())",
            )
        return Expect(frozenset().union(*draws))

    def _conditional_type(self, e: ast.Conditional, scope: Scope) -> Type:
        condition = self.number(e.condition, scope)
        then, other = self.expr(e.then, scope), self.expr(e.otherwise, scope)
        if condition is not None and condition.kind != "bool":
            self.error(e.condition, "if needs truth values", f"found {condition}")
        if UNKNOWN in (then, other) or condition is None:
            return UNKNOWN
        if isinstance(then, Num) and isinstance(other, Num):
            shape = self.broadcast(e, then, other)
            joined = join(then, other).plain(shape=shape, random=then.random or other.random)
            joined = replace(joined, shape=self.broadcast(e, joined, condition))
            return replace(joined, random=joined.random or condition.random)
        return self.join_types(e, then, other)

    def _call_type(self, e: ast.Call, scope: Scope) -> Type:
        if e.function in self.file.unreadable:
            return UNKNOWN
        return self.call(e, scope)

    def unknown_function(self, e: ast.Call, known: list[str]) -> Type:
        everything = [*known, *FUNCTIONS, *FAMILIES, *PROGRAMS, *IN_OBJECTIVES]
        close = difflib.get_close_matches(e.function, everything, n=1)
        at = (e.span[0], e.span[0] + len(e.function))
        return self.error(
            at,
            f"unknown function or distribution {e.function!r}",
            fix=f"did you mean {close[0]!r}?" if close else "declare it: def, extern or network",
        )


def _is_scalar(index: ast.Expr) -> bool:
    return not isinstance(index, ast.WholeAxis)


def _power_kind(kind: str, exponent: Num) -> str:
    whole = kind == "int" and exponent.kind == "int" and exponent.within.low >= 0
    return "int" if whole else "real"


def _power(base: Interval, exponent: Interval) -> Interval:
    if base.is_positive:
        return POSITIVE
    if base.low >= 0:
        return NONNEGATIVE
    even = exponent.low == exponent.high and exponent.low % 2 == 0 if exponent.low > -INF else False
    return NONNEGATIVE if even else REAL
