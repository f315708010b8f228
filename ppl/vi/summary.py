"""`Summary`: a table of moments and quantiles of draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

_QUANTILES = [0.05, 0.5, 0.95]
_COLUMNS = ("mean", "sd", "5%", "50%", "95%")


@dataclass(frozen=True)
class Row:
    """One number of one choice; quantities in the units of the choice.

    Attributes:
        address: of the choice, with the entry's index: `guide/weights[0, 2]`.
        mean: of the draws.
        sd: standard deviation of the draws.
        q5: 5 % quantile, with `median` (50 %) and `q95` (95 %).
    """

    address: str
    mean: float
    sd: float
    q5: float
    median: float
    q95: float


@dataclass(frozen=True)
class Summary:
    """Moments and quantiles of draws, one row per number.

    Attributes:
        rows: the table.
        draws: number of draws.
        left_out: address -> how many of its numbers have no row.
    """

    rows: tuple[Row, ...]
    draws: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        table = Table(title=f"{self.draws} draws", title_justify="left")
        table.add_column("address", overflow="fold")
        for column in _COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.rows:
            values = (row.mean, row.sd, row.q5, row.median, row.q95)
            table.add_row(row.address, *(f"{v:.4g}" for v in values))
        for address, count in self.left_out.items():
            table.add_row(f"{address}: {count} more", *("..." for _ in _COLUMNS))
        return as_text(table)

    __repr__ = __str__


def as_text(table: Table) -> str:
    """A table as plain text."""
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def summarize(
    choices: Any, *, max_entries: int, weights: Float[np.ndarray, " draws"] | None = None
) -> Summary:
    """Summarise draws of choices.

    Args:
        choices: pytree of arrays, with the draws along their first axis.
        max_entries: rows of one choice, at most.
        weights: of the draws, which sum to 1; equal ones if `None`.
    """
    rows: list[Row] = []
    left_out: dict[str, int] = {}
    leaves = jax.tree_util.tree_leaves_with_path(choices)
    for path, leaf in leaves:
        address = "/".join(str(_name(entry)) for entry in path) or "value"
        draws = np.asarray(leaf, dtype=float)
        rows += _rows(address, draws, max_entries, weights)
        size = math.prod(draws.shape[1:])
        if size > max_entries:
            left_out[address] = size - max_entries
    return Summary(tuple(rows), len(leaves[0][1]) if leaves else 0, left_out)


def _rows(
    address: str, draws: np.ndarray, max_entries: int, weights: np.ndarray | None
) -> Iterator[Row]:
    shape = draws.shape[1:]
    flat = draws.reshape(len(draws), -1)[:, :max_entries]
    if weights is None:
        ddof = min(1, len(draws) - 1)
        moments = flat.mean(0), flat.std(0, ddof=ddof)
        quantiles = np.quantile(flat, _QUANTILES, axis=0)
    else:
        mean = weights @ flat
        moments = mean, np.sqrt(weights @ (flat - mean) ** 2)
        quantiles = np.quantile(flat, _QUANTILES, axis=0, weights=weights, method="inverted_cdf")
    stats = (*moments, *quantiles)
    for i, values in enumerate(zip(*stats, strict=True)):
        index = ", ".join(map(str, np.unravel_index(i, shape))) if shape else ""
        yield Row(f"{address}[{index}]" if shape else address, *map(float, values))


def _name(entry: Any) -> Any:
    """A step of a path in a pytree, as in an address."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry
