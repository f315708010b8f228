"""The runs of a fit's loop, one after the other, and what happens between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ppl.vi._batches import Stream
from ppl.vi._loop import Inputs, Loop, State
from ppl.vi._mesh import place_rows, put_everywhere
from ppl.vi.convergence import Windows
from ppl.vi.progress import Bar, Pace


@dataclass(frozen=True)
class Report:
    """What a callback of `vi.fit` sees between two runs of the loop.

    Attributes:
        step: number of steps made.
        steps: number of steps in all.
        losses: minus the estimated objective, of all steps made; with restarts
            `[steps, restarts]`.
    """

    step: int
    steps: int
    losses: np.ndarray
    _constrain: Callable[[], dict[str, Any]] = field(repr=False)

    @cached_property
    def params(self) -> dict[str, Any]:
        """The current values by name, in their supports; with restarts, those of the best."""
        return self._constrain()


@dataclass(frozen=True)
class Made:
    """Where a run stands: all of it good. In one piece, so that an interrupt cannot come between
    its parts.

    Attributes:
        state: of the loop.
        losses: of each run.
        step: number of steps made.
        place: of the source of the data, if it is one.
    """

    state: State
    losses: tuple[np.ndarray, ...] = ()
    step: int = 0
    place: Any = None


class Run:
    """The steps of a fit.

    Attributes:
        made: the steps made so far, all of them good.
        failed: the next step's loss or result is not finite.
        keeps_history: whether the parameters are noted after each run.
        history: (steps made, parameters) of each snapshot.
        interrupted: whether Ctrl-C or a callback stopped it.
        block: (inputs, first step) of the last run, which a failure is repeated with.
    """

    def __init__(
        self,
        loop: Loop,
        inputs: Inputs,
        starts: list[dict[str, Any]],
        batch: tuple[Any, ...],
        steps: int,
        *,
        stream: Stream | None = None,
        mesh: jax.sharding.Mesh | None = None,
        windows: Windows | None = None,
    ):
        self.loop, self.steps, self.windows = loop, steps, windows
        self.failed = self.interrupted = self.keeps_history = False
        self.history: list[tuple[int, dict[str, Any]]] = []
        self._inputs, self._stream, self._mesh = inputs, stream, mesh
        self._restarts = len(starts)
        self.block: tuple[Inputs, int] = (self._next_inputs(1), 0)
        if stream is not None:
            stream.rewind()
        state = loop.start(self.block[0], starts, batch)
        if mesh is not None:
            state = put_everywhere(state, mesh)
        self.made = Made(state, place=None if stream is None else stream.place)

    def _next_inputs(self, count: int) -> Inputs:
        """The inputs of the next run."""
        if self._stream is None:
            return self._inputs
        data = self._stream.stacked(count, self.loop.sizes.capacity)
        if self._mesh is not None:
            data = place_rows(data, (True,) * len(jax.tree.leaves(data)), self._mesh, axis=1)
        return self._inputs._replace(data=data)

    @property
    def losses(self) -> np.ndarray:
        shape = (0,) if self._restarts == 1 else (0, self._restarts)
        return np.concatenate([np.zeros(shape, np.float32), *self.made.losses])

    def final_losses(self) -> Float[np.ndarray, " restarts"]:
        """Mean loss of each restart over the last tenth of the steps (NaN if it went wrong)."""
        losses = self.losses.reshape(self.made.step, self._restarts)
        finite = np.isfinite(losses).all(0) if len(losses) else np.ones(self._restarts, bool)
        last = losses[-max(1, len(losses) // 10) :].mean(0) if len(losses) else 0.0
        return np.where(finite, last, np.nan)

    @property
    def best(self) -> int:
        """The restart with the lowest final loss."""
        return int(np.nanargmin(self.final_losses()))

    def params(self, *, averaged: bool = False) -> dict[str, Any]:
        """The parameters in their supports, of the best restart.

        Args:
            averaged: over the last windows, if there are any and they are stationary.
        """
        mean = self.windows.average() if averaged and self.windows is not None else None
        unconstrained = self.made.state.params if mean is None else mean
        if self._restarts > 1:
            best = self.best
            unconstrained = jax.tree.map(lambda x: x[best], unconstrained)
        return self.loop.constrain(self.block[0], unconstrained)

    def continue_from(self, place: Any, windows: list[Any]) -> None:
        """Restore what is beside `made`: the place of the source, and the last windows."""
        if self._stream is not None:
            self._stream.go_to(place)
        if self.windows is not None:
            arrays = [np.asarray(x) for x in windows]
            kept = [tuple(arrays[i : i + 4]) for i in range(0, len(arrays), 4)]
            self.windows.restore(kept, self.made.state.params)

    def compile(self) -> None:
        """Compile the loop, if an earlier fit has not."""
        jax.block_until_ready(self.loop.run(self.block[0], self.made.state, 0, 0))

    def go(
        self,
        pace: Pace,
        bar: Bar,
        callbacks: tuple[Callable[[Report], Any], ...],
        save: Callable[[Run], None] | None = None,
    ) -> None:
        """Make the steps, until the end, convergence, a failure, or a callback's wish."""
        while (made := self.made).step < self.steps:
            count = pace.next(made.step)
            inputs = self._next_inputs(count)
            self.block = inputs, made.step
            after = self.loop.run(inputs, made.state, made.step, count)
            losses = np.asarray(after.losses)[:count]
            if self._is_lost(losses, np.asarray(after.finite)):
                self._fail(losses)
                return
            if self.windows is not None:
                self.windows.add(made.state.params, after.moments, losses)
            place = None if self._stream is None else self._stream.place
            self.made = Made(after.state, (*made.losses, losses), made.step + count, place)
            pace.made(count)
            bar(self.made.step, float(np.nanmin(losses.reshape(count, -1).mean(0))))
            if self.keeps_history:
                self.history.append((self.made.step, self.params()))
            if save is not None:
                save(self)
            if self.windows is not None and self.windows.converged:
                return
            if callbacks and self._call(callbacks):
                self.interrupted = self.made.step < self.steps
                return

    def _call(self, callbacks: tuple[Callable[[Report], Any], ...]) -> bool:
        report = Report(self.made.step, self.steps, self.losses, self.params)
        return any([callback(report) for callback in callbacks])  # all, whatever the first says

    def _is_lost(self, losses: np.ndarray, finite: np.ndarray) -> bool:
        """Whether the run went wrong: with restarts, whether all of them did by now."""
        good = np.isfinite(losses).reshape(len(losses), -1).all(0) & finite
        if self._restarts > 1:
            good &= np.isfinite(self.final_losses())
        return not good.any()

    def _fail(self, losses: np.ndarray) -> None:
        """Keep what is good of the failed run."""
        self.failed = True
        if self._restarts > 1:
            return  # the start of the run is the last good state of the last one that was well
        made = self.made
        # The failed step is that of the first bad loss, the last one if there is none, or an
        # earlier one, whose result made that loss bad.
        bad = np.flatnonzero(~np.isfinite(losses))
        last = made.step + (int(bad[0]) if len(bad) else len(losses) - 1)
        inputs, first = self.block
        index, before = self.loop.locate(inputs, made.state, first, last)
        good = losses[: index - made.step]
        self.made = Made(before, (*made.losses, good), index, made.place)

    def failure(self) -> tuple[Array, Any, Any, tuple[Any, ...]]:
        """(loss, gradient, key, data) of the step after the last good one."""
        inputs, first = self.block
        step, state = self.made.step, self.made.state
        loss, gradient = self.loop.loss_and_gradient(inputs, state, step, first)
        data = self.loop.data(inputs, state, step, first)
        return loss, gradient, self.loop.step_key(inputs, step), data
