"""Programs, statement by statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl.syntax import ast
from spec.reference.analytic import log, number
from spec.reference.distributions import PARAMETERS, Dist
from spec.reference.functions import FUNCTIONS, OPERATORS
from spec.reference.outcomes import World, expectation


@dataclass(frozen=True)
class Applied:
    """A program with its arguments."""

    program: ast.Program
    args: dict[str, Any]
    keep: tuple[str, ...] | None = None


@dataclass
class Run:
    """One run of a program.

    Attributes:
        given: values of choices that are known, by address; `None` if all are drawn.
        draws: whether choices that are not given are drawn; else it is an error.
        choices: all values: address -> indices of the loops -> value.
        log_density: of the choices, and the factors [M-DENSITY].
        drawn: the part of it that belongs to choices that were drawn.
        counts: whether choices count; false in the branch not taken [M-IF].
    """

    given: Mapping[str, Any] | None
    draws: bool = True
    choices: dict[str, dict[tuple[int, ...], Any]] = field(default_factory=dict)
    log_density: complex = 0.0
    drawn: complex = 0.0
    counts: bool = True

    def add(self, log_p: complex, drawn: bool) -> None:
        if self.counts:
            self.log_density += log_p
            self.drawn += log_p if drawn else 0.0


@dataclass
class Env:
    """Names at one place: values, entries of arrays in the making, and the loops around."""

    run: Run | None
    names: dict[str, Any]
    entries: dict[str, dict[tuple[int, ...], Any]] = field(default_factory=dict)
    loops: dict[str, int] = field(default_factory=dict)
    world: World | None = None

    def index(self) -> tuple[int, ...]:
        return tuple(self.loops.values())


class Interpreter:
    """Runs the declarations of a file, at given parameters."""

    def __init__(self, file: ast.File, params: Mapping[str, Any]):
        self.declared: dict[str, Any] = {
            d.name: d  # type: ignore[attr-defined]
            for d in file.declarations
            if not isinstance(d, ast.Import)
        }
        self.params = params
        self.consts: dict[str, Any] = {}
        for d in file.declarations:
            if isinstance(d, ast.Const):
                self.consts[d.name] = self.eval(d.value, Env(None, {}))

    # ------------------------------------------------------------------------------- programs

    def call(self, d: ast.Program, args: Mapping[str, Any], world: World | None) -> Any:
        """The result of a `def` or an `objective` [M-OBJECTIVE]."""
        env = Env(None, self.bind(d, args), world=world)
        return self.block(d.body, env)

    def simulate(self, applied: Applied, world: World) -> tuple[dict[str, Any], complex, Any]:
        """Choices, their log-density, and the result [M-SIM]."""
        run = Run(None)
        names = self.bind(applied.program, applied.args)
        result = self.block(applied.program.body, Env(run, names, world=world))
        choices = _arrays(run.choices)
        if applied.keep is None:
            return choices, run.log_density, result
        kept = {n: choices[n] for n in applied.keep}
        return kept, self.log_density(applied, kept), kept

    def log_density(self, applied: Applied, choices: Mapping[str, Any]) -> complex:
        """Of choices that are given [M-DENSITY]; those not kept are summed over [M-MARGINAL]."""

        def run(world: World) -> Run:
            made = Run(choices, draws=applied.keep is not None)
            env = Env(made, self.bind(applied.program, applied.args), world=world)
            self.block(applied.program.body, env)
            return made

        if applied.keep is None:
            return run(World()).log_density

        def weight(world: World) -> complex:
            made = run(world)  # the density of what was drawn is in the weight of the outcome
            return np.exp(made.log_density - made.drawn)

        return complex(log(expectation(weight)))

    def bind(self, d: ast.Program, args: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, and the sizes that their types name [T-SIZE]."""
        names: dict[str, Any] = dict(args)
        for p in d.parameters:
            _sizes(p.type, args[p.name], names)
        return names

    # ----------------------------------------------------------------------------- statements

    def block(self, block: ast.Block, env: Env) -> Any:
        """Statements one after the other [M-SEQUENCE]; the value of `return`."""
        result = None
        for s in block.statements:
            result = getattr(self, f"_{type(s).__name__.lower()}")(s, env)
        return result

    def _define(self, target: ast.Target, x: Any, env: Env) -> None:
        if target.indices:
            env.entries.setdefault(target.name, {})[env.index()] = x
        else:
            env.names[target.name] = x

    def _choice(self, s: ast.Choice, env: Env) -> None:
        """A value from the distribution, whose density counts [M-CHOICE]."""
        run, law = env.run, self.eval(s.program, env)
        assert run is not None
        known = _MISSING if run.given is None else _given(run.given, s.target.name, env.index())
        drawn = known is _MISSING
        if drawn and not run.draws:
            raise KeyError(f"no value for the choice {s.target.name!r}")
        if isinstance(law, Applied):  # [M-NESTED]
            x, log_p, result = self._nested(law, known, env)
        else:
            x = result = law.draw(env.world) if drawn else known
            log_p = law.log_density(x) if run.counts else 0.0
        if s.mask is None or np.real(self.eval(s.mask, env)):  # [M-MASK]
            run.add(log_p, drawn)
        run.choices.setdefault(s.target.name, {})[env.index()] = x
        self._define(s.target, result, env)

    def _nested(self, law: Applied, known: Any, env: Env) -> tuple[Any, complex, Any]:
        assert env.world is not None
        if known is _MISSING:
            return self.simulate(law, env.world)
        if law.keep is not None:
            return known, self.log_density(law, known), known
        inner = Run(known, draws=False)
        names = self.bind(law.program, law.args)
        result = self.block(law.program.body, Env(inner, names, world=env.world))
        return known, inner.log_density, result

    def _let(self, s: ast.Let, env: Env) -> None:
        self._define(s.target, self.eval(s.value, env), env)

    def _lettuple(self, s: ast.LetTuple, env: Env) -> None:
        env.names.update(zip(s.names, self.eval(s.value, env), strict=True))

    def _param(self, s: ast.Param, env: Env) -> None:
        """The parameter's current value [M-PARAM]."""
        env.names[s.name] = np.asarray(self.params[s.name])[()]

    def _factor(self, s: ast.Factor, env: Env) -> None:
        """A term of the log-density [M-FACTOR]."""
        assert env.run is not None
        env.run.add(complex(self.eval(s.log_weight, env)), drawn=False)

    def _observe(self, s: ast.Observe, env: Env) -> None:
        """The log-density of a known value [M-OBSERVE]."""
        assert env.run is not None
        if s.mask is None or np.real(self.eval(s.mask, env)):
            law, x = self.eval(s.program, env), self.eval(s.value, env)
            env.run.add(law.log_density(x), drawn=False)

    def _plate(self, s: ast.Plate, env: Env) -> None:
        """The block once for each index, independently [M-PLATE]."""
        for i in range(int(self.eval(s.size, env))):
            self._inside(s.variable, i, s.body, env, {})
        self._collect(s, env)

    def _scan(self, s: ast.Scan, env: Env) -> None:
        """The block step after step; `next` sets the state of the step to come [M-SCAN]."""
        state = {str(a.name): self.eval(a.value, env) for a in s.state}
        for i in range(int(self.eval(s.size, env))):
            state = self._inside(s.variable, i, s.body, env, state)
        self._collect(s, env)
        env.names.update(state)

    def _inside(self, variable: str, i: int, body: ast.Block, env: Env, state: dict) -> dict:
        names = {**env.names, variable: i, **state}
        inner = Env(env.run, names, env.entries, {**env.loops, variable: i}, env.world)
        inner.names["next"] = {}
        self.block(body, inner)
        return inner.names["next"]

    def _next(self, s: ast.Next, env: Env) -> None:
        env.names["next"][s.name] = self.eval(s.value, env)

    def _collect(self, s: ast.Plate | ast.Scan, env: Env) -> None:
        """After a loop, what it defined entry by entry is an array [M-ARRAY]."""
        outer = env.index()
        keys = [(*outer, i) for i in range(int(self.eval(s.size, env)))]
        for name, entries in list(env.entries.items()):
            if not all(k in entries for k in keys):
                continue
            array = _stack([entries.pop(k) for k in keys])
            if outer:
                entries[outer] = array
            else:
                del env.entries[name]
                env.names[name] = array

    def _if(self, s: ast.If, env: Env) -> None:
        """The branch that the condition tells; the other one's choices do not count [M-IF]."""
        assert env.run is not None
        counted, taken = env.run.counts, bool(np.real(self.eval(s.condition, env)))
        blocks = (s.then, s.otherwise or ast.Block(()))
        other, own = (blocks[1], blocks[0]) if taken else blocks
        if env.run.given is None:  # drawn as usual, so that its choices have some value
            env.run.counts = False
            self.block(other, self._copy(env))
        env.run.counts = counted
        inner = self._copy(env)
        self.block(own, inner)
        for name in _defined(blocks[0]) & _defined(blocks[1]):
            if env.index() in inner.entries.get(name, {}):
                env.entries.setdefault(name, {})[env.index()] = inner.entries[name][env.index()]
            else:
                env.names[name] = inner.names[name]

    def _copy(self, env: Env) -> Env:
        entries = {n: dict(e) for n, e in env.entries.items()}
        return Env(env.run, dict(env.names), entries, env.loops, env.world)

    def _return(self, s: ast.Return, env: Env) -> Any:
        return self.eval(s.value, env)

    # ---------------------------------------------------------------------------- expressions

    def eval(self, e: ast.Expr, env: Env) -> Any:
        return getattr(self, f"_eval_{type(e).__name__.lower()}")(e, env)

    def _eval_number(self, e: ast.Number, env: Env) -> Any:
        return e.value

    def _eval_boolean(self, e: ast.Boolean, env: Env) -> Any:
        return e.value

    def _eval_name(self, e: ast.Name, env: Env) -> Any:
        return env.names[e.name] if e.name in env.names else self.consts[e.name]

    def _eval_tuple(self, e: ast.Tuple, env: Env) -> Any:
        return tuple(self.eval(i, env) for i in e.items)

    def _eval_array(self, e: ast.Array, env: Env) -> Any:
        return _stack([self.eval(i, env) for i in e.items])

    def _eval_record(self, e: ast.Record, env: Env) -> Any:
        return {f.name: self.eval(f.value, env) for f in e.fields}

    def _eval_field(self, e: ast.Field, env: Env) -> Any:
        return self.eval(e.base, env)[e.name]

    def _eval_ascribe(self, e: ast.Ascribe, env: Env) -> Any:
        return self.eval(e.value, env)

    def _eval_conditional(self, e: ast.Conditional, env: Env) -> Any:
        condition = np.real(self.eval(e.condition, env))
        then, other = self.eval(e.then, env), self.eval(e.otherwise, env)
        return np.where(np.asarray(condition, bool), then, other)[()]

    def _eval_comprehension(self, e: ast.Comprehension, env: Env) -> Any:
        size = int(self.eval(e.size, env))
        runs = (
            Env(env.run, {**env.names, e.variable: i}, env.entries, env.loops, env.world)
            for i in range(size)
        )
        return _stack([self.eval(e.value, run) for run in runs])

    def _eval_index(self, e: ast.Index, env: Env) -> Any:
        indices = [
            slice(None)
            if isinstance(i, ast.WholeAxis)
            else np.asarray(np.real(self.eval(i, env)), int)[()]
            for i in e.indices
        ]
        if isinstance(e.base, ast.Name) and e.base.name in env.entries:
            entries = env.entries[e.base.name]
            for count in range(len(indices), 0, -1):
                key: Any = tuple(i if isinstance(i, slice) else int(i) for i in indices[:count])
                if not any(isinstance(k, slice) for k in key) and key in entries:
                    rest = tuple(indices[count:])
                    return np.asarray(entries[key])[rest] if rest else entries[key]
        return np.asarray(self.eval(e.base, env))[tuple(indices)]

    def _eval_unary(self, e: ast.Unary, env: Env) -> Any:
        x = self.eval(e.operand, env)
        return -number(x) if e.op == "-" else np.logical_not(np.real(x))

    def _eval_binary(self, e: ast.Binary, env: Env) -> Any:
        left, right = self.eval(e.left, env), self.eval(e.right, env)
        if isinstance(left, dict):
            return {**left, **right}
        return OPERATORS[e.op](left, right)

    def _eval_call(self, e: ast.Call, env: Env) -> Any:
        special_form = getattr(self, f"_call_{e.function.lower()}", None)
        if special_form is not None:
            return special_form(e, env)
        args = [self.eval(a, env) for a in e.positional()]
        named = {n: self.eval(a, env) for n, a in e.named().items()}
        if e.function in self.declared:
            d = self.declared[e.function]
            assert isinstance(d, ast.Program), "the reference runs no Python functions"
            given = {**dict(zip([p.name for p in d.parameters], args, strict=False)), **named}
            if d.kind in ("model", "guide"):
                return Applied(d, given)
            return self.call(d, given, env.world)
        if e.function in PARAMETERS:
            return Dist(
                e.function, {**dict(zip(PARAMETERS[e.function], args, strict=False)), **named}
            )
        return FUNCTIONS[e.function](*args, **named)

    def _call_sim(self, e: ast.Call, env: Env) -> Any:
        law = self.eval(e.positional()[0], env)
        assert env.world is not None
        if isinstance(law, Dist):
            x = law.draw(env.world)
            return x, law.log_density(x)
        return self.simulate(law, env.world)[:2]

    def _call_density(self, e: ast.Call, env: Env) -> Any:
        law, choices = (self.eval(a, env) for a in e.positional())
        return law.log_density(choices) if isinstance(law, Dist) else self.log_density(law, choices)

    def _call_e(self, e: ast.Call, env: Env) -> Any:
        """An expectation is a number: the sum over all outcomes inside [M-EXPECT]."""
        x = e.positional()[0]
        return expectation(lambda world: self.eval(x, Env(None, dict(env.names), world=world)))

    def _call_elbo(self, e: ast.Call, env: Env) -> Any:
        model, guide, observed = (self.eval(a, env) for a in e.positional())
        assert env.world is not None
        z, log_q, _ = self.simulate(guide, env.world)
        return self.log_density(model, {**z, **observed}) - log_q

    def _call_iwelbo(self, e: ast.Call, env: Env) -> Any:
        count = int(self.eval(e.named()["particles"], env))
        logs = [self._call_elbo(e, env) for _ in range(count)]
        return log(np.mean(np.exp(logs)))

    def _call_marginal(self, e: ast.Call, env: Env) -> Any:
        law = self.eval(e.positional()[0], env)
        keep = e.named()["keep"]
        by = e.named()["by"]
        assert isinstance(keep, ast.Record)
        assert isinstance(by, ast.Call) and by.function == "enumeration", "an estimate has no value"
        return Applied(law.program, law.args, tuple(str(f.name) for f in keep.fields))


_MISSING = object()


def _given(given: Any, name: str, index: tuple[int, ...]) -> Any:
    """The value given for a choice, of the run of the loops with these indices."""
    if name not in given:
        return _MISSING
    x = given[name]
    return _tree_index(x, index)


def _tree_index(x: Any, index: tuple[int, ...]) -> Any:
    if isinstance(x, dict):
        return {n: _tree_index(v, index) for n, v in x.items()}
    return np.asarray(x)[index]


def _arrays(choices: Mapping[str, dict[tuple[int, ...], Any]]) -> dict[str, Any]:
    """Choices as arrays, with an axis for each loop."""
    return {name: _nest(entries) for name, entries in choices.items()}


def _nest(entries: dict[tuple[int, ...], Any]) -> Any:
    if () in entries:
        return entries[()]
    firsts = sorted({k[0] for k in entries})
    return _stack([_nest({k[1:]: x for k, x in entries.items() if k[0] == i}) for i in firsts])


def _stack(items: list[Any]) -> Any:
    if items and isinstance(items[0], dict):
        return {n: _stack([i[n] for i in items]) for n in items[0]}
    return np.stack([np.asarray(i) for i in items]) if items else np.zeros(0)


def _sizes(t: ast.Type, x: Any, names: dict[str, Any]) -> None:
    if isinstance(t, ast.ArrayType):
        for size, found in zip(t.sizes, np.shape(x), strict=True):
            if isinstance(size, ast.Name):
                names.setdefault(size.name, found)
    elif isinstance(t, ast.RecordType):
        for p in t.fields:
            _sizes(p.type, x[p.name], names)


def _defined(block: ast.Block) -> set[str]:
    """Names that a block defines for what comes after it."""
    found: set[str] = set()
    for s in block.statements:
        match s:
            case ast.Choice(target=target) | ast.Let(target=target):
                found.add(target.name)
            case ast.LetTuple(names=names):
                found |= set(names)
            case ast.Plate(body=body):
                found |= _defined(body)
            case ast.Scan(body=body, state=state):
                found |= _defined(body) | {str(a.name) for a in state}
            case ast.If(then=then, otherwise=otherwise) if otherwise is not None:
                found |= _defined(then) & _defined(otherwise)
    return found
