"""The canonical form of a text: one layout for every tree, comments kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ppl.syntax import ast
from ppl.syntax.build import PRECEDENCE
from ppl.syntax.parser import parse

WIDTH = 88
"""Longer lines are broken at commas."""


def format_text(text: str, path: str = "<text>") -> str:
    """A text in canonical form.

    Raises:
        TextError: it has syntax errors.

    >>> print(format_text("const K=3 # groups"), end="")
    const K = 3  # groups
    """
    return show(parse(text, path))


def show(file: ast.File) -> str:
    """A file as text, in canonical form."""
    return _Printer(file.trivia).file(file)


def show_expr(expr: ast.Expr) -> str:
    """An expression on one line."""
    return _expr(expr)


def show_type(type_: ast.Type) -> str:
    """A type on one line."""
    match type_:
        case ast.ArrayType(name=name, arguments=arguments, sizes=sizes):
            of = f"({_list(arguments)})" if arguments else ""
            return name + of + (f"[{_list(sizes)}]" if sizes else "")
        case ast.RecordType(fields=fields):
            return "{" + _parameters(fields) + "}"
        case ast.TupleType(items=items):
            return f"({', '.join(map(show_type, items))})"
    raise TypeError(type_)


class _Printer:
    def __init__(self, trivia: Mapping[int, ast.Trivia]):
        self.trivia = trivia
        self.lines: list[str] = []

    def file(self, file: ast.File) -> str:
        last: ast.Declaration | None = None
        for declaration in file.declarations:
            trivia = self._trivia(declaration)
            apart = _is_long(declaration) or _is_long(last) or type(last) is not type(declaration)
            if last is not None and (apart or trivia.blank):
                self.lines.append("")
            self._leading(trivia, "")
            self._declaration(declaration, trivia.trailing)
            last = declaration
        end = file.trivia.get(file.span[1], ast.Trivia())
        if end.leading:
            self.lines += [""] if self.lines else []
            self._leading(end, "")
        return "\n".join(self.lines) + "\n" if self.lines else ""

    def _trivia(self, node: ast.Node) -> ast.Trivia:
        return (
            self.trivia.get(node.span[0], ast.Trivia())
            if node.span != ast.NOWHERE
            else ast.Trivia()
        )

    def _leading(self, trivia: ast.Trivia, indent: str) -> None:
        self.lines += [indent + comment for comment in trivia.leading]

    def _emit(self, indent: str, head: str, expr: ast.Expr | None, tail: str, comment: str) -> None:
        """`head expr tail  # comment`; the expression over several lines if it is too long."""
        text = "" if expr is None else fit(expr, len(indent) + len(head) + len(tail), indent)
        self.lines += (indent + head + text + tail + (f"  {comment}" if comment else "")).split(
            "\n"
        )

    def _declaration(self, d: ast.Declaration, comment: str) -> None:
        match d:
            case ast.Import(path=path, names=None):
                self._emit("", f'import "{path}"', None, "", comment)
            case ast.Import(path=path, names=names):
                self._emit("", f'from "{path}" import {", ".join(names or ())}', None, "", comment)
            case ast.Const(name=name, value=value):
                self._emit("", f"const {name} = ", value, "", comment)
            case ast.Data(name=name, type=type_, value=None, source=source):
                self._emit(
                    "", f'data {name}: {show_type(type_)} from "{source}"', None, "", comment
                )
            case ast.Data(name=name, type=type_, value=value):
                self._emit("", f"data {name}: {show_type(type_)} = ", value, "", comment)
            case ast.Extern():
                word = "network" if d.network else "extern"
                head = f"{word} {d.name}({_parameters(d.parameters)}) -> {show_type(d.result)}"
                self._emit("", f'{head} from "{d.source}"', None, "", comment)
            case ast.Program():
                result = "" if d.result is None else f" -> {show_type(d.result)}"
                head = f"{d.kind} {d.name}({_parameters(d.parameters)}){result} "
                self._block("", head, None, d.body, comment)

    def _block(
        self, indent: str, head: str, expr: ast.Expr | None, block: ast.Block, comment: str
    ) -> None:
        end = self.trivia.get(block.span[1] - 1, ast.Trivia()) if block.span[1] else ast.Trivia()
        if not block.statements and not end.leading and not comment:
            self._emit(indent, head, expr, (" " if expr else "") + "{}", end.trailing)
            return
        self._emit(indent, head, expr, (" " if expr else "") + "{", comment)
        for i, statement in enumerate(block.statements):
            trivia = self._trivia(statement)
            self.lines += [""] if trivia.blank and i else []
            self._leading(trivia, indent + "  ")
            self._statement(indent + "  ", statement, trivia.trailing)
        self._leading(end, indent + "  ")
        self.lines.append(indent + "}" + (f"  {end.trailing}" if end.trailing else ""))

    def _statement(self, indent: str, s: ast.Statement, comment: str) -> None:
        match s:
            case ast.Choice():
                via = "" if s.strategy is None else f" via {_strategy(s.strategy)}"
                tail = via + _where(s.mask)
                self._emit(indent, f"{_target(s.target)} ~ ", s.program, tail, comment)
            case ast.Let():
                self._emit(indent, f"let {_target(s.target)} = ", s.value, "", comment)
            case ast.LetTuple():
                self._emit(indent, f"let ({', '.join(s.names)}) = ", s.value, "", comment)
            case ast.Param():
                sign = "~" if s.random else "="
                self._emit(
                    indent, f"param {s.name}: {show_type(s.type)} {sign} ", s.init, "", comment
                )
            case ast.Observe():
                head = f"observe {_expr(s.value)} ~ "
                self._emit(indent, head, s.program, _where(s.mask), comment)
            case ast.Factor():
                self._emit(indent, "factor ", s.log_weight, "", comment)
            case ast.Return():
                self._emit(indent, "return ", s.value, "", comment)
            case _:
                self._compound(indent, s, comment)

    def _compound(self, indent: str, s: ast.Statement, comment: str) -> None:
        """A statement with blocks."""
        match s:
            case ast.Plate():
                self._block(indent, f"plate {s.variable} in ", s.size, s.body, comment)
            case ast.Scan():
                state = f" with {_arguments(s.state)} "
                self._block(
                    indent, f"scan {s.variable} in {_expr(s.size)}{state}", None, s.body, comment
                )
            case ast.Next():
                self._emit(indent, f"next {s.name} = ", s.value, "", comment)
            case ast.If(otherwise=None):
                self._block(indent, "if ", s.condition, s.then, comment)
            case ast.If():
                self._block(indent, "if ", s.condition, s.then, comment)
                joined = self.lines[-1].strip() if self.lines[-1].strip() in ("}",) else None
                head = f"{self.lines.pop()} else " if joined else f"{indent}else "
                assert s.otherwise is not None
                before = len(self.lines)
                self._block(indent, "", None, s.otherwise, "")
                self.lines[before] = head + self.lines[before].strip()


def _is_long(d: ast.Declaration | None) -> bool:
    return isinstance(d, ast.Program)


def _where(mask: ast.Expr | None) -> str:
    return "" if mask is None else f" where {_expr(mask)}"


def _target(t: ast.Target) -> str:
    return f"{t.name}[{', '.join(t.indices)}]" if t.indices else t.name


def _strategy(s: ast.Strategy) -> str:
    return f"{s.name}({_arguments(s.arguments)})" if s.arguments else s.name


def _arguments(arguments: Iterable[ast.Argument]) -> str:
    return ", ".join(_argument(a) for a in arguments)


def _argument(a: ast.Argument) -> str:
    return _expr(a.value) if a.name is None else f"{a.name} = {_expr(a.value)}"


def _parameters(parameters: Iterable[ast.Parameter]) -> str:
    return ", ".join(f"{p.name}: {show_type(p.type)}" for p in parameters)


def _list(items: Iterable[ast.Expr]) -> str:
    return ", ".join(map(_expr, items))


# --------------------------------------------------------------------------------- expressions


def _level(e: ast.Expr) -> int:
    """How tightly an expression's outermost operator binds."""
    match e:
        case ast.Conditional():
            return 0
        case ast.Binary(op=op):
            return PRECEDENCE[op]
        case ast.Unary(op=op):
            return PRECEDENCE["unary -" if op == "-" else op]
        case _:
            return 10


def _expr(e: ast.Expr, loosest: int = 0) -> str:
    """An expression, in brackets if its operator binds looser than `loosest`."""
    text = _bare(e)
    return text if _level(e) >= loosest else f"({text})"


def _bare(e: ast.Expr) -> str:
    show = _SHOW.get(type(e))
    if show is not None:
        return show(e)
    head, items, close = _parts(e)
    return head + ", ".join(items) + close


def _binary(e: ast.Binary) -> str:
    level = PRECEDENCE[e.op]
    # A unary operator on the right needs no brackets: nothing else could be meant.
    left_level, right_level = (level + 1, level) if e.op == "^" else (level, level + 1)
    if level == 4:
        left_level = 5
    left, right = _expr(e.left, left_level), _expr(e.right, right_level)
    return f"{left}^{right}" if e.op == "^" else f"{left} {e.op} {right}"


def _unary(e: ast.Unary) -> str:
    return e.op + (" " if e.op == "not" else "") + _expr(e.operand, _level(e))


def _conditional(e: ast.Conditional) -> str:
    return f"if {_expr(e.condition)} then {_expr(e.then)} else {_expr(e.otherwise)}"


_SHOW: dict[type, Callable[[Any], str]] = {
    ast.Number: lambda e: repr(e.value),
    ast.Boolean: lambda e: "true" if e.value else "false",
    ast.Name: lambda e: e.name,
    ast.Unary: _unary,
    ast.Binary: _binary,
    ast.Conditional: _conditional,
    ast.Index: lambda e: f"{_expr(e.base, 10)}[{_list(e.indices)}]",
    ast.Field: lambda e: f"{_expr(e.base, 10)}.{e.name}",
    ast.WholeAxis: lambda e: ":",
    ast.Comprehension: lambda e: f"[{_expr(e.value)} for {e.variable} in {_expr(e.size)}]",
    ast.Ascribe: lambda e: f"({_expr(e.value)} : {show_type(e.type)})",
}


def _parts(e: ast.Expr) -> tuple[str, list[str], str]:
    """Opening, items and closing of what is a list in brackets."""
    match e:
        case ast.Call(function=function, arguments=arguments):
            return f"{function}(", [_argument(a) for a in arguments], ")"
        case ast.Array(items=items):
            return "[", [_expr(i) for i in items], "]"
        case ast.Tuple(items=items):
            return "(", [_expr(i) for i in items], ")"
        case ast.Record(fields=fields):
            return "{", [_record_field(f) for f in fields], "}"
    raise TypeError(e)


def _record_field(f: ast.Argument) -> str:
    if f.value == ast.Name(f.name or ""):
        return str(f.name)
    return f"{f.name}: {_expr(f.value)}"


def fit(e: ast.Expr, used: int, indent: str) -> str:
    """An expression, broken at the commas of its outermost brackets if it would be too long."""
    text = _expr(e)
    if used + len(text) <= WIDTH or not isinstance(
        e, ast.Call | ast.Array | ast.Tuple | ast.Record
    ):
        return text
    head, items, close = _parts(e)
    lines, line = [head], indent + "   "
    for i, item in enumerate(items):
        piece = f" {item}" + ("," if i < len(items) - 1 else "")
        if len(line) + len(piece) > WIDTH and line.strip():
            lines.append(line)
            line = indent + "   "
        line += piece
    return "\n".join([*lines, line, indent + close])
