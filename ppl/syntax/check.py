"""The checker: names, sizes, types, supports, choices, expectations; all errors in one run.

`check_statement` has one method per statement, `check_expr` one per expression, and the calls of
the built-in functions are in `check_calls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ppl.errors import suggestion
from ppl.syntax import ast
from ppl.syntax.check_calls import Calls
from ppl.syntax.check_expr import Expressions
from ppl.syntax.check_statement import Statements
from ppl.syntax.diagnostics import Diagnostic
from ppl.syntax.printer import show_type
from ppl.syntax.scope import Scope, Signature, Var
from ppl.syntax.types import (
    EVENTS,
    NONNEGATIVE,
    NUMBERS,
    UNIT,
    UNKNOWN,
    Interval,
    Num,
    Rec,
    Size,
    Tup,
    Type,
    join,
    put_sizes,
)


def check(
    file: ast.File, imported: Mapping[str, Signature | Var] | None = None
) -> tuple[list[Diagnostic], dict[str, Signature | Var]]:
    """All errors of a file, and what it declares.

    Args:
        imported: what the names from other files mean.
    """
    checker = Checker(file, dict(imported or {}))
    checker.run()
    return checker.errors, checker.declared()


class Checker(Statements, Expressions, Calls):
    """The state of one run: the errors, and what is known of the declarations."""

    def __init__(self, file: ast.File, imported: dict[str, Signature | Var]):
        self.file = file
        self.errors: list[Diagnostic] = []
        self.globals: dict[str, Var] = {n: v for n, v in imported.items() if isinstance(v, Var)}
        self.signatures = {n: s for n, s in imported.items() if isinstance(s, Signature)}
        self.programs: dict[str, ast.Program] = {}
        self.data: dict[str, Var] = {}
        self.params: dict[str, ast.Param] = {}
        self.under_way: list[str] = []
        self.expectations = 0
        self.own: set[str] = set()

    def run(self) -> None:
        for d in self.file.declarations:
            if not isinstance(d, ast.Import):
                self._declare(d)
        for d in self.file.declarations:
            if isinstance(d, ast.Program) and self.programs.get(d.name) is d:
                self.signature(d.name)
        for d in self.file.declarations:
            if isinstance(d, ast.Program) and d.kind == "objective":
                self._check_data(d)

    def declared(self) -> dict[str, Signature | Var]:
        everything: dict[str, Signature | Var] = {**self.globals, **self.signatures}
        return {n: v for n, v in everything.items() if n in self.own}

    # ------------------------------------------------------------------------------- reporting

    def error(
        self, at: ast.Node | ast.Span, what: str, because: str | None = None, fix: str | None = None
    ) -> Any:
        """Report an error; returns the unknown type, with which checking goes on."""
        span = at.span if isinstance(at, ast.Node) else at
        self.errors.append(Diagnostic(what, span, because, fix))
        return UNKNOWN

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """For a first look: errors are found again, and reported, in the second."""
        kept, self.errors = self.errors, []
        try:
            yield
        finally:
            self.errors = kept

    # ---------------------------------------------------------------------------- declarations

    def _declare(self, d: Any) -> None:
        if d.name in self.own:
            self.error(d, f"{d.name!r} is declared twice", fix="give one of them another name")
            return
        self.own.add(d.name)
        if isinstance(d, ast.Program):
            self.programs[d.name] = d
        elif isinstance(d, ast.Extern):
            self._declare_extern(d)
        else:
            scope = Scope(dict(self.globals), "def")
            if isinstance(d, ast.Const):
                self.globals[d.name] = Var(self.expr(d.value, scope), d.span)
                return
            # Data are no constants: programs see them as arguments only.
            sizes = self._bind_parameters((ast.Parameter(d.name, d.type, span=d.span),), scope)
            wanted = scope.names[d.name].type
            self.data[d.name] = scope.names[d.name]
            if d.value is not None:
                found, known = self.expr(d.value, scope), dict[str, Size]()
                if reason := self.misfit(found, wanted, known, sizes):
                    self.error(d.value, f"the data {d.name!r} have the wrong type", reason)
                self.data[d.name] = Var(put_sizes(wanted, known), d.span)

    def _declare_extern(self, d: ast.Extern) -> None:
        scope = Scope(dict(self.globals), "def")
        sizes = self._bind_parameters(d.parameters, scope)
        parameters = {p.name: scope.names[p.name].type for p in d.parameters}
        result = self.type(d.result, scope)
        if ":" not in d.source:
            self.error(
                d,
                f"{d.source!r} does not name a Python function",
                fix='write "module:function" or "file.py:function"',
            )
        self.signatures[d.name] = Signature("extern", d.name, parameters, sizes, Rec({}), result)

    def signature(self, name: str) -> Signature | None:
        """What is known of a declared program, which is checked when it is first asked for."""
        if name in self.signatures or name not in self.programs:
            return self.signatures.get(name)
        d = self.programs[name]
        if name in self.under_way:
            self.error(d, f"{name!r} calls itself", fix="repeat with scan, or with a plate")
            return None
        self.under_way.append(name)
        self.signatures[name] = self._check_program(d)
        self.under_way.pop()
        return self.signatures[name]

    def _check_program(self, d: ast.Program) -> Signature:
        scope = Scope(dict(self.globals), d.kind)
        sizes = self._bind_parameters(d.parameters, scope)
        parameters = {p.name: scope.names[p.name].type for p in d.parameters}
        self.block(d.body, scope)
        result = scope.result
        if d.result is not None:
            declared = self.type(d.result, scope)
            last = d.body.statements[-1] if d.body.statements else d
            if result is None:
                self.error(d.result, f"{d.name!r} has a result type, but returns nothing")
            else:
                self.expect(last, result, declared, f"the result of {d.name}")
            result = declared
        if result is None and d.kind in ("def", "objective"):
            self.error(d, f"the {d.kind} {d.name!r} returns nothing", fix="end it with: return ...")
            result = UNKNOWN
        if d.kind == "objective" and isinstance(result, Num) and result.shape:
            self.error(
                d.body.statements[-1],
                f"the objective {d.name!r} returns an array",
                because=f"its value has the shape {_shape(result)}; what is maximised is a number",
                fix="return sum(...)",
            )
        return Signature(d.kind, d.name, parameters, sizes, Rec(scope.choices), result)

    def _bind_parameters(self, parameters: Iterable[ast.Parameter], scope: Scope) -> frozenset[str]:
        """Define parameters, and the sizes that their types name."""
        parameters = tuple(parameters)
        sizes: set[str] = set()
        for p in parameters:
            if p.type == ast.ArrayType("size"):
                sizes.add(p.name)
            for node in ast.walk(p.type):
                names = node.sizes if isinstance(node, ast.ArrayType) else ()
                sizes |= {s.name for s in names if isinstance(s, ast.Name)}
        sizes -= {n for n, v in self.globals.items() if isinstance(v.type, Num) and v.type.size}
        for name in sizes:
            scope.names[name] = Var(_size_type(Size.of(name)), ast.NOWHERE)
        for p in parameters:
            if p.name in scope.names and p.name not in sizes and p.name not in self.globals:
                self.error(p, f"the parameter {p.name!r} stands twice")
            if p.type != ast.ArrayType("size"):
                scope.names[p.name] = Var(self.type(p.type, scope), p.span)
        return frozenset(sizes)

    def _check_data(self, d: ast.Program) -> None:
        """Where the file has data for all parameters of an objective, they must fit."""
        signature = self.signatures[d.name]
        if not all(p.name in self.data or p.name in self.globals for p in d.parameters):
            return  # to be given by the caller
        sizes: dict[str, Size] = {}
        for p in d.parameters:
            found = (self.data.get(p.name) or self.globals[p.name]).type
            wanted = signature.parameters[p.name]
            if reason := self.misfit(found, wanted, sizes, signature.sizes):
                self.error(p, f"the data {p.name!r} do not fit the objective", because=reason)

    # ----------------------------------------------------------------------------------- types

    def type(self, t: ast.Type, scope: Scope) -> Type:
        """What a written type means."""
        if isinstance(t, ast.RecordType):
            return Rec({p.name: self.type(p.type, scope) for p in t.fields})
        if isinstance(t, ast.TupleType):
            return Tup(tuple(self.type(i, scope) for i in t.items))
        assert isinstance(t, ast.ArrayType)
        base = self._base_type(t, scope)
        shape = tuple(self.size(s, scope) for s in t.sizes)
        if base is None:
            return UNKNOWN
        if base.event and len(shape) < (rank := EVENTS[base.event][0]):
            sizes = ", ".join("nk"[:rank] if rank == 1 else "kk")
            return self.error(t, f"{show_type(t)} needs a size", fix=f"write {t.name}[{sizes}]")
        return base.lifted(*shape) if shape else base

    def _base_type(self, t: ast.ArrayType, scope: Scope) -> Num | None:
        if t.name == "interval":
            ends = [self.expr(a, scope) for a in t.arguments]
            if len(ends) != 2 or not all(isinstance(e, Num) for e in ends):
                self.error(t, "interval needs two numbers", fix="interval(0, 1)")
                return None
            low, high = (e.within for e in ends if isinstance(e, Num))
            return Num("real", Interval(low.low, high.high))
        if t.arguments:
            self.error(t, f"the type {t.name!r} takes no arguments", fix="interval(low, high)")
        bases = {
            **{n: Num("real", i) for n, i in NUMBERS.items()},
            **{n: Num("real", i, event=n) for n, (_, i) in EVENTS.items()},
            "int": Num("int"),
            "bool": Num("bool", UNIT),
        }
        if t.name not in bases:
            known = [*bases, "interval"]
            fix = "a size stands as a parameter of its own: n: size" if t.name == "size" else None
            self.error(t, f"unknown type {t.name!r}", suggestion(t.name, known), fix)
        return bases.get(t.name)

    def size(self, e: ast.Expr, scope: Scope) -> Size:
        """The size that an expression stands for; a fresh unknown after an error."""
        found = self.expr(e, scope)
        if isinstance(found, Num) and found.size is not None:
            return found.size
        if found is not UNKNOWN:
            self.error(
                e,
                "a size must be known before the run",
                because=f"this is {found}, which is computed during it",
                fix="use a number, a const, the size of an argument's type, or len(x)",
            )
        return Size.of(f"?{e.span[0]}")

    # -------------------------------------------------------------------------------- matching

    def expect(self, at: ast.Node, found: Type, wanted: Type, what: str) -> None:
        """Report it unless a value of type `found` may stand where `wanted` is needed."""
        if reason := self.misfit(found, wanted, {}, frozenset()):
            self.error(at, f"{what} has the wrong type", reason, _remedy(found, wanted))

    def misfit(
        self, found: Type, wanted: Type, sizes: dict[str, Size], free: frozenset[str]
    ) -> str | None:
        """Why a value of type `found` does not fit; `sizes` learns the `free` sizes."""
        if found is UNKNOWN or wanted is UNKNOWN:
            return None
        if isinstance(found, Num) and isinstance(wanted, Num):
            return _misfit_num(found, wanted, sizes, free)
        if isinstance(found, Rec) and isinstance(wanted, Rec):
            if missing := [n for n in wanted.fields if n not in found.fields]:
                return (
                    f"the field {missing[0]!r} is missing; {suggestion(missing[0], found.fields)}"
                )
            parts = [(found.fields[n], t, f"in {n!r}: ") for n, t in wanted.fields.items()]
        elif isinstance(found, Tup) and isinstance(wanted, Tup):
            if len(found.items) != len(wanted.items):
                return f"expected {len(wanted.items)} values, found {len(found.items)}"
            parts = [(f, w, "") for f, w in zip(found.items, wanted.items, strict=True)]
        else:
            return f"expected {wanted}, found {found}"
        for part, needed, where in parts:
            if reason := self.misfit(part, needed, sizes, free):
                return where + reason
        return None

    def join_types(self, at: ast.Node, a: Type, b: Type) -> Type:
        """The type of a value that is one of two."""
        if a is UNKNOWN or b is UNKNOWN:
            return UNKNOWN
        if isinstance(a, Num) and isinstance(b, Num) and a.shape == b.shape:
            return join(a, b)
        if type(a) is type(b) and a == b:
            return a
        return self.error(at, "the two have different types", because=f"{a} and {b}")


def _size_type(size: Size) -> Num:
    return Num("int", NONNEGATIVE, size=size)


def _shape(t: Num) -> str:
    return f"[{', '.join(map(str, t.shape))}]"


_KINDS = ("bool", "int", "real")
_ALSO = {
    "lower_cholesky": ("correlation_cholesky", "identity"),
    "correlation_cholesky": ("identity",),
    "positive_definite": ("identity",),
}
"""Structures that are others as well."""


def _misfit_num(
    found: Num, wanted: Num, sizes: dict[str, Size], free: frozenset[str]
) -> str | None:
    says = f"expected {put_sizes(wanted, sizes)}, found {found}"
    if _KINDS.index(found.kind) > _KINDS.index(wanted.kind):
        return says
    if wanted.event and found.event != wanted.event:
        if found.event not in _ALSO.get(wanted.event, ()):
            return says
    elif not wanted.event and not found.within.within(wanted.within):
        return f"{says}: its values may lie outside"
    if len(found.shape) != len(wanted.shape):
        return says
    return _misfit_sizes(found, wanted, sizes, free)


def _misfit_sizes(
    found: Num, wanted: Num, sizes: dict[str, Size], free: frozenset[str]
) -> str | None:
    pairs = list(zip(found.shape, wanted.shape, strict=True))
    if wanted.size is not None:
        if found.size is None:
            return f"expected a size, found {found}, which is computed during the run"
        pairs.append((found.size, wanted.size))
    for f, w in pairs:
        if w.symbol in free and w.symbol not in sizes:
            sizes[str(w.symbol)] = f
        elif w.put(sizes) != f and not any(s.startswith("?") for s in f.symbols() | w.symbols()):
            return f"expected the size {w.put(sizes)}, found {f}"
    return None


def _remedy(found: Type, wanted: Type) -> str | None:
    if isinstance(found, Num) and isinstance(wanted, Num) and found.shape == wanted.shape:
        if found.kind == "real" and wanted.kind != "real":
            return "whole numbers cannot come from real ones; declare it as real"
        if wanted.within.is_positive:
            return "make it positive with exp(...) or softplus(...), or declare it as positive"
        if wanted.event:
            return f"declare it as {wanted.event}, or say that you know it: (x : {wanted})"
        return f"say so if you know better: (x : {wanted})"
    return None
