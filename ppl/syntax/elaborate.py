"""From a checked text to generative functions and objectives of `ppl.lang`.

A program of the text becomes a Python function under `gen` that runs its statements: there is no
second compiler, and a text program and its Python twin draw the same values from the same key.
Blocks (of a plate, scan or if) become programs that run `inline`, so that `theta[i] ~ ...` in a
plate makes the choice `theta`, with an axis of lanes. A lane sees its entry `x[i]` of an array as a
mapped argument, not as an index into it: the compiler then knows that lanes are independent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from ppl import lang
from ppl.compiler.enumeration import enumeration
from ppl.compiler.strategies import strategies
from ppl.errors import PplError
from ppl.lang import supports
from ppl.syntax import ast
from ppl.syntax.diagnostics import Source
from ppl.syntax.distributions import FAMILIES
from ppl.syntax.functions import FUNCTIONS
from ppl.syntax.functions_jax import JAX


@dataclass(frozen=True)
class App:
    """A generative function with its arguments, before it is run."""

    program: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        return self.program(*self.args, **self.kwargs)


@dataclass(frozen=True)
class Env:
    """The values of names at one place of a program.

    Attributes:
        names: name -> value.
        entries: (name, indices) -> the entry of an array in this run of the loops over the indices.
        loops: the loops around.
        module: what the file declares.
        numbers: of the factors of the program, by the identity of the statement.
    """

    module: Module
    names: dict[str, Any] = field(default_factory=dict)
    entries: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict)
    loops: tuple[str, ...] = ()
    numbers: Mapping[int, int] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def define(self, target: ast.Target, value: Any) -> None:
        if target.indices:
            self.entries[target.name, target.indices] = value
        else:
            self.names[target.name] = value

    def inside(self, names: Mapping[str, Any], entries: Mapping[Any, Any], loop: str = "") -> Env:
        loops = (*self.loops, loop) if loop else self.loops
        return replace(self, names=dict(names), entries=dict(entries), loops=loops, state={})


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


def bind(
    name: str,
    parameters: tuple[ast.Parameter, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The values of parameters, and of the sizes in their types."""
    names = [p.name for p in parameters]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if len(args) > len(names) or set(given) != set(names):
        raise PplError(
            f"{name} takes {', '.join(names) or 'no arguments'}",
            because=f"it was given {len(args)} by position and {sorted(kwargs)} by name",
        )
    bound: dict[str, Any] = {}
    for p in parameters:
        x = given[p.name]
        if p.type == ast.ArrayType("size"):
            bound[p.name] = _static_size(name, p.name, x)
        else:
            bound[p.name] = _bind_sizes(p.type, x, f"{name}: {p.name}", bound)
    return bound


def _static_size(program: str, name: str, x: Any) -> int:
    try:
        return int(x)
    except (TypeError, ValueError):  # of a tracer, JAX's is a TypeError
        raise PplError(
            f"{program}: the size {name!r} must be known when the program is built",
            because=f"found {x}, which is computed during the run",
            fix="close over it, or take it from the shape of an array",
        ) from None


def _bind_sizes(t: ast.Type, x: Any, what: str, bound: dict[str, Any]) -> Any:
    if isinstance(t, ast.RecordType):
        return {p.name: _bind_sizes(p.type, x[p.name], f"{what}.{p.name}", bound) for p in t.fields}
    if isinstance(t, ast.TupleType):
        return tuple(_bind_sizes(i, v, what, bound) for i, v in zip(t.items, x, strict=True))
    assert isinstance(t, ast.ArrayType)
    if not isinstance(x, int | float | bool):
        x = jnp.asarray(x)
    shape = jnp.shape(x)
    if len(shape) != len(t.sizes):
        raise PplError(f"{what} has rank {len(t.sizes)}", because=f"the shape found is {shape}")
    for size, found in zip(t.sizes, shape, strict=True):
        if isinstance(size, ast.Name) and bound.setdefault(size.name, found) != found:
            raise PplError(f"{what}: {size.name} is {bound[size.name]} elsewhere, here {found}")
    return x


# ---------------------------------------------------------------------------------- statements


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


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the block of a loop sees of the values around it.

    Attributes:
        names, entries: arrays that are the same in all runs.
        static: names and entries that are no arrays: sizes, numbers.
        mapped: arrays of which each run sees one entry.
    """

    names: dict[str, Any]
    entries: dict[Any, Any]
    static: dict[str, Any]
    mapped: dict[Any, Any]

    @staticmethod
    def of(nodes: Any, env: Env, variable: str | None = None, size: int = 0) -> _Seen:
        used = {n.name for n in ast.walk(nodes) if isinstance(n, ast.Name)}
        known = {n: x for n, x in env.names.items() if n in used}
        arrays = {n: x for n, x in known.items() if _is_dynamic(x)}
        entries = {_key(*k): x for k, x in env.entries.items() if _root(k[0]) in used}
        static = {n: x for n, x in known.items() if n not in arrays}
        mapped: dict[Any, Any] = {}
        for node in ast.walk(nodes):
            if variable is not None and isinstance(node, ast.Index):
                mapped.update(_mapped(node, env, variable, size))
        return _Seen(arrays, entries, static, mapped)

    def shared(self) -> tuple[dict[str, Any], dict[Any, Any]]:
        return self.names, self.entries

    def env(self, env: Env, shared: Any, mapped: Any, variable: str, index: Any) -> Env:
        """The environment of one run."""
        names, entries = shared
        every = {_unkey(k): x for k, x in {**entries, **mapped}.items()}
        inner = env.inside({**self.static, **names}, every, variable)
        if variable:
            inner.names[variable] = index
        return inner


def _key(name: str, indices: tuple[str, ...]) -> str:
    return f"{name}[{','.join(indices)}]"  # dictionaries of arrays have keys that sort


def _unkey(key: str) -> tuple[str, tuple[str, ...]]:
    name, _, indices = key[:-1].partition("[")
    return name, tuple(indices.split(","))


def _is_dynamic(x: Any) -> bool:
    return all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(x)) and not (
        isinstance(x, int | float | bool)
    )


def _mapped(node: ast.Index, env: Env, variable: str, size: int) -> dict[str, Any]:
    """`x[i, ...]` in a loop over i: the array x, of which each run sees one entry."""
    name = _path(node.base)
    if name is None or _root(name) not in env.names.keys() | {n for n, _ in env.entries}:
        return {}
    indices = tuple(i.name if isinstance(i, ast.Name) else "" for i in node.indices)
    if variable not in indices:
        return {}
    known = indices[: indices.index(variable)]
    if known:
        array = env.entries.get((name, known))
    else:
        array = value(node.base, env) if _root(name) in env.names else None
    if array is None or not isinstance(array, jax.Array | np.ndarray) or len(jnp.shape(array)) == 0:
        return {}
    if array.shape[0] < size:
        raise PplError(
            f"{name}[{variable}] is outside of the array",
            because=f"{variable} goes up to {size - 1}, and {name} has {array.shape[0]} entries",
        )
    return {_key(name, (*known, variable)): array[:size] if array.shape[0] > size else array}


def _path(e: ast.Expr) -> str | None:
    """A name, or a field of a record that has one, `z.theta`."""
    if isinstance(e, ast.Field):
        base = _path(e.base)
        return None if base is None else f"{base}.{e.name}"
    return e.name if isinstance(e, ast.Name) else None


def _root(path: str) -> str:
    return path.partition(".")[0]


def _body(statement: Any, env: Env, seen: _Seen, run: Callable[..., Any]) -> Any:
    run.__name__ = type(statement).__name__.lower()
    return lang.gen(run)


def _plate(s: ast.Plate, env: Env) -> None:
    size = int(value(s.size, env))
    seen = _Seen.of((s.body,), env, s.variable, size)

    def lane(index: Any, mapped: Any, shared: Any) -> Any:
        inner = seen.env(env, shared, mapped, s.variable, index)
        run_block(s.body, inner)
        return _made(inner)

    program = lang.plate(_body(s, env, seen, lane), size=size, in_axes=(0, 0, None))
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
    seen = _Seen.of((s.body,), env, s.variable, size)
    state = {str(a.name): _as_state(value(a.value, env)) for a in s.state}

    def step(state: Any, x: Any, shared: Any) -> Any:
        index, mapped = x
        inner = seen.env(env, shared, mapped, s.variable, index)
        inner.names.update(state)
        run_block(s.body, inner)
        like = {n: jax.tree.map(_like, inner.state[n], x) for n, x in state.items()}
        return like, _made(inner)

    program = lang.scan(_body(s, env, seen, step), length=size)
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
    seen = _Seen.of(blocks, env)
    both = sorted(set.intersection(*(set(_defined(b)) for b in blocks)))

    def branch(block: ast.Block) -> Any:
        def run(shared: Any) -> Any:
            inner = seen.env(env, shared, {}, "", None)
            run_block(block, inner)
            names = {n: inner.names[n] for n, indices in both if not indices}
            entries = {_key(n, i): inner.entries[n, i] for n, i in both if i}
            return jax.tree.map(jnp.asarray, (names, entries))

        return _body(s, env, seen, run)

    choices = dict.fromkeys(a for b in blocks for a in choice_names(b))
    program = lang.cond(*map(branch, blocks))
    app = program(value(s.condition, env), seen.shared())
    results: Any = app @ lang.inline(*choices)
    names, entries = results
    env.names.update(names)
    env.entries.update({_unkey(k): x for k, x in entries.items()})


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


# --------------------------------------------------------------------------------- expressions


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
    if (path := _path(e.base)) is not None:
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
    seen = _Seen.of((e.value,), env, e.variable, size)

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
    return logsumexp(log_weights) - jnp.log(particles)


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
