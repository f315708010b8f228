"""Checking statements: what they define, and which choices they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ppl.errors import suggestion
from ppl.syntax import ast
from ppl.syntax.distributions import STRATEGIES
from ppl.syntax.scope import Loop, Scope, Var
from ppl.syntax.types import (
    REAL,
    UNKNOWN,
    Dist,
    Interval,
    Num,
    Prog,
    Rec,
    Size,
    Tup,
    Type,
    map_nums,
)

_ALLOWED = {
    "model": (ast.Statement,),
    "guide": (ast.Statement,),
    "objective": (ast.Let, ast.LetTuple, ast.Param, ast.Return),
    "def": (ast.Let, ast.LetTuple, ast.Return),
}


class Statements:
    """The checker's methods for statements, by the name of the node."""

    # Shared with the other parts of the checker.
    error: Any
    expr: Any
    type: Any
    size: Any
    expect: Any
    quiet: Any
    join_types: Any
    params: dict[str, ast.Param]

    def block(self, block: ast.Block, scope: Scope) -> None:
        for i, s in enumerate(block.statements):
            if not isinstance(s, _ALLOWED[scope.kind]):
                what = type(s).__name__.lower()
                self.error(
                    s,
                    f"no {what} in {'an' if scope.kind == 'objective' else 'a'} {scope.kind}",
                    fix="make choices and loops in a model or guide, and sim(...) it here"
                    if scope.kind == "objective"
                    else "make it a model, or use if ... then ... else and [... for i in n]",
                )
            getattr(self, f"_{type(s).__name__.lower()}")(s, scope)
            if isinstance(s, ast.Return) and i < len(block.statements) - 1:
                self.error(block.statements[i + 1], "nothing runs after return")

    # ------------------------------------------------------------------------------- defining

    def define(self, target: ast.Target, found: Type, scope: Scope) -> None:
        """Give a name a meaning; with indices, in each run of the loops."""
        loops = tuple(l.variable for l in scope.loops)
        if target.indices and target.indices != loops:
            fix = f"{target.name}[{', '.join(loops)}]" if loops else target.name
            self.error(
                target,
                "the indices are not those of the loops around",
                because=f"the loops run over {', '.join(loops)}" if loops else "there is no loop",
                fix=f"write {fix}",
            )
        self.define_name(target.name, target.span, found, scope, target.indices and loops)

    def define_name(
        self, name: str, span: ast.Span, found: Type, scope: Scope, indices: tuple[str, ...] = ()
    ) -> None:
        before = scope.names.get(name)
        if before is not None and before.span != ast.NOWHERE:
            self.error(
                span, f"{name!r} is defined already", fix="names do not change: choose another one"
            )
        scope.names[name] = Var(found, span, indices)

    # ----------------------------------------------------------------------------- statements

    def _choice(self, s: ast.Choice, scope: Scope) -> None:
        program = self.expr(s.program, scope)
        self._check_mask(s.mask, scope)
        loops = tuple(l.variable for l in scope.loops)
        if loops and not s.target.indices:
            self.error(
                s.target,
                f"the choice {s.target.name!r} is made once in each run of the loop",
                fix=f"write {s.target.name}[{', '.join(loops)}] ~ ...",
            )
        value, choices = self._drawn(s, program, scope)
        self.define(s.target, value, scope)
        sizes = [l.size for l in scope.loops]
        scope.choices[s.target.name] = map_nums(choices, lambda n: n.lifted(*sizes))

    def _drawn(self, s: ast.Choice, program: Type, scope: Scope) -> tuple[Type, Type]:
        """The types of a choice's value, and of what stands at its address."""
        if isinstance(program, Prog):
            if s.strategy is not None:
                self.error(
                    s.strategy,
                    "a program has no strategy",
                    because="each of its choices has one",
                    fix="write via behind the choices inside",
                )
            return (UNKNOWN if program.result is None else program.result), program.choices
        if not isinstance(program, Dist):
            if program is not UNKNOWN:
                self.error(
                    s.program,
                    f"{program} cannot be drawn from",
                    fix="~ needs a distribution or a program; = defines a value (with let)",
                )
            return UNKNOWN, UNKNOWN
        value = program.value
        if s.strategy is not None:
            self._check_strategy(s.strategy, program)
            if s.strategy.name == "reparam":
                value = replace(value, noise=frozenset({s.target.name}))
        return value, value

    def _check_strategy(self, s: ast.Strategy, d: Dist) -> None:
        if s.name not in STRATEGIES:
            self.error(s, f"unknown strategy {s.name!r}", suggestion(s.name, STRATEGIES))
        elif (s.name == "reparam" and not d.reparam) or (s.name == "enum" and not d.enum):
            other = "enum" if d.enum else "reparam" if d.reparam else "score"
            self.error(
                s,
                f"{d.name} has no strategy {s.name!r}",
                because=f"it needs {STRATEGIES[s.name]}",
                fix=f"via {other}, or nothing: then the best one is chosen",
            )
        for argument in s.arguments:
            if not isinstance(argument.value, ast.Number | ast.Boolean | ast.Name):
                self.error(argument, "a strategy's arguments are numbers, true, false or names")

    def _check_mask(self, mask: ast.Expr | None, scope: Scope) -> None:
        if mask is not None:
            self._expect_truth(mask, scope, "where")

    def _expect_truth(self, e: ast.Expr, scope: Scope, what: str) -> None:
        found = self.expr(e, scope)
        if found is not UNKNOWN and not (
            isinstance(found, Num) and found.kind == "bool" and not found.shape
        ):
            fix = "compare it: x == 1" if isinstance(found, Num) and not found.shape else None
            self.error(e, f"{what} needs a single truth value", f"found {found}", fix)

    def _let(self, s: ast.Let, scope: Scope) -> None:
        self.define(s.target, self._value(s.value, scope), scope)

    def _value(self, e: ast.Expr, scope: Scope) -> Type:
        found = self.expr(e, scope)
        if isinstance(found, Dist | Prog) and scope.kind != "objective":
            return self.error(
                e, f"{found} is not a value", fix="draw from it with ~, or sim(...) in an objective"
            )
        return found

    def _lettuple(self, s: ast.LetTuple, scope: Scope) -> None:
        found = self._value(s.value, scope)
        items = found.items if isinstance(found, Tup) else (UNKNOWN,) * len(s.names)
        if found is not UNKNOWN and len(items) != len(s.names):
            self.error(s, f"{len(s.names)} names for {len(items)} values")
        elif found is not UNKNOWN and not isinstance(found, Tup):
            self.error(s.value, f"{found} is not several values", fix="let x = ...")
        items = (*items, *(UNKNOWN for _ in s.names))
        for name, item in zip(s.names, items, strict=False):
            self.define_name(name, s.span, item, scope)

    def _param(self, s: ast.Param, scope: Scope) -> None:
        found = self.type(s.type, scope)
        if not (isinstance(found, Num) and found.kind == "real") and found is not UNKNOWN:
            self.error(s.type, "a parameter is a real number or an array of them", f"not {found}")
        if not scope.top:
            self.error(s, "a parameter is declared inside a block", fix="declare it at the top")
        before = self.params.setdefault(s.name, s)
        if before != s:
            self.error(
                s,
                f"the parameter {s.name!r} is declared twice, and differently",
                because="parameters of the same name are the same one, in all programs",
                fix="give it another name, or write the same type and initial value",
            )
        self._check_init(s, found, scope)
        self.define_name(s.name, s.span, found, scope)

    def _check_init(self, s: ast.Param, wanted: Type, scope: Scope) -> None:
        init = self.expr(s.init, scope)
        if s.random and isinstance(init, Dist):
            init = init.value
        elif s.random:
            if init is not UNKNOWN:
                self.error(
                    s.init, f"{init} cannot be drawn from", fix="param x: real ~ normal(0, 1)"
                )
            return
        if isinstance(init, Num) and isinstance(wanted, Num) and not init.shape:
            # One number for all entries. A structured value needs one of its kind.
            init = replace(init.lifted(*wanted.shape), event=init.event)
        self.expect(s.init, init, wanted, f"the initial value of {s.name}")

    def _observe(self, s: ast.Observe, scope: Scope) -> None:
        program, value = self.expr(s.program, scope), self.expr(s.value, scope)
        self._check_mask(s.mask, scope)
        if program is not UNKNOWN and not isinstance(program, Dist):
            self.error(s.program, f"{program} is not a distribution")
        elif isinstance(program, Dist):
            # Also values to which the distribution gives density 0 may be observed.
            loose = replace(program.value, within=REAL)
            self.expect(s.value, value, loose, "what is observed")

    def _factor(self, s: ast.Factor, scope: Scope) -> None:
        self.expect(s.log_weight, self.expr(s.log_weight, scope), Num(), "a log-weight")

    def _plate(self, s: ast.Plate, scope: Scope) -> None:
        size = self.size(s.size, scope)
        inner = scope.inside(loop=Loop(s.variable, size))
        self._define_index(s, size, inner)
        self.block(s.body, inner)
        self._leave_loop(inner, scope, size)

    def _define_index(self, s: ast.Plate | ast.Scan, size: Size, inner: Scope) -> None:
        if any(l.variable == s.variable for l in inner.loops[:-1]):
            self.error(s, f"a loop over {s.variable!r} inside of another one")
        inner.names[s.variable] = Var(_index_type(size), ast.NOWHERE)

    def _leave_loop(self, inner: Scope, scope: Scope, size: Size) -> None:
        """What a loop defines with indices is an array, with one index less, outside of it."""
        depth = len(inner.loops)
        for name, var in inner.names.items():
            if len(var.indices) == depth and scope.names.get(name) is not var:
                lifted = map_nums(var.type, lambda n: n.lifted(size))
                scope.names[name] = Var(lifted, var.span, var.indices[:-1])
        self._add_choices(inner.choices, scope)

    def _add_choices(self, choices: Mapping[str, Type], scope: Scope) -> None:
        for address, found in choices.items():
            if address in scope.choices:
                span = scope.names[address].span if address in scope.names else ast.NOWHERE
                self.error(span, f"the choice {address!r} is made twice")
            scope.choices[address] = found

    def _scan(self, s: ast.Scan, scope: Scope) -> None:
        size = self.size(s.size, scope)
        state = {a.name or "": self._value(a.value, scope) for a in s.state}
        for a in s.state:
            if a.name is None:
                self.error(a, "a state needs a name", fix="scan t in n with z = 0.0 { ... }")
        with self.quiet():  # a first look at the body, to see where the state goes
            first = self._scan_body(s, scope, size, state)
        state = {n: _widened(t, first.next.get(n, t)) for n, t in state.items()}
        inner = self._scan_body(s, scope, size, state)
        for a in s.state:
            self._check_state(a, inner, s)
        self._leave_loop(inner, scope, size)
        for a in s.state:
            if a.name:
                self.define_name(a.name, a.span, state[a.name], scope)

    def _scan_body(self, s: ast.Scan, scope: Scope, size: Size, state: Mapping[str, Type]) -> Scope:
        inner = scope.inside(loop=Loop(s.variable, size), state=state)
        self._define_index(s, size, inner)
        for a in s.state:
            inner.names[a.name or ""] = Var(state[a.name or ""], a.span)
        self.block(s.body, inner)
        return inner

    def _check_state(self, a: ast.Argument, inner: Scope, s: ast.Scan) -> None:
        name = a.name or ""
        if name not in inner.next:
            self.error(a, f"the state {name!r} never changes", fix=f"write next {name} = ...")
            return
        found, start = inner.next[name], inner.state[name]
        if not (isinstance(found, Num) and isinstance(start, Num)):
            self.expect(a, found, start, f"the next {name}")
        elif (found.kind, found.shape) != (start.kind, start.shape):
            fix = "write 0.0 for 0" if start.kind != found.kind == "real" else None
            self.error(
                a,
                f"the state {name!r} changes its type",
                because=f"it is {start} at the start, and {found} after a step",
                fix=fix,
            )

    def _next(self, s: ast.Next, scope: Scope) -> None:
        found = self._value(s.value, scope)
        if s.name not in scope.state:
            known = suggestion(s.name, scope.state)
            self.error(
                s, f"{s.name!r} is not a state of the scan around", known, "let defines values"
            )
        elif s.name in scope.next:
            self.error(s, f"the next {s.name} is given twice")
        else:
            scope.next[s.name] = found

    def _if(self, s: ast.If, scope: Scope) -> None:
        self._expect_truth(s.condition, scope, "if")
        branches = []
        for block in (s.then, s.otherwise or ast.Block(())):
            inner = replace(scope.inside(), loops=scope.loops)
            self.block(block, inner)
            branches.append(inner)
        then, other = branches
        new = [n for n in then.names if n not in scope.names and n in other.names]
        for name in new:
            a, b = then.names[name], other.names[name]
            if a.indices == b.indices and _same_shape(a.type, b.type):
                found = self.join_types(s, a.type, b.type)
                scope.names[name] = Var(found, a.span, a.indices)
        self._add_choices(self._join_choices(s, then, other), scope)

    def _join_choices(self, s: ast.If, then: Scope, other: Scope) -> dict[str, Type]:
        choices = {**then.choices, **other.choices}
        for address in then.choices.keys() & other.choices.keys():
            a, b = then.choices[address], other.choices[address]
            kinds = [t.kind for t in (a, b) if isinstance(t, Num)]
            if not _same_shape(a, b) or len(set(kinds)) > 1:
                self.error(
                    s,
                    f"the choice {address!r} has another type in each branch",
                    because=f"{a} and {b}",
                    fix="give one of them another name",
                )
            elif isinstance(a, Num):
                choices[address] = self.join_types(s, a, b)
        return choices

    def _return(self, s: ast.Return, scope: Scope) -> None:
        if not scope.top:
            self.error(s, "return inside of a block", fix="return at the end of the program")
        scope.result = self._value(s.value, scope)


def _index_type(size: Size) -> Num:
    high = float("inf") if size.known is None else max(size.known - 1, 0)
    return Num("int", Interval(0.0, high))


def _widened(start: Type, after: Type) -> Type:
    """The type of a state that is `start` at first and `after` after a step."""
    if not (isinstance(start, Num) and isinstance(after, Num)) or start.shape != after.shape:
        return start
    a, b = start.within, after.within
    low = a.low if b.within(Interval(a.low, float("inf"), a.open_low)) else REAL.low
    high = a.high if b.high <= a.high else REAL.high
    event = start.event if start.event == after.event else None
    widened = Interval(low, high, a.open_low and low == a.low)
    return replace(start, within=widened, event=event, noise=start.noise | after.noise, size=None)


def _same_shape(a: Type, b: Type) -> bool:
    if isinstance(a, Rec) and isinstance(b, Rec):
        return a.fields.keys() == b.fields.keys() and all(
            _same_shape(t, b.fields[n]) for n, t in a.fields.items()
        )
    return isinstance(a, Num) and isinstance(b, Num) and a.shape == b.shape
