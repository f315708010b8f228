"""The meaning of the text language, computed exactly: slow, and easy to check.

An objective's value is the sum over all outcomes of its choices: discrete ones by their list of
values, continuous ones by quadrature. Everything is plain Python loops over NumPy numbers in double
precision. Gradients are exact up to rounding: all arithmetic is analytic, so the derivative is the
imaginary part after a step of 1e-30 along the imaginary axis (Squire and Trapp, SIAM Review 1998).

It shares with the compiler only the syntax tree. The rules named in brackets are those of
`language.md`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special, stats

from ppl.syntax import ast

STEP = 1e-30
TAIL = 1e-13
"""Probability that may be cut off where a discrete support is infinite."""


def value(
    file: ast.File, objective: str, data: Mapping[str, Any], params: Mapping[str, Any]
) -> float:
    """The expected value of an objective at given parameters."""
    return float(_expectation(file, objective, data, params).real)


def value_and_gradient(
    file: ast.File, objective: str, data: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[float, dict[str, np.ndarray]]:
    """The expected value of an objective, and its derivative by each parameter."""
    gradient = {}
    for name, x in params.items():
        x = np.asarray(x, float)
        entries = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            moved = x.astype(complex)
            moved[index] += 1j * STEP
            found = _expectation(file, objective, data, {**params, name: moved})
            entries[index] = found.imag / STEP
        gradient[name] = entries
    return value(file, objective, data, params), gradient


def _expectation(file: ast.File, objective: str, data: Any, params: Any) -> complex:
    program = Interpreter(file, params)
    args = {n: np.asarray(x) if not isinstance(x, int) else x for n, x in data.items()}
    d = program.declared[objective]
    assert isinstance(d, ast.Program)
    given = {p.name: args[p.name] for p in d.parameters}
    return expectation(lambda world: program.call(d, given, world))


# --------------------------------------------------------------------------- sums over outcomes


@dataclass
class World:
    """One outcome: which value each choice takes, in the order in which they are made.

    Attributes:
        script: numbers of the values of the first choices; those after take their first value.
        weight: probability of the outcome (an integration weight, for continuous choices).
        open: scripts of outcomes that differ from this one in a choice not in the script.
    """

    script: tuple[int, ...] = ()
    weight: complex = 1.0
    made: tuple[int, ...] = ()
    open: list[tuple[int, ...]] = field(default_factory=list)

    def pick(self, outcomes: list[tuple[Any, complex]]) -> Any:
        """The value of the next choice, one of `(value, weight)`."""
        at = len(self.made)
        index = self.script[at] if at < len(self.script) else 0
        if at >= len(self.script):
            self.open += [(*self.made, i) for i in range(1, len(outcomes))]
        self.made = (*self.made, index)
        x, weight = outcomes[index]
        self.weight = self.weight * weight
        return x


def expectation(run: Callable[[World], Any]) -> complex:
    """The sum of `run`'s value over all outcomes of the choices that it makes [M-EXPECT]."""
    total, scripts = 0.0 + 0.0j, [()]
    while scripts:
        world = World(scripts.pop())
        x = run(world)
        scripts += world.open
        if world.weight != 0:  # an outcome of probability 0 counts as 0, whatever its value
            total += world.weight * np.asarray(x).item()
    return complex(total)


# -------------------------------------------------------------------------------- distributions


@dataclass(frozen=True)
class Dist:
    """A distribution, entry by entry: `params` are arrays that broadcast together."""

    name: str
    params: dict[str, Any]

    def log_density(self, x: Any) -> complex:
        """Of all entries together."""
        if (key := self._key()) is not None and np.ndim(x) == 0:
            return _log_density_of_number(self.name, complex(x), key)
        return complex(np.sum(LOG_DENSITY[self.name](np.asarray(x), **self._ready())))

    def draw(self, world: World) -> Any:
        """A value, entry by entry."""
        if (key := self._key()) is not None:
            return world.pick(_points_of_number(self.name, key))
        params = self._ready()
        if self.name in VECTORS:
            return world.pick(VECTORS[self.name](**params))
        if self.name == "categorical":
            return world.pick(points(self.name, params))
        shape = np.broadcast_shapes(*(p.shape for p in params.values()))
        wide = {n: np.broadcast_to(p, shape) for n, p in params.items()}
        entries = [
            Dist(self.name, {n: p[index] for n, p in wide.items()}).draw(world)
            for index in np.ndindex(shape)
        ]
        return np.reshape(np.asarray(entries), shape)

    def _ready(self) -> dict[str, Any]:
        return {n: np.asarray(p) for n, p in self.params.items()}

    def _key(self) -> tuple[tuple[str, complex], ...] | None:
        """The parameters, if all are numbers: the same ones come again in many outcomes."""
        if any(np.ndim(p) for p in self.params.values()):
            return None
        return tuple((n, complex(p)) for n, p in self.params.items())


@functools.lru_cache(maxsize=100_000)
def _points_of_number(name: str, params: tuple[tuple[str, complex], ...]) -> list[Any]:
    return points(name, {n: _plain(p) for n, p in params})


@functools.lru_cache(maxsize=100_000)
def _log_density_of_number(name: str, x: complex, params: tuple[tuple[str, complex], ...]) -> Any:
    found = LOG_DENSITY[name](np.asarray(_plain(x)), **{n: _plain(p) for n, p in params})
    return complex(found)


def _plain(x: complex) -> Any:
    return np.float64(x.real) if x.imag == 0 else np.complex128(x)


def points(name: str, params: dict[str, Any]) -> list[tuple[Any, complex]]:
    """Values of one entry, with their probabilities or integration weights."""
    if name in SUPPORTS:
        values = SUPPORTS[name](params)
        return [(x, np.exp(LOG_DENSITY[name](np.asarray(x), **params))) for x in values]
    # Nodes at the real parameters; the factor moves with the parameters, as the density does.
    still = {n: np.real(p) for n, p in params.items()}
    nodes, weights = NODES[name](**still) if name in NODES else _panels(name, still)
    log_density = LOG_DENSITY[name]
    factors = np.exp(log_density(nodes, **params) - log_density(nodes, **still))
    return list(zip(nodes, weights * factors, strict=True))


def _hermite(loc: Any, scale: Any) -> tuple[Any, Any]:
    x, w = _hermegauss(HERMITE)
    return loc + scale * x, w / np.sqrt(2 * np.pi)


_hermegauss = functools.cache(np.polynomial.hermite_e.hermegauss)
HERMITE = 20
"""Nodes for a normal choice: polynomials up to degree 39 are exact."""


def _log_hermite(loc: Any, scale: Any) -> tuple[Any, Any]:
    x, w = _hermite(loc, scale)
    return np.exp(x), w


def _laguerre(concentration: Any, rate: Any = None, log_rate: Any = None) -> tuple[Any, Any]:
    x, w = special.roots_genlaguerre(HERMITE, concentration - 1)
    rate = np.exp(log_rate) if rate is None else rate
    return x / rate, w / special.gamma(concentration)


def _jacobi(concentration1: Any, concentration0: Any) -> tuple[Any, Any]:
    x, w = special.roots_sh_jacobi(HERMITE, concentration1 + concentration0 - 1, concentration1)
    return x, w / np.sum(w)


def _legendre(low: Any = 0.0, high: Any = 1.0) -> tuple[Any, Any]:
    x, w = np.polynomial.legendre.leggauss(HERMITE)
    return low + (high - low) * (x + 1) / 2, w / 2


def _panels(name: str, params: dict[str, Any]) -> tuple[Any, Any]:
    """Gauss-Legendre between quantiles, for any distribution of SciPy's."""
    law = SCIPY[name](**params)
    tails = [1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 0.1]
    edges = [*law.ppf(tails), law.ppf(0.5), *law.isf(tails[::-1])]
    x, w = np.polynomial.legendre.leggauss(8)
    parts = [((a + b) / 2 + (b - a) / 2 * x, (b - a) / 2 * w) for a, b in itertools.pairwise(edges)]
    nodes = np.concatenate([p[0] for p in parts])
    return nodes, np.concatenate([p[1] for p in parts]) * law.pdf(nodes)


NODES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "normal": _hermite,
    "log_normal": _log_hermite,
    "gamma": _laguerre,
    "exponential": lambda rate: _laguerre(1.0, rate),
    "beta": _jacobi,
    "uniform": _legendre,
    "delta": lambda loc: (np.array([loc]), np.array([1.0])),
}
SCIPY: dict[str, Callable[..., Any]] = {
    "half_normal": lambda scale: stats.halfnorm(scale=scale),
    "laplace": lambda loc, scale: stats.laplace(loc, scale),
    "logistic": lambda loc, scale: stats.logistic(loc, scale),
    "gumbel": lambda loc, scale: stats.gumbel_r(loc, scale),
    "inverse_gamma": lambda concentration, scale: stats.invgamma(concentration, scale=scale),
    "chi2": lambda df: stats.chi2(df),
    "student_t": lambda df, loc=0.0, scale=1.0: stats.t(df, loc, scale),
    "weibull": lambda concentration, scale: stats.weibull_min(concentration, scale=scale),
    "cauchy": lambda loc, scale: stats.cauchy(loc, scale),
    "half_cauchy": lambda loc, scale: stats.halfcauchy(loc, scale),
}


def _count(law: Any) -> list[int]:
    return list(range(int(law.isf(TAIL)) + 1))


def _rate(p: Mapping[str, Any]) -> Any:
    return p["rate"] if "rate" in p else np.exp(p["log_rate"])


def _prob(p: Mapping[str, Any]) -> Any:
    return p["probs"] if "probs" in p else 1 / (1 + np.exp(-p["logits"]))


SUPPORTS: dict[str, Callable[[Mapping[str, Any]], list[Any]]] = {
    "flip": lambda p: [False, True],
    "bernoulli": lambda p: [0, 1],
    "categorical": lambda p: list(range(np.shape(next(iter(p.values())))[-1])),
    "binomial": lambda p: list(range(int(np.real(p["total_count"])) + 1)),
    "poisson": lambda p: _count(stats.poisson(np.real(_rate(p)))),
    "geometric": lambda p: _count(stats.geom(np.real(_prob(p)))),
    "negative_binomial": lambda p: _count(
        stats.nbinom(np.real(p["total_count"]), 1 - np.real(_prob(p)))
    ),
}


def _one_hots(**p: Any) -> list[tuple[Any, complex]]:
    size = np.shape(next(iter(p.values())))[-1]
    return [(x, np.exp(_categorical(np.argmax(x), **p))) for x in np.eye(size, dtype=int)]


VECTORS: dict[str, Callable[..., list[tuple[Any, complex]]]] = {"one_hot_categorical": _one_hots}


def _log(x: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(x)


def _normal(x: Any, loc: Any, scale: Any) -> Any:
    return -0.5 * ((x - loc) / scale) ** 2 - _log(scale) - 0.5 * np.log(2 * np.pi)


def _bernoulli(x: Any, p: Any) -> Any:
    return np.where(np.asarray(x, bool), _log(p), _log(1 - p))


def _weights(logits: Any = 0.0, probs: Any = None) -> Any:
    if probs is not None:
        return _log(probs / np.sum(probs, -1, keepdims=True))
    return logits - _log(np.sum(np.exp(logits), -1, keepdims=True))


def _categorical(x: Any, logits: Any = None, probs: Any = None) -> Any:
    table = _weights(logits, probs)
    x = np.asarray(x, int)
    table = np.broadcast_to(
        table, (*np.broadcast_shapes(x.shape, table.shape[:-1]), table.shape[-1])
    )
    return np.take_along_axis(table, x[..., None], -1)[..., 0]


def _choose(n: Any, k: Any) -> Any:
    return special.loggamma(n + 1) - special.loggamma(k + 1) - special.loggamma(n - k + 1)


def _gamma(x: Any, concentration: Any, rate: Any = None, log_rate: Any = None) -> Any:
    log_rate = _log(rate) if log_rate is None else log_rate
    a, x = concentration, np.asarray(x)
    return a * log_rate - special.loggamma(a) + (a - 1) * _log(x) - np.exp(log_rate) * x


def _beta(x: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    scale = special.loggamma(a + b) - special.loggamma(a) - special.loggamma(b)
    return scale + (a - 1) * _log(x) + (b - 1) * _log(1 - x)


def _student_t(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
    z = (x - loc) / scale
    top = special.loggamma((df + 1) / 2) - special.loggamma(df / 2)
    return top - 0.5 * _log(df * np.pi) - _log(scale) - (df + 1) / 2 * np.log1p(z**2 / df)


def _dirichlet(x: Any, concentration: Any) -> Any:
    a = concentration
    scale = special.loggamma(np.sum(a, -1)) - np.sum(special.loggamma(a), -1)
    return scale + np.sum((a - 1) * _log(x), -1)


def _binomial(x: Any, total_count: Any, **p: Any) -> Any:
    p1 = _prob(p)
    return _choose(total_count, x) + special.xlogy(x, p1) + special.xlogy(total_count - x, 1 - p1)


def _multivariate(x: Any, loc: Any, covariance: Any) -> Any:
    z = x - loc
    sign_and_log = np.linalg.slogdet(covariance)
    inner = np.sum(z * np.linalg.solve(covariance, z[..., None])[..., 0], -1)
    return -0.5 * (inner + sign_and_log[1] + np.shape(z)[-1] * np.log(2 * np.pi))


def _absolute(x: Any) -> Any:
    return np.where(np.real(x) < 0, -x, x)  # analytic on each side


LOG_DENSITY: dict[str, Callable[..., Any]] = {
    "normal": _normal,
    "log_normal": lambda x, loc, scale: _normal(_log(x), loc, scale) - _log(x),
    "half_normal": lambda x, scale: _normal(x, 0.0, scale) + np.log(2),
    "laplace": lambda x, loc, scale: -_absolute(x - loc) / scale - _log(2 * scale),
    "cauchy": lambda x, loc, scale: -_log(np.pi * scale) - _log(1 + ((x - loc) / scale) ** 2),
    "half_cauchy": lambda x, loc, scale: (
        np.log(2) - _log(np.pi * scale) - _log(1 + ((x - loc) / scale) ** 2)
    ),
    "logistic": lambda x, loc, scale: (
        -(x - loc) / scale - _log(scale) - 2 * _log(1 + np.exp(-(x - loc) / scale))
    ),
    "gumbel": lambda x, loc, scale: -(x - loc) / scale - np.exp(-(x - loc) / scale) - _log(scale),
    "student_t": _student_t,
    "uniform": lambda x, low=0.0, high=1.0: -_log(high - low) + 0 * x,
    "beta": _beta,
    "gamma": _gamma,
    "inverse_gamma": lambda x, concentration, scale: (
        concentration * _log(scale)
        - special.loggamma(concentration)
        - (concentration + 1) * _log(x)
        - scale / x
    ),
    "chi2": lambda x, df: _gamma(x, df / 2, 0.5),
    "exponential": lambda x, rate: _log(rate) - rate * x,
    "weibull": lambda x, concentration, scale: (
        _log(concentration / scale)
        + (concentration - 1) * _log(x / scale)
        - (x / scale) ** concentration
    ),
    "dirichlet": _dirichlet,
    "multivariate_normal": lambda x, loc, covariance_matrix: _multivariate(
        x, loc, covariance_matrix
    ),
    "multivariate_normal_diag": lambda x, loc, scale_diag: np.sum(_normal(x, loc, scale_diag), -1),
    "multivariate_normal_tri": lambda x, loc, scale_tril: _multivariate(
        x, loc, scale_tril @ np.swapaxes(scale_tril, -1, -2)
    ),
    "delta": lambda x, loc: np.where(np.real(x) == np.real(loc), 0.0, -np.inf),
    "flip": _bernoulli,
    "bernoulli": lambda x, **p: _bernoulli(x, _prob(p)),
    "categorical": _categorical,
    "one_hot_categorical": lambda x, **p: np.sum(x * _weights(**p), -1),
    "binomial": _binomial,
    "poisson": lambda x, **p: (
        special.xlogy(x, _rate(p)) - _rate(p) - special.loggamma(np.asarray(x) + 1.0)
    ),
    "geometric": lambda x, **p: x * _log(1 - _prob(p)) + _log(_prob(p)),
    "negative_binomial": lambda x, total_count, **p: (
        _choose(x + total_count - 1, np.asarray(x, float))
        + total_count * _log(1 - _prob(p))
        + x * _log(_prob(p))
    ),
}
"""Natural logarithms of the densities, entry by entry."""


# --------------------------------------------------------------------------------- interpreter


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

        return complex(_log(expectation(weight)))

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
        return -_number(x) if e.op == "-" else np.logical_not(np.real(x))

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
        return _log(np.mean(np.exp(logs)))

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


# ------------------------------------------------------------------------ operators, functions


def _number(x: Any) -> Any:
    x = np.asarray(x)
    return x.astype(int) if x.dtype == bool else x


def _reals(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: compare(np.real(a), np.real(b))


def _numeric(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: op(_number(a), _number(b))[()]


def _power(a: Any, b: Any) -> Any:
    a, b = _number(a), _number(b)
    return np.power(a if np.all(np.real(b) >= 0) and b.dtype.kind == "i" else a * 1.0, b)[()]


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": _numeric(np.add),
    "-": _numeric(np.subtract),
    "*": _numeric(np.multiply),
    "/": _numeric(np.true_divide),
    "^": _power,
    "@": np.matmul,
    "==": _reals(np.equal),
    "!=": _reals(np.not_equal),
    "<": _reals(np.less),
    "<=": _reals(np.less_equal),
    ">": _reals(np.greater),
    ">=": _reals(np.greater_equal),
    "and": _reals(np.logical_and),
    "or": _reals(np.logical_or),
}


def _larger(a: Any, b: Any) -> Any:
    return np.where(np.real(a) >= np.real(b), a, b)[()]


def _extreme(pick: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Any, axis: int | None = None) -> Any:
        x = np.ravel(x) if axis is None else np.asarray(x)
        axis = 0 if axis is None else axis
        index = np.expand_dims(pick(np.real(x), axis=axis), axis)
        return np.take_along_axis(x, index, axis).squeeze(axis)[()]

    return reduce


def _logsumexp(x: Any, axis: int | None = None) -> Any:
    top = np.max(np.real(x))
    return _log(np.sum(np.exp(x - top), axis)) + top


def _log_mean_exp(x: Any, axis: int | None = None) -> Any:
    return _logsumexp(x, axis) - np.log(np.size(x) if axis is None else np.shape(x)[axis])


def _softmax(x: Any) -> Any:
    e = np.exp(x - np.max(np.real(x), -1, keepdims=True))
    return e / np.sum(e, -1, keepdims=True)


def _stop(x: Any) -> Any:
    """Without the derivative: the imaginary part."""
    return np.real(x)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": _log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "square": lambda x: x * x,
    "abs": _absolute,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "logit": lambda x: _log(x) - _log(1 - x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "relu": lambda x: _larger(x, 0.0),
    "sin": np.sin,
    "cos": np.cos,
    "log_gamma": special.loggamma,
    "floor": lambda x: np.floor(np.real(x)),
    "stop_gradient": _stop,
    "assume_continuous": lambda x: x,
    "minimum": lambda a, b: -_larger(-a, -b),
    "maximum": _larger,
    "sum": lambda x, axis=None: np.sum(x, axis),
    "prod": lambda x, axis=None: np.prod(x, axis),
    "mean": lambda x, axis=None: np.mean(x, axis),
    "max": _extreme(np.argmax),
    "min": _extreme(np.argmin),
    "any": lambda x, axis=None: np.any(np.real(x), axis),
    "all": lambda x, axis=None: np.all(np.real(x), axis),
    "logsumexp": _logsumexp,
    "log_mean_exp": _log_mean_exp,
    "softmax": _softmax,
    "log_softmax": lambda x: _log(_softmax(x)),
    "cumsum": lambda x: np.cumsum(x, -1),
    "zeros": lambda *sizes: np.zeros(sizes),
    "ones": lambda *sizes: np.ones(sizes),
    "eye": np.eye,
    "arange": np.arange,
    "len": lambda x: np.shape(x)[0],
    "fill": lambda x, *sizes: np.broadcast_to(x, (*sizes, *np.shape(x))),
    "one_hot": lambda i, n: np.eye(n)[np.asarray(np.real(i), int)],
    "dot": np.dot,
    "transpose": np.transpose,
    "diagonal": np.diagonal,
    "cholesky": np.linalg.cholesky,
    "real": lambda x: np.asarray(_number(x)) * 1.0,
    "concat": lambda *xs: np.concatenate(xs),
}

PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("normal", "log_normal", "laplace", "cauchy", "half_cauchy", "logistic", "gumbel"),
        ("loc", "scale"),
    ),
    "half_normal": ("scale",),
    "student_t": ("df", "loc", "scale"),
    "uniform": ("low", "high"),
    "beta": ("concentration1", "concentration0"),
    "gamma": ("concentration", "rate", "log_rate"),
    "inverse_gamma": ("concentration", "scale"),
    "chi2": ("df",),
    "exponential": ("rate",),
    "weibull": ("concentration", "scale"),
    "dirichlet": ("concentration",),
    "multivariate_normal": ("loc", "covariance_matrix"),
    "multivariate_normal_diag": ("loc", "scale_diag"),
    "multivariate_normal_tri": ("loc", "scale_tril"),
    "delta": ("loc",),
    "flip": ("p",),
    "bernoulli": ("logits", "probs"),
    "categorical": ("logits", "probs"),
    "one_hot_categorical": ("logits", "probs"),
    "binomial": ("total_count", "logits", "probs"),
    "poisson": ("rate", "log_rate"),
    "geometric": ("logits", "probs"),
    "negative_binomial": ("total_count", "logits", "probs"),
}


def outcomes(file: ast.File, objective: str, data: Any, params: Any) -> Iterator[complex]:
    """The weights of all outcomes: they sum to 1."""
    program = Interpreter(file, params)
    d = program.declared[objective]
    assert isinstance(d, ast.Program)
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        world = World(scripts.pop())
        program.call(d, data, world)
        scripts += world.open
        yield world.weight
