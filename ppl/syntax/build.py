"""What each rule of the grammar builds; one function each, by the rule's name.

A builder gets the context (for places and texts) and the values of the rule's parts: a token is
its number, a nonterminal what its own rule built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl.syntax import ast
from ppl.syntax.diagnostics import Diagnostic

Build = Callable[[Any, list[Any]], Any]
_BUILD: dict[str, Build] = {}


def builder(name: str, size: int) -> Build | None:
    """The builder of a rule; `None` if the rule's only part is its value."""
    if name in _BUILD:
        return _BUILD[name]
    if size == 1:
        return None
    raise KeyError(f"build: no builder for the rule {name!r}")


def _rule(fun: Build) -> Build:
    _BUILD[fun.__name__.strip("_")] = fun
    return fun


def _list_rule(name: str) -> None:
    """`things: | things thing` and `things: thing | things "," thing`: a list, appended to."""

    def build(_c: Any, v: list[Any]) -> list[Any]:
        if len(v) < 2 or not isinstance(v[0], list):
            return list(v) if len(v) < 2 else [v[0], v[-1]]
        v[0].append(v[-1])
        return v[0]

    _BUILD[name] = build


for _name in ("declarations", "statements", "items", "items_2", "fields", "arguments", "types"):
    _list_rule(_name)


@_rule
def start(c, v):
    return v[0]


@_rule
def names(c, v):
    if len(v) == 1:
        return [c.texts[v[0]]]
    v[0].append(c.texts[v[2]])
    return v[0]


@_rule
def parameters(c, v):
    if not v:
        return []
    before = v[0] if len(v) == 5 else []
    name = v[-3]
    at = (c.starts[name], c.starts[name] + len(c.texts[name]))
    before.append(ast.Parameter(c.texts[name], v[-1], span=at))
    return before


def _string(c, token):
    return c.texts[token][1:-1]


# -------------------------------------------------------------------------------- declarations


@_rule
def import_all(c, v):
    return ast.Import(_string(c, v[1]), span=c.span)


@_rule
def import_names(c, v):
    return ast.Import(_string(c, v[1]), tuple(v[3]), span=c.span)


@_rule
def const(c, v):
    return ast.Const(c.texts[v[1]], v[3], span=c.span)


@_rule
def data_value(c, v):
    return ast.Data(c.texts[v[1]], v[3], value=v[5], span=c.span)


@_rule
def data_file(c, v):
    return ast.Data(c.texts[v[1]], v[3], source=_string(c, v[5]), span=c.span)


@_rule
def extern(c, v):
    return ast.Extern(c.texts[v[1]], tuple(v[3]), v[6], _string(c, v[8]), span=c.span)


@_rule
def network(c, v):
    source = _string(c, v[8])
    return ast.Extern(c.texts[v[1]], tuple(v[3]), v[6], source, network=True, span=c.span)


@_rule
def program(c, v):
    return ast.Program(c.texts[v[0]], c.texts[v[1]], tuple(v[3]), v[5], span=c.span)


@_rule
def program_typed(c, v):
    return ast.Program(c.texts[v[0]], c.texts[v[1]], tuple(v[3]), v[7], v[6], span=c.span)


# ---------------------------------------------------------------------------------- statements


@_rule
def block(c, v):
    return ast.Block(tuple(v[1]), span=c.span)


@_rule
def choice(c, v):
    return ast.Choice(v[0], v[2], v[3], v[4], span=c.span)


@_rule
def let(c, v):
    return ast.Let(v[1], v[3], span=c.span)


@_rule
def let_tuple(c, v):
    return ast.LetTuple(tuple(v[2]), v[5], span=c.span)


@_rule
def param(c, v):
    return ast.Param(c.texts[v[1]], v[3], v[5], span=c.span)


@_rule
def param_random(c, v):
    return ast.Param(c.texts[v[1]], v[3], v[5], random=True, span=c.span)


@_rule
def observe(c, v):
    return ast.Observe(v[1], v[3], v[4], span=c.span)


@_rule
def factor(c, v):
    return ast.Factor(v[1], span=c.span)


@_rule
def plate(c, v):
    return ast.Plate(c.texts[v[1]], v[3], v[4], span=c.span)


@_rule
def scan(c, v):
    return ast.Scan(c.texts[v[1]], v[3], tuple(v[5]), v[6], span=c.span)


@_rule
def next(c, v):
    return ast.Next(c.texts[v[1]], v[3], span=c.span)


@_rule
def if_then(c, v):
    return ast.If(v[1], v[2], span=c.span)


@_rule
def if_else(c, v):
    return ast.If(v[1], v[2], v[4], span=c.span)


@_rule
def return_(c, v):
    return ast.Return(v[1], span=c.span)


@_rule
def target(c, v):
    return ast.Target(c.texts[v[0]], tuple(v[2]) if len(v) == 4 else (), span=c.span)


@_rule
def via(c, v):
    if not v:
        return None
    return ast.Strategy(c.texts[v[1]], tuple(v[3]) if len(v) == 5 else (), span=c.span)


@_rule
def where(c, v):
    return v[1] if v else None


# --------------------------------------------------------------------------------------- types


@_rule
def type_name(c, v):
    return ast.ArrayType(c.texts[v[0]], span=c.span)


@_rule
def type_array(c, v):
    return ast.ArrayType(c.texts[v[0]], (), tuple(v[2]), span=c.span)


@_rule
def type_of(c, v):
    return ast.ArrayType(c.texts[v[0]], tuple(v[2]), span=c.span)


@_rule
def type_of_array(c, v):
    return ast.ArrayType(c.texts[v[0]], tuple(v[2]), tuple(v[5]), span=c.span)


@_rule
def type_record(c, v):
    return ast.RecordType(tuple(v[1]), span=c.span)


@_rule
def type_tuple(c, v):
    return ast.TupleType(tuple(v[1]), span=c.span)


# --------------------------------------------------------------------------------- expressions


@_rule
def name(c, v):
    return ast.Name(c.texts[v[0]], span=c.span)


@_rule
def number(c, v):
    text = c.texts[v[0]]
    return ast.Number(int(text) if text.isdecimal() else float(text), span=c.span)


@_rule
def boolean(c, v):
    return ast.Boolean(c.texts[v[0]] == "true", span=c.span)


@_rule
def call(c, v):
    return ast.Call(c.texts[v[0]], tuple(v[2]), span=c.span)


@_rule
def argument(c, v):
    if len(v) == 3:
        return ast.Argument(c.texts[v[0]], v[2], span=c.span)
    return ast.Argument(None, v[0], span=v[0].span)


@_rule
def parens(c, v):
    return v[1]


@_rule
def ascribe(c, v):
    return ast.Ascribe(v[1], v[3], span=c.span)


@_rule
def tuple_(c, v):
    return ast.Tuple(tuple(v[1]), span=c.span)


@_rule
def array(c, v):
    for item in v[1]:
        if isinstance(item, ast.WholeAxis):
            c.errors.append(
                Diagnostic("':' stands in an array", item.span, fix="write it in an index: x[:, 0]")
            )
    return ast.Array(tuple(v[1]), span=c.span)


@_rule
def comprehension(c, v):
    return ast.Comprehension(v[1], c.texts[v[3]], v[5], span=c.span)


@_rule
def record(c, v):
    return ast.Record(tuple(v[1]), span=c.span)


@_rule
def field_item(c, v):
    name = c.texts[v[0]]
    value = v[2] if len(v) == 3 else ast.Name(name, span=c.span)
    return ast.Argument(name, value, span=c.span)


@_rule
def index(c, v):
    return ast.Index(v[0], tuple(v[2]), span=c.span)


@_rule
def field(c, v):
    return ast.Field(v[0], c.texts[v[2]], span=c.span)


@_rule
def whole_axis(c, v):
    return ast.WholeAxis(span=c.span)


@_rule
def conditional(c, v):
    return ast.Conditional(v[1], v[3], v[5], span=c.span)


# Operators come as a flat list, and precedence climbing makes a tree of it.

PRECEDENCE = {
    **{"or": 1, "and": 2, "not": 3},
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 4),
    **{"+": 5, "-": 5, "*": 6, "/": 6, "@": 6, "unary -": 7, "^": 8},
}
"""How tightly operators bind; those of level 4 do not chain, `^` groups to the right."""


class _Operators(list[Any]):
    """Operands (trees) and operators (tokens) in a row."""


@_rule
def operand(c, v):
    if len(v) == 1:
        return v[0]
    rest = v[1] if isinstance(v[1], _Operators) else [v[1]]
    return _Operators([v[0], *rest])


@_rule
def chain(c, v):
    if len(v) == 1:
        return v[0]
    row = v[0] if isinstance(v[0], _Operators) else _Operators([v[0]])
    row.append(v[1])
    row += v[2] if isinstance(v[2], _Operators) else [v[2]]
    return row


@_rule
def expr(c, v):
    row = v[0]
    return row if not isinstance(row, _Operators) else _Climb(c, row).tree(0)


class _Climb:
    """Precedence climbing over a row of operators and operands."""

    def __init__(self, c: Any, row: list[Any]):
        self.c, self.row, self.at = c, row, 0

    def tree(self, loosest: int) -> ast.Expr:
        left, compared = self._operand(), False
        while self.at < len(self.row):
            token = self.row[self.at]
            op = self.c.texts[token]
            level = PRECEDENCE[op]
            if level < loosest:
                break
            self.at += 1
            right = self.tree(level if op == "^" else level + 1)
            if level == PRECEDENCE["=="] and compared:
                self._refuse_chain(op, token)
            compared = level == PRECEDENCE["=="]
            left = ast.Binary(op, left, right, span=(left.span[0], right.span[1]))
        return left

    def _operand(self) -> ast.Expr:
        first = self.row[self.at]
        self.at += 1
        if not isinstance(first, int):
            return first
        op = self.c.texts[first]
        inner = self.tree(PRECEDENCE["unary -" if op == "-" else op])
        return ast.Unary(op, inner, span=(self.c.starts[first], inner.span[1]))

    def _refuse_chain(self, op: str, token: int) -> None:
        start = self.c.starts[token]
        self.c.errors.append(
            Diagnostic(
                f"comparisons do not chain: {op!r} after another comparison",
                (start, start + len(op)),
                fix="write a < b and b < c",
            )
        )
