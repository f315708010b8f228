"""From a checked text to generative functions and objectives of `ppl.lang`.

A program of the text becomes a Python function under `gen` that runs its statements: there is no
second compiler, and a text program and its Python twin draw the same values from the same key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ppl import lang
from ppl.syntax import ast
from ppl.syntax.diagnostics import Source
from ppl.syntax.elaborate_expr import value
from ppl.syntax.elaborate_statement import run_block
from ppl.syntax.environment import App, Env, bind


class Module:
    """What a file declares, as values: constants, functions, programs.

    Attributes:
        programs: models and guides, as generative functions.
        objectives: functions of data.
    """

    def __init__(
        self,
        file: ast.File,
        source: Source,
        imported: Mapping[str, Module],
        externs: Callable[[str], Callable[..., Any]],
    ):
        self.source = source
        self.declarations: dict[str, ast.Declaration] = {}
        self.homes: dict[str, Module] = dict(imported)
        self.externs: dict[str, Any] = {}
        self.consts: dict[str, Any] = {}
        self.programs: dict[str, Any] = {}
        self.objectives: dict[str, Any] = {}
        self.sized: dict[tuple[str, tuple[int, ...]], Any] = {}
        for d in file.declarations:
            if isinstance(d, ast.Import):
                continue
            self.declarations[d.name] = d  # type: ignore[attr-defined]
            self.homes[d.name] = self  # type: ignore[attr-defined]
            if isinstance(d, ast.Const):
                self.consts[d.name] = value(d.value, Env(self))
            elif isinstance(d, ast.Extern):
                self.externs[d.name] = externs(d.source)
            elif isinstance(d, ast.Program):
                self._add_program(d)
        for name, home in imported.items():
            for mine, theirs in ((self.consts, home.consts), (self.programs, home.programs)):
                if name in theirs:
                    mine.setdefault(name, theirs[name])

    def at(self, statement: ast.Statement, run: Callable[[], Any]) -> Any:
        """Run a statement so that tracebacks and JAX see its line of the text.

        The frame in between has the text's name and line, as if the text were Python.
        """
        if statement.span == ast.NOWHERE:
            return run()
        line, _ = self.source.position(statement.span[0])
        return eval(_code(self.source.path, line), {"run": run})

    def _add_program(self, d: ast.Program) -> None:
        def run(*args: Any, **kwargs: Any) -> Any:
            return self.run(d, args, kwargs)

        run.__name__ = run.__qualname__ = d.name
        if d.kind in ("model", "guide"):
            self.programs[d.name] = lang.gen(run)
        else:
            self.objectives[d.name] = run

    def apply(self, d: ast.Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> App:
        """A program with its arguments.

        Sizes become part of the program: its arguments are arrays, which may be traced.
        """
        names = [p.name for p in d.parameters]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        given = {n: given[n] for n in names}
        sizes = {p.name: given.pop(p.name) for p in d.parameters if p.type == ast.ArrayType("size")}
        if not sizes:
            return App(self.programs[d.name], tuple(given.values()))
        key = (d.name, tuple(sizes.values()))
        if key not in self.sized:
            rest = tuple(given)

            def run(*arrays: Any) -> Any:
                return self.run(d, (), {**dict(zip(rest, arrays, strict=True)), **sizes})

            run.__name__ = run.__qualname__ = d.name
            self.sized[key] = lang.gen(run)
        return App(self.sized[key], tuple(given.values()))

    def run(self, d: ast.Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the statements of a declared program; its result."""
        factors = [n for n in ast.walk(d.body) if isinstance(n, ast.Factor | ast.Observe)]
        env = Env(self, numbers={id(n): i for i, n in enumerate(factors)})
        env.names.update(bind(d.name, d.parameters, args, kwargs))
        return run_block(d.body, env)


@functools.cache
def _code(path: str, line: int) -> Any:
    code = compile("\n" * (line - 1) + "run()", path, "eval")
    return code.replace(co_name="text", co_qualname="text")
