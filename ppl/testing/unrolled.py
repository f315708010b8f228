"""Programs of the text language with their loops written out, one statement after the other.

For files as `ppl.testing.programs.programs` makes them: the sizes of loops are numbers, and their
variables are indices only. What a choice `x[i, j]` made is `x_0_2` in the first run of the loop
over `i` and the third of the one over `j`; after the loops `x` is an array of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ppl.syntax import ast


@dataclass(frozen=True)
class _Made:
    """What a name stands for, and how many of the loops around are in its indices."""

    value: ast.Expr
    depth: int = 0


_Env = Mapping[str, _Made]


def unrolled(file: ast.File) -> ast.File:
    """The file's guide, model and objective without loops: the same law, density and cost."""
    *programs, objective = (d for d in file.declarations if isinstance(d, ast.Program))
    sizes = _sizes(programs[0].body.statements)
    written = [replace(p, body=_block(p.body.statements, {}, ())) for p in programs]
    return ast.File((*written, _with_fields(objective, sizes)))


def has_loops(file: ast.File) -> bool:
    """Whether there is anything to write out."""
    return any(isinstance(n, ast.Plate | ast.Scan) for n in ast.walk(file.declarations))


def _block(statements: Sequence[ast.Statement], env: _Env, run: tuple[int, ...]) -> ast.Block:
    return ast.Block(tuple(_write(statements, env, run)[0]))


def _numbered(name: str, run: tuple[int, ...]) -> str:
    return "_".join((name, *map(str, run)))


def _write(
    statements: Sequence[ast.Statement], env: _Env, run: tuple[int, ...]
) -> tuple[list[ast.Statement], _Env]:
    """Statements in one run of the loops around, and what names stand for after them."""
    out: list[ast.Statement] = []
    for statement in statements:
        match statement:
            case ast.Choice(target=ast.Target(name=name), program=program):
                new = _numbered(name, run)
                choice = replace(statement, target=ast.Target(new), program=_replaced(program, env))
                out.append(choice)
                env = {**env, name: _Made(ast.Name(new), len(run))}
            case ast.Let(target=ast.Target(name=name), value=value):
                new = _numbered(name, run)
                out.append(ast.Let(ast.Target(new), _replaced(value, env)))
                env = {**env, name: _Made(ast.Name(new))}
            case ast.If(condition=condition, then=then, otherwise=otherwise):
                assert otherwise is not None
                blocks = [_block(b.statements, env, run) for b in (then, otherwise)]
                out.append(ast.If(_replaced(condition, env), *blocks))
                lets = [s.target.name for s in then.statements if isinstance(s, ast.Let)]
                env = {**env, **{n: _Made(ast.Name(_numbered(n, run))) for n in lets}}
            case ast.Plate() | ast.Scan():
                made, env = _loop(statement, env, run)
                out += made
            case _:
                out.append(statement)
    return out, env


def _loop(
    loop: ast.Plate | ast.Scan, env: _Env, run: tuple[int, ...]
) -> tuple[list[ast.Statement], _Env]:
    out: list[ast.Statement] = []
    first = loop.state if isinstance(loop, ast.Scan) else ()
    state = {a.name: a.value for a in first if a.name is not None}
    ends: list[_Env] = []
    inside, size = env, _number(loop.size)
    for k in range(size + 1):
        for name, value in state.items():
            new = _numbered(f"{name}_before", (*run, k))
            out.append(ast.Let(ast.Target(new), _replaced(value, inside)))
            env = {**env, name: _Made(ast.Name(new))}
        if k == size:
            break
        body = [s for s in loop.body.statements if not isinstance(s, ast.Next)]
        state = {s.name: s.value for s in loop.body.statements if isinstance(s, ast.Next)}
        made, inside = _write(body, env, (*run, k))
        out += made
        ends.append(inside)
    arrays = {
        name: _Made(ast.Array(tuple(end[name].value for end in ends)), len(run))
        for name, last in ends[-1].items()
        if last.depth == len(run) + 1
    }
    return out, {**env, **arrays}


def _number(size: ast.Expr) -> int:
    assert isinstance(size, ast.Number)
    return int(size.value)


def _replaced(node: Any, env: _Env) -> Any:
    """An expression with what names stand for in their place."""
    match node:
        case tuple():
            return tuple(_replaced(n, env) for n in node)
        case ast.Index(base=ast.Name(name=name), indices=indices) if name in env:
            value = env[name].value
            for index in indices[env[name].depth :]:
                assert isinstance(value, ast.Array)
                value = value.items[_number(index)]
            return value
        case ast.Name(name=name) if name in env:
            return env[name].value
        case ast.Node():
            names = [f for f in node.__dataclass_fields__ if f not in ("span", "trivia")]
            return replace(node, **{f: _replaced(getattr(node, f), env) for f in names})
    return node


def _sizes(
    statements: Sequence[ast.Statement], around: tuple[int, ...] = ()
) -> dict[str, tuple[int, ...]]:
    """The sizes of the loops around each choice."""
    found: dict[str, tuple[int, ...]] = {}
    for statement in statements:
        match statement:
            case ast.Choice(target=ast.Target(name=name)):
                found[name] = around
            case ast.Plate() | ast.Scan():
                inner = (*around, _number(statement.size))
                found |= _sizes(statement.body.statements, inner)
            case ast.If(then=then, otherwise=otherwise):
                for block in (then, otherwise):
                    found |= _sizes(block.statements if block else (), around)
    return found


def _with_fields(node: Any, sizes: Mapping[str, tuple[int, ...]]) -> Any:
    """The objective with an array of fields for each field that was an array."""

    def gathered(field: ast.Field, run: tuple[int, ...]) -> ast.Expr:
        left = sizes[field.name][len(run) :]
        if not left:
            return replace(field, name=_numbered(field.name, run))
        return ast.Array(tuple(gathered(field, (*run, k)) for k in range(left[0])))

    match node:
        case tuple():
            return tuple(_with_fields(n, sizes) for n in node)
        case ast.Field(base=ast.Name(name="z")):
            return gathered(node, ())
        case ast.Node():
            names = [f for f in node.__dataclass_fields__ if f not in ("span", "trivia")]
            return replace(node, **{f: _with_fields(getattr(node, f), sizes) for f in names})
    return node
