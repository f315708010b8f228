"""The progress bar of `vi.fit`, and how many steps to make between two looks at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS = 0.25  # between two looks: for a bar that moves, and Ctrl-C that is heard
_REFRESH = 0.1  # between two drawings of the bar, at least


class Bar(Protocol):
    """Called with the number of steps made and a loss, as often as one likes."""

    def __call__(self, step: int, loss: float) -> None: ...


@contextmanager
def progress_bar(steps: int, show: bool) -> Iterator[Bar]:
    """A bar with the loss and the steps per second; silent if not on a terminal."""
    if not show:
        yield lambda step, loss: None
        return
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield lambda step, loss: None
        return
    columns = (
        TextColumn("fit"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]:.6g}"),
        TextColumn("{task.fields[rate]:.0f} steps/s"),
        TimeRemainingColumn(),
    )
    # Drawn from here, by time: rich's own thread would take turns with the fit.
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("fit", total=steps, loss=float("nan"), rate=0.0)
        start = drawn = time.perf_counter()

        def update(step: int, loss: float) -> None:
            nonlocal drawn
            now = time.perf_counter()
            if now - drawn >= _REFRESH or step == steps:
                drawn = now
                rate = step / max(now - start, 1e-9)
                bar.update(task, completed=step, loss=loss, rate=rate)
                bar.refresh()

        yield update


class Pace:
    """How many steps to make next: `chunk`, or what takes about a quarter of a second.

    Sizes depend on time only if nobody sees them: results do not depend on them.
    """

    def __init__(self, steps: int, chunk: int | None, *, block: int, capacity: int):
        """`block` divides all counts but the last; `capacity` bounds them."""
        self._steps, self._chunk = steps, chunk
        self._block, self._capacity = block, capacity
        self._next = min(chunk or block, capacity)
        self._then = time.perf_counter()

    def next(self, done: int) -> int:
        """The number of steps to make after `done`."""
        return min(self._next, self._steps - done)

    def made(self, count: int) -> None:
        """Note that `count` steps have been made since the last call."""
        now = time.perf_counter()
        elapsed, self._then = now - self._then, now
        if self._chunk is None:
            wanted = count * _SECONDS / max(elapsed, 1e-9)
            wanted = min(wanted, 10 * count, self._capacity)  # the first ones mislead
            self._next = max(int(wanted) // self._block, 1) * self._block
