"""Hypothesis strategies for well-typed programs of the text language.

`@given(programs())` draws a file with a guide `q` (choices with strategies, in nested plates, scans
and branches), a model `p` over the same choices, and an objective `cost` of both. All of its
parameters are declared in `PARAMS`. Programs are small: the number of outcomes of `q`, with
continuous choices as a few nodes, stays below 2 to the power `bits`.

    @given(programs())
    def test_round_trip(file):
        assert parse(show(file)) == file
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from ppl.syntax import ast

PARAMS: dict[str, tuple[str, float]] = {
    "t": ("unit_interval", 0.3),
    "r": ("real", 0.4),
    "s": ("positive", 0.8),
}
"""The parameters of the programs: name -> support, initial value."""

STRATEGIES: dict[str, tuple[str | None, ...]] = {
    "flip": (None, "score", "enum"),
    "categorical": (None, "score", "enum"),
    "normal": (None, "reparam", "score"),
    "exponential": (None, "reparam", "score"),
    "beta": (None, "reparam", "score"),
}
BITS = {"flip": 1.0, "categorical": 1.6, "normal": 4.4, "exponential": 4.4, "beta": 4.4}
DISCRETE = ("flip", "categorical")


def programs(
    *,
    bits: float = 8.0,
    distributions: Sequence[str] = tuple(STRATEGIES),
    strategies: Callable[[str], Sequence[str | None]] = STRATEGIES.__getitem__,
    depth: int = 2,
) -> st.SearchStrategy[ast.File]:
    """Files with a guide `q`, a model `p`, and an objective `cost`.

    Args:
        bits: logarithm of the largest number of outcomes.
        distributions: those that may stand in a program, of `STRATEGIES`.
        strategies: those that may stand at a distribution (`None`: none, it is planned).
        depth: how deep loops and branches may stand inside each other.
    """
    return _files(bits, tuple(distributions), strategies, depth)


@st.composite
def _files(draw: Any, bits: float, distributions: Any, strategies: Any, depth: int) -> ast.File:
    maker = _Maker(draw, bits, distributions, strategies)
    body = maker.block(_Scope(), depth, at_least_one=True)
    params = tuple(_param(n) for n in PARAMS)
    guide = ast.Program("guide", "q", (), ast.Block((*params, *body)))
    constants = draw(st.booleans())
    model_body = tuple(_as_model(s, constants) for s in body)
    model = ast.Program("model", "p", (), ast.Block((*params, *model_body)))
    return ast.File((guide, model, maker.objective(body)))


# --------------------------------------------------------------------------------- small trees


def num(x: float) -> ast.Expr:
    return ast.Unary("-", ast.Number(-x)) if x < 0 else ast.Number(x)


def call(function: str, *args: ast.Expr) -> ast.Call:
    return ast.Call(function, tuple(ast.Argument(None, a) for a in args))


def op(left: ast.Expr, sign: str, right: ast.Expr) -> ast.Binary:
    return ast.Binary(sign, left, right)


def _param(name: str) -> ast.Param:
    support, init = PARAMS[name]
    return ast.Param(name, ast.ArrayType(support), num(init))


@dataclass(frozen=True)
class _Value:
    """An expression that may be used; `noisy` if it depends on a continuous choice."""

    expr: ast.Expr
    kind: str
    noisy: bool = False


@dataclass(frozen=True)
class _Scope:
    """What can be used at a place: values, and the loops around."""

    values: tuple[_Value, ...] = ()
    loops: tuple[tuple[str, int], ...] = ()

    def plus(self, *values: _Value) -> _Scope:
        return replace(self, values=(*self.values, *values))

    @property
    def runs(self) -> int:
        product = 1
        for _, size in self.loops:
            product *= size
        return product


class _Maker:
    """Makes statements, and keeps count of names and outcomes."""

    def __init__(self, draw: Any, bits: float, distributions: Sequence[str], strategies: Any):
        self.draw, self.bits = draw, bits
        self.distributions, self.strategies = distributions, strategies
        self.count = 0
        self.arrays: list[_Value] = []

    def pick(self, items: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(items))

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # ----------------------------------------------------------------------------- statements

    def block(self, scope: _Scope, depth: int, at_least_one: bool = False) -> list[ast.Statement]:
        return self._block(scope, depth, at_least_one)[0]

    def _block(
        self, scope: _Scope, depth: int, at_least_one: bool = False
    ) -> tuple[list[ast.Statement], _Scope]:
        makers = [self._choice, self._let]
        if depth > 0:
            makers += [self._plate, self._scan, self._if]
        statements: list[ast.Statement] = []
        for i in range(self.draw(st.integers(1, 4 if depth > 1 else 2))):
            make = self._choice if at_least_one and i == 0 else self.pick(makers)
            statement, scope = make(scope, depth)
            statements += [statement] if statement is not None else []
        return statements, scope

    def _choice(self, scope: _Scope, depth: int) -> tuple[ast.Statement | None, _Scope]:
        fitting = [d for d in self.distributions if BITS[d] * scope.runs <= self.bits]
        if not fitting:
            return self._let(scope, depth)
        dist = self.pick(fitting)
        self.bits -= BITS[dist] * scope.runs
        name = self.name("x")
        indices = tuple(v for v, _ in scope.loops)
        strategy = self.pick(self.strategies(dist))
        statement = ast.Choice(
            ast.Target(name, indices),
            self._distribution(dist, scope),
            None if strategy is None else ast.Strategy(strategy),
        )
        entry: ast.Expr = ast.Name(name)
        if indices:
            entry = ast.Index(entry, tuple(map(ast.Name, indices)))
        kind = {"flip": "bool", "categorical": "int"}.get(dist, "real")
        return statement, scope.plus(_Value(entry, kind, dist not in DISCRETE))

    def _distribution(self, dist: str, scope: _Scope) -> ast.Expr:
        if dist == "flip":
            return call("flip", self.probability(scope))
        if dist == "categorical":
            logits = ast.Array((num(0.0), self.real(scope), num(0.5)))
            return call("categorical", logits)
        if dist == "normal":
            return call("normal", self.real(scope), self.positive(scope))
        if dist == "beta":
            return call("beta", op(num(1.0), "+", self.positive(scope)), num(2.0))
        return call(dist, self.positive(scope))

    def _let(self, scope: _Scope, depth: int) -> tuple[ast.Statement | None, _Scope]:
        name = self.name("a")
        value = self.real_value(scope)
        statement = ast.Let(ast.Target(name), self._function(value, scope))
        return statement, scope.plus(
            _Value(ast.Name(name), "real", True if value.noisy else self._noisy)
        )

    def _function(self, a: _Value, scope: _Scope) -> ast.Expr:
        b = self.real_value(scope)
        self._noisy = a.noisy or b.noisy
        x, y = a.expr, b.expr
        return self.pick(
            [
                op(x, "+", y),
                op(x, "*", y),
                op(x, "^", ast.Number(2)),
                op(op(ast.Name("t"), "*", x), "+", num(1.0)),
                call("exp", call("tanh", op(x, "-", y))),
                ast.Conditional(self.truth(scope), x, op(num(1.0), "-", y)),
            ]
        )

    def _plate(self, scope: _Scope, depth: int) -> tuple[ast.Statement | None, _Scope]:
        variable, size = self.name("i"), self.draw(st.integers(2, 3))
        inner = replace(scope, loops=(*scope.loops, (variable, size)))
        body, after = self._block(inner, depth - 1)
        statement = ast.Plate(variable, ast.Number(size), ast.Block(tuple(body)))
        return statement, scope.plus(*self._arrays(body, after, scope, size))

    def _arrays(
        self, body: list[ast.Statement], after: _Scope, scope: _Scope, size: int
    ) -> list[_Value]:
        """What a loop made, seen from outside: entries of arrays, and sums over them."""
        made = {
            v.expr.base.name: v
            for v in after.values
            if isinstance(v.expr, ast.Index) and isinstance(v.expr.base, ast.Name)
        }
        found = []
        for s in body:
            if isinstance(s, ast.Choice) and s.target.name in made:
                v = made[s.target.name]
                outer = tuple(ast.Name(i) for i, _ in scope.loops)
                first = ast.Index(ast.Name(s.target.name), (*outer, ast.Number(0)))
                whole = (
                    ast.Index(ast.Name(s.target.name), outer) if outer else ast.Name(s.target.name)
                )
                found.append(replace(v, expr=first))
                total = call("sum", whole if v.kind == "real" else call("real", whole))
                found.append(_Value(total, "real", v.noisy))
        return found

    def _scan(self, scope: _Scope, depth: int) -> tuple[ast.Statement | None, _Scope]:
        variable, size = self.name("u"), self.draw(st.integers(2, 3))
        state = self.name("c")
        kind = self.pick(["bool", "real"])
        if kind == "bool":
            start = self.truth(scope)
        else:
            start = self.real(scope)
        inner = replace(scope, loops=(*scope.loops, (variable, size)))
        inner = inner.plus(_Value(ast.Name(state), kind, kind == "real"))
        body, after = self._block(inner, depth - 1)
        new = self.truth(after) if kind == "bool" else self._bounded(after)
        body.append(ast.Next(state, new))
        statement = ast.Scan(
            variable, ast.Number(size), (ast.Argument(state, start),), ast.Block(tuple(body))
        )
        last = _Value(ast.Name(state), kind, kind == "real")
        return statement, scope.plus(last, *self._arrays(body, after, scope, size))

    def _bounded(self, scope: _Scope) -> ast.Expr:
        return call("tanh", self.real(scope))

    def _if(self, scope: _Scope, depth: int) -> tuple[ast.Statement | None, _Scope]:
        condition = self.truth(scope)
        then, _ = self._block(scope, depth - 1)
        other, _ = self._block(scope, depth - 1)
        name = self.name("a")
        for block in (then, other):
            block.append(ast.Let(ast.Target(name), self._bounded(scope)))
        statement = ast.If(condition, ast.Block(tuple(then)), ast.Block(tuple(other)))
        return statement, scope.plus(_Value(ast.Name(name), "real", True))

    # ---------------------------------------------------------------------------- expressions

    _noisy = False

    def values(self, scope: _Scope, *kinds: str) -> list[_Value]:
        return [v for v in scope.values if v.kind in kinds]

    def real_value(self, scope: _Scope) -> _Value:
        known = [
            v if v.kind == "real" else replace(v, expr=call("real", v.expr), kind="real")
            for v in scope.values
        ]
        constants = [_Value(num(0.5), "real"), _Value(ast.Name("r"), "real")]
        return self.pick([*constants, *known])

    def real(self, scope: _Scope) -> ast.Expr:
        return self.real_value(scope).expr

    def truth(self, scope: _Scope) -> ast.Expr:
        """A truth value that no continuous choice decides."""
        options: list[ast.Expr] = [v.expr for v in self.values(scope, "bool")]
        options += [op(v.expr, "==", ast.Number(1)) for v in self.values(scope, "int")]
        options += [op(v.expr, ">", num(0.6)) for v in self.values(scope, "real") if not v.noisy]
        return self.pick(options or [ast.Boolean(True)])

    def probability(self, scope: _Scope) -> ast.Expr:
        t = ast.Name("t")
        simple = [num(0.2), num(0.5), t, op(num(1.0), "-", t), op(t, "/", num(2.0))]
        p = self.pick(simple)
        if self.draw(st.booleans()):
            p = ast.Conditional(self.truth(scope), p, self.pick([num(0.6), t]))
        if self.draw(st.integers(0, 5)) == 0:
            p = call("sigmoid", self.real(scope))
        return p

    def positive(self, scope: _Scope) -> ast.Expr:
        simple = [num(0.5), num(1.0), ast.Name("s"), call("exp", ast.Name("r"))]
        if self.draw(st.booleans()):
            return ast.Conditional(self.truth(scope), self.pick(simple), self.pick(simple))
        return self.pick(simple)

    # ------------------------------------------------------------------------------ objective

    def objective(self, body: list[ast.Statement]) -> ast.Program:
        """`z` from the guide; a cost of its choices, and perhaps of the log-densities."""
        terms = [self._term(c) for c in _choices(body)]
        cost = terms[0]
        for term in terms[1:]:
            cost = op(cost, self.pick(["+", "-"]), term)
        if self.draw(st.booleans()):
            square = op(self.pick(terms), "*", self.pick(terms))
            cost = op(cost, "+", square)
        more = [None, ast.Name("log_q"), call("density", call("p"), ast.Name("z"))]
        if (extra := self.pick(more)) is not None:
            cost = op(cost, self.pick(["+", "-"]), extra)
        let = ast.LetTuple(("z", "log_q"), call("sim", call("q")))
        body_ = (*map(_param, PARAMS), let, ast.Return(cost))
        return ast.Program("objective", "cost", (), ast.Block(body_))

    def _term(self, choice: ast.Choice) -> ast.Expr:
        x: ast.Expr = ast.Field(ast.Name("z"), choice.target.name)
        x = call("real", x)
        rank = len(choice.target.indices)
        if rank == 0:
            return self.pick(
                [x, op(ast.Name("r"), "*", x), op(op(x, "+", num(0.5)), "^", ast.Number(2))]
            )
        squares = call("sum", op(x, "^", ast.Number(2)))
        options = [call("sum", x), op(call("sum", x), "^", ast.Number(2)), squares]
        options.append(op(ast.Name("r"), "*", call("exp", call("tanh", call("sum", x)))))
        if rank == 1:
            options.append(call("sum", op(call("cumsum", x), "^", ast.Number(2))))
        return self.pick(options)


def _choices(body: Sequence[ast.Statement]) -> list[ast.Choice]:
    return [n for n in ast.walk(tuple(body)) if isinstance(n, ast.Choice)]


# ------------------------------------------------------------------- changes that keep meanings


def rewrite(node: Any, change: Callable[[ast.Node], ast.Node]) -> Any:
    """A tree with each node changed, from the leaves up."""
    if isinstance(node, tuple):
        return tuple(rewrite(n, change) for n in node)
    if not isinstance(node, ast.Node):
        return node
    names = [f for f in node.__dataclass_fields__ if f not in ("span", "trivia", "unreadable")]
    parts = {f: rewrite(getattr(node, f), change) for f in names}
    return change(replace(node, **parts))


def _as_model(statement: ast.Statement, constants: bool) -> ast.Statement:
    """A statement without strategies; with constants in place of parameters, if asked for."""
    values = {"t": 0.4, "r": -0.2, "s": 1.1}

    def change(node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Choice):
            return replace(node, strategy=None)
        if constants and isinstance(node, ast.Name) and node.name in values:
            return num(values[node.name])
        return node

    return rewrite(statement, change)


def without_strategies(file: ast.File) -> ast.File:
    """The file with all strategies left to the planner."""
    return with_strategies(file, lambda choice: None)


def with_strategies(file: ast.File, pick: Callable[[ast.Choice], str | None]) -> ast.File:
    """The file with the strategy of each of the guide's choices replaced."""

    def change(node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Choice):
            name = pick(node)
            return replace(node, strategy=None if name is None else ast.Strategy(name))
        return node

    guide, *rest = file.declarations
    return ast.File((rewrite(guide, change), *rest))


def renamed(file: ast.File, name: Callable[[str], str]) -> ast.File:
    """The file with each choice renamed, everywhere."""
    chosen = {c.target.name for d in file.declarations for c in _choices((d,))}  # type: ignore[arg-type]

    def change(node: ast.Node) -> ast.Node:
        match node:
            case ast.Name(name=n) if n in chosen:
                return replace(node, name=name(n))
            case ast.Target(name=n) if n in chosen:
                return replace(node, name=name(n))
            case ast.Field(name=n) if n in chosen:
                return replace(node, name=name(n))
        return node

    return rewrite(file, change)
