"""Paired measurements of a program against the same computation written by hand.

Both sides are functions `loss(key, params, data)` to minimise, put into the same training loop.
Runs are interleaved (A B, B A, A B, ...) in one process, and what is reported is the median of the
ratios within the pairs: other work on the machine slows both runs of a pair alike.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


class Side(NamedTuple):
    """One way to compute a loss.

    Attributes:
        loss: `(key, params, data) -> scalar`, an unbiased estimate of minus the objective.
        params: start values, unconstrained.
        estimator: what `vi.compile` made, if this side is ours.
    """

    loss: Callable[..., Any]
    params: Any
    estimator: Any = None


@dataclass(frozen=True)
class Task:
    """A model fitted by stochastic gradients, in two ways.

    Attributes:
        ours, by_hand: make a side from the data. A side made anew is traced anew.
        data: arrays that both sides get.
        to_hand: our parameters in the form of those by hand, for the common evaluator.
        learning_rate: of Adam, in both.
        fit_steps: steps after which the objectives are compared.
    """

    name: str
    ours: Callable[[Any], Side]
    by_hand: Callable[[Any], Side]
    data: Any
    to_hand: Callable[[Any], Any]
    learning_rate: float
    fit_steps: int

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


@dataclass
class Ratios:
    """Times of ours and by hand, in pairs, in seconds."""

    ours: list[float] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)

    def add(self, ours: float, by_hand: float) -> None:
        self.ours.append(ours)
        self.by_hand.append(by_hand)

    @property
    def ratios(self) -> np.ndarray:
        return np.array(self.ours) / np.array(self.by_hand)

    def summary(self) -> dict[str, float]:
        low, median, high = np.quantile(self.ratios, [0.25, 0.5, 0.75])
        return {
            "ours": float(np.median(self.ours)),
            "by_hand": float(np.median(self.by_hand)),
            "ratio": float(median),
            "ratio_low": float(low),
            "ratio_high": float(high),
            "rounds": len(self.ours),
        }


# ------------------------------------------------------------------------------------ training


def training(side: Side, optimizer: optax.GradientTransformation, steps: int) -> Callable:
    """The loop that both sides share: `(key, params, state, data) -> (params, state, losses)`."""

    def step(carry: Any, i: Any, key: Any, data: Any) -> Any:
        params, state = carry
        loss, grad = jax.value_and_grad(side.loss, argnums=1)(
            jax.random.fold_in(key, i), params, data
        )
        updates, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), loss

    def run(key, params, state, data):
        body = lambda carry, i: step(carry, i, key, data)
        (params, state), losses = lax.scan(body, (params, state), jnp.arange(steps))
        return params, state, losses

    return run


def start(side: Side, task: Task) -> tuple[Any, ...]:
    params = jax.tree.map(jnp.asarray, side.params)
    return jax.random.key(1), params, task.optimizer.init(params), task.data


@dataclass
class Compiled:
    """A compiled training loop and what making it took."""

    run: Callable
    args: tuple[Any, ...]
    steps: int
    trace_seconds: float
    compile_seconds: float
    equations: int
    flops: float

    def time_steps(self) -> tuple[float, float]:
        """Seconds per step: (wall, processor)."""
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(self.run(*self.args))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall / self.steps, cpu / self.steps


def compiled(side: Side, task: Task, steps: int) -> Compiled:
    args = start(side, task)
    t0 = time.perf_counter()
    traced = jax.jit(training(side, task.optimizer, steps)).trace(*args)
    t1 = time.perf_counter()
    executable = traced.lower().compile()
    t2 = time.perf_counter()
    cost = executable.cost_analysis() or {}
    number = count_equations(traced.jaxpr.jaxpr)
    return Compiled(executable, args, steps, t1 - t0, t2 - t1, number, cost.get("flops", 0.0))


def count_equations(jaxpr: Any) -> int:
    """Number of equations, with those of inner functions (loop bodies once)."""
    total = 0
    for eqn in jaxpr.eqns:
        total += 1
        for sub in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(sub, "eqns") or hasattr(sub, "jaxpr"):
                total += count_equations(getattr(sub, "jaxpr", sub))
    return total


def steps_for(run: Compiled, seconds: float) -> int:
    """How many steps take about so long."""
    per_step = min(run.time_steps()[0] for _ in range(3))
    return max(run.steps, int(seconds / per_step))


def interleave(
    ours: Callable[[], tuple[float, float]], by_hand: Callable[[], tuple[float, float]], rounds: int
) -> tuple[Ratios, Ratios]:
    """Time both in alternating order; (wall, processor) ratios."""
    wall, cpu = Ratios(), Ratios()
    ours(), by_hand()  # warm up
    gc.collect()
    for i in range(rounds):
        if i % 2:
            b, a = by_hand(), ours()
        else:
            a, b = ours(), by_hand()
        wall.add(a[0], b[0])
        cpu.add(a[1], b[1])
    return wall, cpu


def compare_steps(task: Task, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Steady-state step time, in the shared loop."""
    ours, hand = task.ours(task.data), task.by_hand(task.data)
    steps = steps_for(compiled(hand, task, 64), seconds)
    a, b = compiled(ours, task, steps), compiled(hand, task, steps)
    wall, cpu = interleave(a.time_steps, b.time_steps, rounds)
    return {
        "wall": wall.summary(),
        "cpu": cpu.summary(),
        "steps": steps,
        "equations": {"ours": a.equations, "by_hand": b.equations},
        "flops": {"ours": a.flops, "by_hand": b.flops},
    }


def compare_compilation(task: Task, *, rounds: int) -> dict[str, Any]:
    """Trace and compile time, each time from new functions."""
    total, trace, backend = Ratios(), Ratios(), Ratios()
    for i in range(rounds + 1):
        pair = {}
        for which in ("ours", "by_hand") if i % 2 else ("by_hand", "ours"):
            gc.collect()
            t = time.perf_counter()
            side = getattr(task, which)(task.data)
            build = time.perf_counter() - t
            c = compiled(side, task, 64)
            pair[which] = (build + c.trace_seconds, c.compile_seconds)
        if i:  # the first round fills JAX's own caches
            (a, x), (b, y) = pair["ours"], pair["by_hand"]
            total.add(a + x, b + y)
            trace.add(a, b)
            backend.add(x, y)
    return {"total": total.summary(), "trace": trace.summary(), "compile": backend.summary()}


def compare_fit(task: Task, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Step time of `vi.fit`'s own loop against the loop by hand."""
    from ppl.vi._loop import Loop

    hand = task.by_hand(task.data)
    est = task.ours(task.data).estimator
    steps = steps_for(compiled(hand, task, 64), seconds) // 16 * 16
    by_hand = compiled(hand, task, steps)
    data = est.objective.data
    params = est.init(jax.random.key(0), *data)
    loop = Loop(est, task.optimizer, jax.random.key(1), params, data, steps=steps, chunk=steps)
    state = loop.start()
    loop.compile(state)

    def fit() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(loop.run(state, 0, steps))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall / steps, cpu / steps

    wall, cpu = interleave(fit, by_hand.time_steps, rounds)
    return {"wall": wall.summary(), "cpu": cpu.summary(), "steps": steps}


def compare_objectives(task: Task, *, samples: int = 2_000) -> dict[str, float]:
    """The objective that each side reaches from its start, by the evaluator by hand."""
    evaluate = task.by_hand(task.data).loss
    keys = jax.random.split(jax.random.key(2), samples)
    out = {}
    for which in ("ours", "by_hand"):
        side = getattr(task, which)(task.data)
        args = start(side, task)
        params, _, _ = jax.jit(training(side, task.optimizer, task.fit_steps))(*args)
        params = task.to_hand(params) if which == "ours" else params
        run = jax.jit(lambda p: lax.map(lambda k: evaluate(k, p, task.data), keys, batch_size=50))
        values = -np.asarray(run(params))
        out[which] = float(values.mean())
        out[which + "_error"] = float(values.std() / np.sqrt(samples))
    return out


def median(values: Sequence[float]) -> float:
    return float(np.median(values))
