"""Statements of a checked text, run by `gen` programs.

Blocks (of a plate, scan or if) become programs that run `inline`, so that `theta[i] ~ ...` in a
plate makes the choice `theta`, with an axis of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ppl import lang
from ppl.compiler.strategies import strategies
from ppl.errors import PplError
from ppl.lang import supports
from ppl.syntax import ast
from ppl.syntax.capture import Seen, key_of, unkey
from ppl.syntax.elaborate_expr import value
from ppl.syntax.environment import App, Env


def run_block(block: ast.Block, env: Env) -> Any:
    """Run statements; the value of `return`, if there is one."""
    result = None
    for s in block.statements:
        result = env.module.at(s, lambda s=s: _STATEMENTS[type(s)](s, env))
    return result


def _choice(s: ast.Choice, env: Env) -> None:
    app = value(s.program, env)
    program = app.program
    if s.strategy is not None:
        program = program.via(_strategy(s.strategy, env))
    if s.mask is not None:
        program = program.mask(value(s.mask, env))
    env.define(s.target, replace(app, program=program).run() @ s.target.name)


def _strategy(s: ast.Strategy, env: Env) -> Any:
    if not s.arguments:
        return s.name
    # A name stands for itself: baseline = leave_one_out.
    given = {
        str(a.name): a.value.name if isinstance(a.value, ast.Name) else value(a.value, env)
        for a in s.arguments
    }
    try:
        return type(strategies[s.name])(**given)
    except TypeError as e:
        raise PplError(f"the strategy {s.name!r} has no such arguments", because=str(e)) from None


def _let(s: ast.Let, env: Env) -> None:
    env.define(s.target, value(s.value, env))


def _let_tuple(s: ast.LetTuple, env: Env) -> None:
    env.names.update(zip(s.names, value(s.value, env), strict=True))


def _param(s: ast.Param, env: Env) -> None:
    assert isinstance(s.type, ast.ArrayType)
    shape = tuple(int(value(size, env)) for size in s.type.sizes)
    init: Any = value(s.init, env)
    if s.random:
        app = init
        init = lambda key: lang.seed(lambda: _draw(app, shape))(key)
    else:
        init = jnp.broadcast_to(jnp.asarray(init, jnp.result_type(float)), shape)
    env.names[s.name] = lang.param(s.name, init, support=_support(s.type, env))


def _draw(app: App, shape: tuple[int, ...]) -> Any:
    """A draw of a shape, from a distribution whose parameters broadcast to it."""
    family = app.program.family.value
    params = family.bind(app.args, dict(app.kwargs))
    event = tuple(family.event_shape({n: p.shape for n, p in params.items()}))
    batch = shape[: len(shape) - len(event)]
    wide = {
        n: jnp.broadcast_to(p, batch + p.shape[p.ndim - family.parameters[n] :])
        for n, p in params.items()
    }
    return app.program.sample(**wide)


def _support(t: ast.ArrayType, env: Env) -> supports.Support:
    if t.name == "interval":
        return supports.interval(*(value(a, env) for a in t.arguments))
    return getattr(supports, t.name)


def _factor(s: ast.Factor, env: Env) -> None:
    lang.factor(value(s.log_weight, env)) @ f"factor{env.numbers[id(s)]}"


def _observe(s: ast.Observe, env: Env) -> None:
    app = value(s.program, env)
    program = app.program if s.mask is None else app.program.mask(value(s.mask, env))
    log_p = program.logpdf(value(s.value, env), *app.args, **app.kwargs)
    lang.factor(log_p) @ f"factor{env.numbers[id(s)]}"


def _next(s: ast.Next, env: Env) -> None:
    env.state[s.name] = value(s.value, env)


def _return(s: ast.Return, env: Env) -> Any:
    return value(s.value, env)


# ------------------------------------------------------------------------- loops and branches


def _body(statement: ast.Statement, run: Callable[..., Any]) -> Any:
    run.__name__ = type(statement).__name__.lower()
    return lang.gen(run)


def _plate(s: ast.Plate, env: Env) -> None:
    size = int(value(s.size, env))
    seen = Seen.of((s.body,), env, s.variable, size)

    def lane(index: Any, mapped: Any, shared: Any) -> Any:
        inner = seen.env(env, shared, mapped, s.variable, index)
        run_block(s.body, inner)
        return _made(inner)

    program = lang.plate(_body(s, lane), size=size, in_axes=(0, 0, None))
    app = program(jnp.arange(size), seen.mapped, seen.shared())
    made: Any = app @ lang.inline(*choice_names(s.body))
    _take(made, env)


def _made(inner: Env) -> dict[str, Any]:
    """The entries that a run of a loop made."""
    return {n: x for (n, indices), x in inner.entries.items() if indices == inner.loops}


def _take(made: Mapping[str, Any], env: Env) -> None:
    """What a loop made is an array outside of it, an entry only for the loops further out."""
    for name, x in made.items():
        env.define(ast.Target(name, env.loops), x)


def _scan(s: ast.Scan, env: Env) -> None:
    size = int(value(s.size, env))
    seen = Seen.of((s.body,), env, s.variable, size)
    state = {str(a.name): _as_state(value(a.value, env)) for a in s.state}

    def step(state: Any, x: Any, shared: Any) -> Any:
        index, mapped = x
        inner = seen.env(env, shared, mapped, s.variable, index)
        inner.names.update(state)
        run_block(s.body, inner)
        like = {n: jax.tree.map(_like, inner.state[n], x) for n, x in state.items()}
        return like, _made(inner)

    program = lang.scan(_body(s, step), length=size)
    xs = (jnp.arange(size), seen.mapped)
    app = program(state, xs, shared=seen.shared())
    results: Any = app @ lang.inline(*choice_names(s.body))
    last, made = results
    _take(made, env)
    env.names.update(last)


def _as_state(x: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, _dtype(leaf)), x)


def _dtype(x: Any) -> Any:
    if isinstance(x, float) or jnp.issubdtype(jnp.result_type(x), jnp.floating):
        return jnp.result_type(float)
    return jnp.result_type(x)


def _like(new: Any, old: Any) -> Any:
    return jnp.broadcast_to(jnp.asarray(new, old.dtype), old.shape)


def _if(s: ast.If, env: Env) -> None:
    blocks = (s.then, s.otherwise or ast.Block(()))
    seen = Seen.of(blocks, env)
    both = sorted(set.intersection(*(set(_defined(b)) for b in blocks)))

    def branch(block: ast.Block) -> Any:
        def run(shared: Any) -> Any:
            inner = seen.env(env, shared, {}, "", None)
            run_block(block, inner)
            names = {n: inner.names[n] for n, indices in both if not indices}
            entries = {key_of(n, i): inner.entries[n, i] for n, i in both if i}
            return jax.tree.map(jnp.asarray, (names, entries))

        return _body(s, run)

    choices = dict.fromkeys(a for b in blocks for a in choice_names(b))
    program = lang.cond(*map(branch, blocks))
    app = program(value(s.condition, env), seen.shared())
    results: Any = app @ lang.inline(*choices)
    names, entries = results
    env.names.update(names)
    env.entries.update({unkey(k): x for k, x in entries.items()})


def _defined(block: ast.Block) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Names (with their indices) that a block defines for what comes after it."""
    for s in block.statements:
        match s:
            case ast.Choice(target=target) | ast.Let(target=target):
                yield target.name, target.indices
            case ast.LetTuple(names=names):
                yield from ((n, ()) for n in names)
            case ast.Scan(state=state):
                yield from ((str(a.name), ()) for a in state)
                yield from _one_less(s.body)
            case ast.Plate():
                yield from _one_less(s.body)
            case ast.If(then=then, otherwise=otherwise) if otherwise is not None:
                yield from set(_defined(then)) & set(_defined(otherwise))


def _one_less(body: ast.Block) -> Iterable[tuple[str, tuple[str, ...]]]:
    yield from ((n, i[:-1]) for n, i in _defined(body) if i)


def choice_names(block: ast.Block) -> list[str]:
    """The addresses of the choices in a block."""
    return list(
        dict.fromkeys(n.target.name for n in ast.walk((block,)) if isinstance(n, ast.Choice))
    )


_STATEMENTS: dict[type, Callable[[Any, Env], Any]] = {
    ast.Choice: _choice,
    ast.Let: _let,
    ast.LetTuple: _let_tuple,
    ast.Param: _param,
    ast.Factor: _factor,
    ast.Observe: _observe,
    ast.Plate: _plate,
    ast.Scan: _scan,
    ast.Next: _next,
    ast.If: _if,
    ast.Return: _return,
}
