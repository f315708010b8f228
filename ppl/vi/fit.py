"""`vi.fit`: maximise an objective program over its parameters.

The loop itself, on the device, is in `_loop.py`; here are its start, what happens between its
runs, and its end: done, interrupted, or gone wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from ppl.compiler.estimator import Estimator
from ppl.compiler.estimator import compile as compile_objective
from ppl.errors import NonFiniteError, PplError
from ppl.vi._inputs import (
    bind_data,
    check_callbacks,
    check_count,
    check_key,
    check_optimizer,
    start_params,
)
from ppl.vi._loop import Loop, State
from ppl.vi.progress import Bar, Pace, progress_bar
from ppl.vi.result import Fit


@dataclass(frozen=True)
class Report:
    """What a callback of `vi.fit` sees between two runs of the loop.

    Attributes:
        step: number of steps made.
        steps: number of steps in all.
        losses: minus the estimated objective, of all steps made.
    """

    step: int
    steps: int
    losses: Float[np.ndarray, " step"]
    _constrain: Callable[[], dict[str, Any]] = field(repr=False)

    @cached_property
    def params(self) -> dict[str, Any]:
        """The current values by name, in their supports."""
        return self._constrain()


def fit(
    program: Any,
    data: Any = None,
    *,
    steps: int = 1_000,
    optimizer: optax.GradientTransformation | None = None,
    key: Key[Array, ""] | None = None,
    num_samples: int | None = None,
    params: dict[str, Any] | None = None,
    callbacks: Callable[[Report], Any] | Sequence[Callable[[Report], Any]] = (),
    progress: bool = True,
    chunk: int | None = None,
    strategies: dict[str, Any] | None = None,
) -> Fit:
    """Maximise an objective over its parameters.

    The steps run on the device, many at a time, without a check in between; the result does
    not depend on how many at a time. Ctrl-C between two such runs returns what there is.

    Args:
        program: an objective program, or what `vi.compile` made of it.
        data: its arguments: a tuple of all, or the only one; its own if `None`.
        steps: number of gradient steps.
        optimizer: from optax; `optax.adam(1e-2)` if `None`. It sees unconstrained values and
            the gradient of minus the objective.
        key: random key; `jax.random.key(0)` if `None`.
        num_samples: samples to average at each step; by default as `vi.compile` chooses.
        params: start values by name, in place of the declared ones.
        callbacks: functions of a `Report`, or one, called between runs; a true result stops the
            fit.
        progress: show a progress bar if on a terminal.
        chunk: steps per run; by default by time, or a twentieth of `steps` if there are
            callbacks.
        strategies: gradient strategies by address, as for `vi.compile`.

    Returns:
        the fitted parameters and the losses, in a `Fit`.

    Raises:
        NonFiniteError: a loss or parameter became NaN or infinite. It names the step and the
            address; its `fit` is the result up to there, with the last good parameters.
        DataError: an array of the data has NaN.
        AddressError, ShapeError, SupportError: `params` does not fit the declared parameters.
        TypeError, ValueError: an argument is of the wrong kind.
    """
    steps = check_count("steps", steps)
    chunk = None if chunk is None else check_count("chunk", chunk)
    optimizer = check_optimizer(optax.adam(1e-2) if optimizer is None else optimizer)
    callbacks = check_callbacks(callbacks)
    init_key, step_key, result_key = jax.random.split(check_key(key), 3)
    estimator = _compiled(program, strategies, num_samples)
    data = bind_data(estimator.objective, data)
    supports = {name: decl.info.support for name, decl in estimator.params(*data).items()}
    init = start_params(estimator.init(init_key, *data), params, supports)
    if not init:
        raise PplError(
            "vi.fit: the program has no parameters to fit",
            fix='declare some, param("loc", 0.0), in the guide or the objective',
        )

    if chunk is None and callbacks:
        chunk = max(1, steps // 20)
    start = time.perf_counter()
    loop = Loop(estimator, optimizer, step_key, init, data, steps=steps, chunk=chunk)
    state = loop.start()
    loop.compile(state)
    run = _Run(loop, steps, state)
    compiled = time.perf_counter()
    try:
        with progress_bar(steps, progress) as bar:
            pace = Pace(steps, chunk, block=loop.block, capacity=loop.capacity)
            run.go(pace, bar, callbacks)
    except KeyboardInterrupt:
        run.interrupted = True
    seconds = time.perf_counter() - compiled
    result = Fit(
        params=run.params(),
        losses=run.losses,
        estimator=estimator,
        objective=estimator.objective,
        data=data,
        key=result_key,
        interrupted=run.interrupted,
        seconds=seconds,
        compile_seconds=compiled - start,
    )
    if run.failed:
        raise _failure(result, loop, run.state)
    return result


def _compiled(program: Any, strategies: Any, num_samples: int | None) -> Estimator:
    """The estimator of a program."""
    if isinstance(program, Estimator):
        if strategies is not None or num_samples is not None:
            raise TypeError("vi.fit: pass strategies and num_samples to vi.compile")
        return program
    if not callable(program):
        raise TypeError(
            f"vi.fit: expected an objective program or an estimator, not {type(program).__name__};"
            " for a model and its guide pass vi.elbo(model, guide, ...)"
        )
    if num_samples is not None:
        num_samples = check_count("num_samples", num_samples)
    return compile_objective(program, strategies=strategies, num_samples=num_samples)


class _Run:
    """The steps made so far, all of them good.

    Attributes:
        failed: the next step's loss or result is not finite.
    """

    def __init__(self, loop: Loop, steps: int, state: State):
        self.failed = self.interrupted = False
        self._loop, self._steps = loop, steps
        # In one piece, so that an interrupt cannot come between its parts.
        self._made: tuple[State, tuple[np.ndarray, ...], int] = (state, (), 0)

    @property
    def state(self) -> State:
        return self._made[0]

    @property
    def losses(self) -> Float[np.ndarray, " step"]:
        return np.concatenate([np.zeros(0, np.float32), *self._made[1]])

    def params(self) -> dict[str, Any]:
        """The parameters in their supports."""
        return self._loop.constrain(self.state)

    def go(self, pace: Pace, bar: Bar, callbacks: tuple[Callable, ...]) -> None:
        """Make the steps, until the end, a failure, or a callback's wish."""
        while (made := self._made)[2] < self._steps:
            state, parts, step = made
            count = pace.next(step)
            after, losses, finite = self._loop.run(state, step, count)
            losses = np.asarray(losses)[:count]
            if not (bool(finite) and np.isfinite(losses).all()):
                self._fail(losses)
                return
            self._made = after, (*parts, losses), step + count
            pace.made(count)
            bar(step + count, float(losses.mean()))
            if callbacks and self._call(callbacks):
                self.interrupted = step + count < self._steps
                return

    def _call(self, callbacks: tuple[Callable, ...]) -> bool:
        report = Report(self._made[2], self._steps, self.losses, self.params)
        return any([callback(report) for callback in callbacks])  # all, whatever the first says

    def _fail(self, losses: np.ndarray) -> None:
        """Keep what is good of the failed run."""
        state, parts, step = self._made
        # The failed step is that of the first bad loss, the last one if there is none, or an
        # earlier one, whose result made that loss bad.
        bad = np.flatnonzero(~np.isfinite(losses))
        last = step + (int(bad[0]) if len(bad) else len(losses) - 1)
        index, before = self._loop.locate(state, step, last)
        self._made = before, (*parts, losses[: index - step]), index
        self.failed = True


def _failure(result: Fit, loop: Loop, state: State) -> NonFiniteError:
    """Say what of the step after the last good one is not finite, and where."""
    step = result.steps
    value, gradient = loop.loss_and_gradient(state, step)
    address = result.estimator.check_finite(loop.step_key(step), result.params, *result.data)
    if not np.isfinite(value):
        what, because = f"the loss is {float(value)}", None
    elif names := _not_finite(gradient):
        what = f"the gradient is not finite, though the loss is ({float(value):.6g})"
        because = f"the gradient with respect to {', '.join(names)} is NaN or infinite"
    else:
        what, because = "the optimiser's update is not finite, though the gradient is", None
    start = "start values (params=...), " if step == 0 else ""
    error = NonFiniteError(
        f"vi.fit: at step {step}, {what}",
        address=address,
        because=because,
        fix=f"try other {start}a smaller learning rate, or clipped gradients, optax.chain("
        "optax.clip_by_global_norm(1.0), optax.adam(1e-3)); this error's .fit has the last good "
        "parameters and all losses",
    )
    error.step, error.fit = step, result
    return error


def _not_finite(gradient: PyTree) -> list[str]:
    """Names of the leaves that are not finite."""
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    bad = [path for path, leaf in leaves if not np.isfinite(np.asarray(leaf)).all()]
    return [jax.tree_util.keystr(path) for path in bad]
