"""Values of a checked text's expressions: numbers, arrays, records, programs with arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import lang
from ppl.compiler.enumeration import enumeration
from ppl.lang.logspace import log_mean_exp
from ppl.syntax import ast
from ppl.syntax.capture import Seen, path_of
from ppl.syntax.distributions import FAMILIES
from ppl.syntax.environment import App, Env, bind
from ppl.syntax.functions import FUNCTIONS
from ppl.syntax.functions_jax import JAX


def value(e: ast.Expr, env: Env) -> Any:
    """The value of an expression: a number, an array, a record, a program with its arguments."""
    return _EXPRESSIONS[type(e)](e, env)


def _name(e: ast.Name, env: Env) -> Any:
    if e.name in env.names:
        return env.names[e.name]
    return env.module.consts[e.name]


def _index(e: ast.Index, env: Env) -> Any:
    base, rest = _entry(e, env)
    if not rest:
        return base
    whole = slice(None)
    indices = tuple(whole if isinstance(i, ast.WholeAxis) else value(i, env) for i in rest)
    return jnp.asarray(base)[indices]


def _entry(e: ast.Index, env: Env) -> tuple[Any, tuple[ast.Expr, ...]]:
    """What is indexed, and the indices left: loops' own entries are at hand already."""
    if (path := path_of(e.base)) is not None:
        names = tuple(i.name if isinstance(i, ast.Name) else "" for i in e.indices)
        for count in range(len(names), 0, -1):
            if (path, names[:count]) in env.entries:
                return env.entries[path, names[:count]], e.indices[count:]
    return value(e.base, env), e.indices


def _array(e: ast.Array, env: Env) -> Any:
    items = [value(i, env) for i in e.items]
    if all(isinstance(i, int | float) for i in items):
        return jnp.asarray(np.asarray(items))
    return jnp.stack([jnp.asarray(i) for i in _same_dtype(items)])


def _same_dtype(items: list[Any]) -> list[Any]:
    dtype = jnp.result_type(*items)
    return [jnp.asarray(i, dtype) for i in items]


def _comprehension(e: ast.Comprehension, env: Env) -> Any:
    size = int(value(e.size, env))
    seen = Seen.of((e.value,), env, e.variable, size)

    def entry(index: Any, mapped: Any) -> Any:
        inner = seen.env(env, seen.shared(), mapped, e.variable, index)
        return jax.tree.map(jnp.asarray, value(e.value, inner))

    return jax.vmap(entry)(jnp.arange(size), seen.mapped)


def _conditional(e: ast.Conditional, env: Env) -> Any:
    condition = value(e.condition, env)
    then, other = value(e.then, env), value(e.otherwise, env)
    if isinstance(condition, bool):
        return then if condition else other
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), then, other)


def _binary(e: ast.Binary, env: Env) -> Any:
    left, right = value(e.left, env), value(e.right, env)
    if isinstance(left, dict):
        return {**left, **right}
    return JAX[e.op](left, right)


def _unary(e: ast.Unary, env: Env) -> Any:
    operand = value(e.operand, env)
    return -_number(operand) if e.op == "-" else jnp.logical_not(operand)


def _number(x: Any) -> Any:
    is_bool = isinstance(x, jax.Array) and x.dtype == bool
    return x.astype(int) if is_bool else x


# --------------------------------------------------------------------------------------- calls


def _call(e: ast.Call, env: Env) -> Any:
    name = e.function
    if name in env.module.homes:
        return _declared(e, env)
    if name in FAMILIES:
        args = tuple(value(a, env) for a in e.positional())
        return App(getattr(lang, name), args, {n: value(a, env) for n, a in e.named().items()})
    if name in _SPECIAL:
        return _SPECIAL[name](e, env)
    assert name in FUNCTIONS
    args = [value(a, env) for a in e.positional()]
    return JAX[name](*args, **{n: value(a, env) for n, a in e.named().items()})


def _declared(e: ast.Call, env: Env) -> Any:
    home = env.module.homes[e.function]
    d = home.declarations[e.function]
    args = tuple(value(a, env) for a in e.positional())
    kwargs = {n: value(a, env) for n, a in e.named().items()}
    if isinstance(d, ast.Extern):
        bound = bind(d.name, d.parameters, args, kwargs)
        given = [bound[p.name] for p in d.parameters]
        function = home.externs[d.name]
        return (lang.param(d.name, function) if d.network else function)(*given)
    assert isinstance(d, ast.Program)
    if d.kind in ("model", "guide"):
        return home.apply(d, args, kwargs)
    return home.run(d, args, kwargs)


def _sim(e: ast.Call, env: Env) -> Any:
    app = value(e.positional()[0], env)
    return lang.sim(app.program)(*app.args, **app.kwargs)


def _density(e: ast.Call, env: Env) -> Any:
    app, choices = (value(a, env) for a in e.positional())
    return lang.density(app.program)(choices, *app.args, **app.kwargs)


def _expectation(e: ast.Call, env: Env) -> Any:
    return lang.E(lambda: value(e.positional()[0], env))


def _elbo(e: ast.Call, env: Env) -> Any:
    """As `vi.elbo`."""
    model, guide, observed = (value(a, env) for a in e.positional())
    z, log_q = lang.sim(guide.program)(*guide.args, **guide.kwargs)
    return lang.density(model.program)({**z, **observed}, *model.args, **model.kwargs) - log_q


def _iwelbo(e: ast.Call, env: Env) -> Any:
    """As `vi.iwelbo`."""
    particles = int(value(e.named()["particles"], env))
    log_weights = jax.vmap(lambda _: _elbo(e, env))(jnp.arange(particles))
    return log_mean_exp(log_weights)


def _mixture(e: ast.Call, env: Env) -> Any:
    weights, component = (value(a, env) for a in e.positional())
    family = component.program.family.value
    own = dict(zip(family.parameters, component.args, strict=False)) | dict(component.kwargs)
    given = tuple(n for n in own if n in family.alternatives)
    clash = {"logits", "probs"} & set(own)
    program = lang.mixture_same_family(component.program, given=given)
    # Batches of components stand before the axis of the mixture, as the distribution wants them.
    return App(program, (), {("mixture_probs" if clash else "probs"): weights, **own})


def _marginal(e: ast.Call, env: Env) -> Any:
    app = value(e.positional()[0], env)
    keep = e.named()["keep"]
    assert isinstance(keep, ast.Record)
    names = [str(f.name) for f in keep.fields]
    program = lang.marginal(app.program, keep=names, by=_method(e, env))  # type: ignore[attr-defined]
    return replace(app, program=program)


def _normalize(e: ast.Call, env: Env) -> Any:
    app = value(e.positional()[0], env)
    program = lang.normalize(app.program, by=_method(e, env))  # type: ignore[attr-defined]
    return replace(app, program=program)


def _method(e: ast.Call, env: Env) -> Any:
    by = e.named()["by"]
    assert isinstance(by, ast.Call)
    args = [_method_argument(a, env) for a in by.positional()]
    kwargs = {n: _method_argument(a, env) for n, a in by.named().items()}
    return _METHODS[by.function](*args, **kwargs)


def _method_argument(e: ast.Expr, env: Env) -> Any:
    if isinstance(e, ast.Name) and e.name in env.module.homes:
        home = env.module.homes[e.name]
        if e.name in home.programs:
            return home.programs[e.name]
    return value(e, env)


_METHODS: dict[str, Callable[..., Any]] = {
    "enumeration": enumeration,
    "importance": lang.importance,
    "sir": lang.sir,
}

_SPECIAL: dict[str, Callable[[ast.Call, Env], Any]] = {
    "sim": _sim,
    "density": _density,
    "E": _expectation,
    "elbo": _elbo,
    "iwelbo": _iwelbo,
    "mixture": _mixture,
    "marginal": _marginal,
    "normalize": _normalize,
}

_EXPRESSIONS: dict[type, Callable[[Any, Env], Any]] = {
    ast.Number: lambda e, env: e.value,
    ast.Boolean: lambda e, env: e.value,
    ast.Name: _name,
    ast.Tuple: lambda e, env: tuple(value(i, env) for i in e.items),
    ast.Array: _array,
    ast.Record: lambda e, env: {f.name: value(f.value, env) for f in e.fields},
    ast.Comprehension: _comprehension,
    ast.Ascribe: lambda e, env: value(e.value, env),
    ast.Field: lambda e, env: value(e.base, env)[e.name],
    ast.Index: _index,
    ast.Unary: _unary,
    ast.Binary: _binary,
    ast.Conditional: _conditional,
    ast.Call: _call,
}
