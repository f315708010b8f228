"""Random programs of flips, and two worlds to run them in: JAX, and plain Python over all outcomes.

A program is a list of statements over numbered variables, all of them numbers. Each statement is
written once, against a `World`, so that the compiled program and its exact reference share nothing
but the statements.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl.lang.distributions import flip

Env = dict[int, Any]
LANES = (1.0, 0.5, 0.9)
WEIGHTS = np.array([1.0, -0.5, 2.0])


class World(Protocol):
    """What a statement needs of the world it runs in."""

    theta: Any

    def flip(self, p: Any, strategy: str | None) -> Any:
        """1 with probability `p`, else 0."""
        ...

    def lanes(self, p: Any, strategy: str | None) -> Any:
        """Independent flips with probabilities `p * LANES`."""
        ...

    def branch(self, flag: Any, then: Callable[[], Any], other: Callable[[], Any]) -> Any: ...

    def loop(self, step: Callable, start: Any, length: int, reverse: bool) -> tuple[Any, Any]:
        """`step(carry) -> (carry, output)`; the last carry and all outputs."""
        ...


class JaxWorld:
    """The program as users write it."""

    def __init__(self, theta: Any):
        self.theta = theta

    def flip(self, p, strategy):
        return flip.via(strategy).sample(p).astype(float)

    def lanes(self, p, strategy):
        return jax.vmap(lambda s: self.flip(p * s, strategy))(jnp.array(LANES))

    def branch(self, flag, then, other):
        return lax.cond(flag > 0.5, *(lambda f=f: jnp.float32(f()) for f in (then, other)))

    def loop(self, step, start, length, reverse):
        body = lambda carry, _: tuple(map(jnp.float32, step(carry)))
        return lax.scan(body, jnp.float32(start), None, length=length, reverse=reverse)


class ExactWorld:
    """One outcome of all flips, in plain Python; `weight` is its probability."""

    def __init__(self, theta: float, bits: Sequence[bool]):
        self.theta, self.taken, self.weight = theta, list(bits), 1.0
        self.open: list[list[bool]] = []
        """outcomes that start like this one and then differ"""
        self._next = 0

    def flip(self, p, strategy):
        if self._next == len(self.taken):
            self.open.append([*self.taken, False])
            self.taken.append(True)
        bit = self.taken[self._next]
        self._next += 1
        self.weight = self.weight * (p if bit else 1 - p)
        return 1.0 * bit

    def lanes(self, p, strategy):
        return jnp.array([self.flip(p * s, strategy) for s in LANES])

    def branch(self, flag, then, other):
        return then() if flag > 0.5 else other()

    def loop(self, step, start, length, reverse):
        carry, outputs = start, []
        for _ in range(length):
            carry, out = step(carry)
            outputs.append(out)
        return carry, jnp.array(outputs[::-1] if reverse else outputs)


# ------------------------------------------------------------------------------ statements


def constant(world: World, c: str | float) -> Any:
    t = world.theta
    return {"t": t, "1-t": 1 - t, "t/2": t / 2}[c] if isinstance(c, str) else c


@dataclass(frozen=True)
class Probability:
    """A constant, or one of two by a variable."""

    high: str | float
    low: str | float = 0.5
    by: int | None = None

    def value(self, world: World, env: Env) -> Any:
        high, low = constant(world, self.high), constant(world, self.low)
        return high if self.by is None else jnp.where(env[self.by] > 0.5, high, low)


@dataclass(frozen=True)
class Flip:
    out: int
    p: Probability
    strategy: str | None

    def run(self, world: World, env: Env) -> None:
        env[self.out] = world.flip(self.p.value(world, env), self.strategy)


FUNCTIONS: dict[str, Callable] = {
    "add": lambda a, b, t: a + b,
    "mul": lambda a, b, t: a * b,
    "square": lambda a, b, t: a**2,
    "affine": lambda a, b, t: t * a + 1,
    "exp": lambda a, b, t: jnp.exp(jnp.tanh(a)),
    "select": lambda a, b, t: jnp.where(a > 0.5, b, 1 - b),
}


@dataclass(frozen=True)
class Let:
    out: int
    function: str
    a: int
    b: int

    def run(self, world: World, env: Env) -> None:
        env[self.out] = FUNCTIONS[self.function](env[self.a], env[self.b], world.theta)


REDUCTIONS: dict[str, Callable] = {
    "sum": lambda z: jnp.sum(z),
    "squares": lambda z: jnp.sum((z * WEIGHTS + 1) ** 2),
    "exp of sum": lambda z: jnp.exp(jnp.sum(z) / 2),
    "neighbours": lambda z: jnp.sum(z * jnp.roll(z, 1) + z),
    "running": lambda z: jnp.sum(jnp.cumsum(z * WEIGHTS) ** 2),
    "reversed": lambda z: jnp.sum((z + z[::-1] * WEIGHTS) ** 2),
    "largest": lambda z: jnp.max(z * WEIGHTS),
}


@dataclass(frozen=True)
class Plate:
    out: int
    p: Probability
    strategy: str | None
    reduction: str

    def run(self, world: World, env: Env) -> None:
        z = world.lanes(self.p.value(world, env), self.strategy)
        env[self.out] = REDUCTIONS[self.reduction](z)


@dataclass(frozen=True)
class Branch:
    out: int
    flag: int
    then: Block
    other: Block

    def run(self, world: World, env: Env) -> None:
        then, other = (lambda b=b: b.run(world, dict(env)) for b in (self.then, self.other))
        env[self.out] = world.branch(env[self.flag], then, other)


@dataclass(frozen=True)
class Loop:
    last: int
    total: int
    inner: int
    start: int
    body: Block
    carry: int
    length: int
    reverse: bool
    nonlinear: bool

    def run(self, world: World, env: Env) -> None:
        def step(carry):
            inner = {**env, self.inner: carry}
            out = self.body.run(world, inner)
            return inner[self.carry], out

        env[self.last], ys = world.loop(step, env[self.start], self.length, self.reverse)
        env[self.total] = jnp.sum(jnp.cumsum(ys) ** 2) / 10 if self.nonlinear else jnp.sum(ys)


@dataclass(frozen=True)
class Block:
    """Statements, and the variable that is their value."""

    statements: tuple[Any, ...]
    value: int

    def run(self, world: World, env: Env) -> Any:
        for statement in self.statements:
            statement.run(world, env)
        return env[self.value]


# ------------------------------------------------------------------------------- generator


@dataclass
class Generator:
    """Makes a random program with at most about `budget` flips in one outcome."""

    rng: random.Random
    strategies: Sequence[str | None]
    budget: int = 6
    flips: int = 0
    names: int = 0
    made: list[Any] = field(default_factory=list)

    def program(self) -> Block:
        variables: list[int] = []
        statements = self.statements(variables, depth=2, times=1)
        total = variables[-1]
        for v in variables[-3:-1]:
            total, last = self.name(), total
            statements.append(Let(total, "add", last, v))
        return Block(tuple(statements), total)

    def name(self) -> int:
        self.names += 1
        return self.names

    def probability(self, variables: list[int]) -> Probability:
        pick = self.rng.choice
        if not variables or self.rng.random() < 0.25:
            return Probability(pick([0.2, 0.5, 0.7, "t", "1-t", "t/2"]))
        return Probability(pick(["t", "1-t", 0.4]), pick([0.6, "t", 0.25]), pick(variables))

    def statements(self, variables: list[int], depth: int, times: int) -> list[Any]:
        """Statements that define new variables, which are appended to `variables`."""
        kinds = [self.flip, self.flip, self.let, self.loop, self.branch, self.plate]
        out: list[Any] = []
        while len(out) < self.rng.randint(2, 4) or not variables:
            make = self.rng.choice(kinds) if variables else self.flip
            statement = make(variables, depth, times)
            if statement is not None:
                out.append(statement)
            elif not variables:
                break
        return out

    def spend(self, flips: int) -> bool:
        if self.flips + flips > self.budget and self.flips:
            return False
        self.flips += flips
        return True

    def flip(self, variables: list[int], depth: int, times: int) -> Any:
        p = self.probability(variables)
        if not self.spend(times):
            return self.let(variables, depth, times)
        variables.append(self.name())
        return Flip(variables[-1], p, self.rng.choice(self.strategies))

    def let(self, variables: list[int], depth: int, times: int) -> Any:
        a, b = self.rng.choice(variables), self.rng.choice(variables)
        variables.append(self.name())
        return Let(variables[-1], self.rng.choice(list(FUNCTIONS)), a, b)

    def plate(self, variables: list[int], depth: int, times: int) -> Any:
        p = self.probability(variables)
        if not self.spend(len(LANES) * times):
            return self.let(variables, depth, times)
        variables.append(self.name())
        strategy, reduction = self.rng.choice(self.strategies), self.rng.choice(list(REDUCTIONS))
        return Plate(variables[-1], p, strategy, reduction)

    def block(self, variables: list[int], depth: int, times: int) -> Block:
        inner = list(variables)
        statements = self.statements(inner, depth - 1, times)
        return Block(tuple(statements), self.rng.choice(inner))

    def branch(self, variables: list[int], depth: int, times: int) -> Any:
        if depth == 0:
            return self.let(variables, depth, times)
        flag = self.rng.choice(variables)
        then, other = self.block(variables, depth, times), self.block(variables, depth, times)
        variables.append(self.name())
        return Branch(variables[-1], flag, then, other)

    def loop(self, variables: list[int], depth: int, times: int) -> Any:
        length = self.rng.randint(2, 3)
        if depth == 0 or self.flips + times * length > self.budget:
            return self.let(variables, depth, times)
        start, inner = self.rng.choice(variables), self.name()
        seen = [*variables, inner]
        statements = self.statements(seen, depth - 1, times * length)
        body = Block(tuple(statements), self.rng.choice(seen))
        last, total = self.name(), self.name()
        carry, flags = self.rng.choice(seen), [self.rng.random() < 0.3 for _ in range(2)]
        variables += [last, total]
        return Loop(last, total, inner, start, body, carry, length, *flags)


def exact(program: Block, theta: float) -> tuple[float, float]:
    """Expected value and its derivative (central difference, float64), over all outcomes."""

    def expectation(t: float) -> float:
        total, todo = 0.0, [[]]
        while todo:
            world = ExactWorld(t, todo.pop())
            value = float(program.run(world, {}))
            todo += world.open
            total += float(world.weight) * value
        return total

    step = 1e-4
    with jax.enable_x64(True), jax.disable_jit():
        slope = (expectation(theta + step) - expectation(theta - step)) / (2 * step)
        return expectation(theta), slope
