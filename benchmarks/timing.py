"""Runs that take turns, and ratios within a turn: other work on the machine slows both alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def seconds_of(run: Callable[..., Any], *args: Any) -> Callable[[], float]:
    """Runs it, and returns the seconds."""

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(run(*args))
        return time.perf_counter() - began

    return once


def take_turns[T](runs: dict[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run all once in each round; the order goes forth in one round and back in the next."""
    times: dict[str, list[T]] = {name: [] for name in runs}
    gc.collect()
    for i in range(rounds):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            times[name].append(runs[name]())
    return times


def ratio(ours: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of ours / other within the rounds; medians of both."""
    a, b = np.array(ours), np.array(other)
    low, median, high = np.quantile(a / b, [0.25, 0.5, 0.75])
    return {
        "ours": float(np.median(a)),
        "other": float(np.median(b)),
        "ratio": float(median),
        "low": float(low),
        "high": float(high),
        "rounds": len(a),
    }
