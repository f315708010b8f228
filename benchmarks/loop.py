"""The training loop that all sides share, compiled, with what compiling it took."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from benchmarks.task import BY_HAND, MATRIX_WORK, OURS, PLANNED, Gradient, Task

BLOCK = 16
"""Steps of the inner loop: XLA makes short loops of known length faster than long ones."""


class Seconds(NamedTuple):
    """On the clock, and of the processor (both cores together)."""

    wall: float
    cpu: float

    def __truediv__(self, number: float) -> Seconds:
        return Seconds(self.wall / number, self.cpu / number)


class State(NamedTuple):
    params: Any
    optimizer: Any
    loss: Any
    """sum of all losses so far: the loop must compute them"""


def training(gradient: Gradient, task: Task) -> Any:
    """The loop: `(key, state, data, first, blocks) -> state`, of `blocks` times `BLOCK` steps."""
    adam = optax.adam(task.learning_rate)

    def step(key, data, state, i):
        key = jax.random.fold_in(key, i)
        loss, grad = gradient(key, state.params, task.seen(key, data))
        updates, optimizer = adam.update(grad, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, optimizer, state.loss + loss), None

    def run(key, state, data, first, blocks):
        def block(b, state):
            steps = first + b * BLOCK + jnp.arange(BLOCK)
            return lax.scan(lambda s, i: step(key, data, s, i), state, steps)[0]

        return lax.fori_loop(0, blocks, block, state)

    return run


def start(task: Task) -> State:
    # A weakly typed leaf would come back strongly typed, which a loop's carry must not.
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), task.start)
    return State(params, optax.adam(task.learning_rate).init(params), jnp.zeros(()))


@dataclass
class Compiled:
    """A compiled training loop.

    Attributes:
        trace_seconds: from the programs to a jaxpr, ours with `vi.compile`.
        xla_seconds: from there to machine code.
        equations: of the jaxpr, loop bodies once.
        bytes: arguments, results and temporary buffers of the machine code.
    """

    task: Task
    executable: Any
    trace_seconds: float
    xla_seconds: float
    equations: int
    bytes: int

    @property
    def seconds(self) -> float:
        return self.trace_seconds + self.xla_seconds

    def run(self, state: State, first: int, blocks: int) -> State:
        key = jax.random.key(1)
        args = key, state, self.task.data, jnp.int32(first), jnp.int32(blocks)
        return jax.block_until_ready(self.executable(*args))

    def time(self, blocks: int) -> Seconds:
        """One step's time, in so many blocks from the start."""
        state = start(self.task)
        wall, cpu = time.perf_counter(), time.process_time()
        self.run(state, 0, blocks)
        taken = Seconds(time.perf_counter() - wall, time.process_time() - cpu)
        return taken / (blocks * BLOCK)

    def blocks_for(self, seconds: float) -> int:
        """How many blocks take about so long."""
        blocks = 1
        while (taken := self.time(blocks).wall * blocks * BLOCK) < seconds / 8:
            blocks *= 4
        return max(1, round(blocks * seconds / taken))


@contextmanager
def _no_stored_code() -> Iterator[None]:
    """No reading of machine code from an earlier process."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def compiled(task: Task, name: str) -> Compiled:
    """A side's training loop, built, traced and compiled anew."""
    gc.collect()
    side = task.matrix_work if name == MATRIX_WORK else task.sides[name]
    arguments = jax.random.key(1), start(task), task.data, jnp.int32(0), jnp.int32(1)
    began = time.perf_counter()
    traced = jax.jit(training(side(task.data), task)).trace(*arguments)
    traced_at = time.perf_counter()
    with _no_stored_code():
        executable = traced.lower().compile()
    done = time.perf_counter()
    memory = executable.memory_analysis()
    sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    equations = count_equations(traced.jaxpr.jaxpr)
    return Compiled(task, executable, traced_at - began, done - traced_at, equations, sum(sizes))


def attempt(task: Task, name: str) -> Compiled | str:
    """The same, or why there is none: a peer may not be installed, or fail."""
    if name in (OURS, PLANNED, BY_HAND, MATRIX_WORK):
        return compiled(task, name)
    try:
        return compiled(task, name)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except Exception as error:  # whatever a peer raises is a finding, not our failure
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"


def count_equations(jaxpr: Any) -> int:
    """Number of equations, with those of inner functions (loop bodies once)."""
    total = 0
    for eqn in jaxpr.eqns:
        total += 1
        for sub in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(sub, "eqns") or hasattr(sub, "jaxpr"):
                total += count_equations(getattr(sub, "jaxpr", sub))
    return total
