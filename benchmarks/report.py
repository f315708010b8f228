"""A suite of measurements, and what all suites print and write with."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

console = Console(width=180)


class Suite(NamedTuple):
    """Measurements of the same kind.

    Attributes:
        measure: by name, and whether to be quick; the result is data for JSON.
        names: of all that it measures.
        quick: of those measured in a quick run.
        figure: draws all results into a file.
    """

    measure: Callable[[str, bool], dict[str, Any]]
    table: Callable[[dict[str, Any]], Table]
    names: Sequence[str]
    quick: Sequence[str]
    figure: Callable[[list[dict[str, Any]], Path], None] | None = None


PACKAGES = "jax", "genjax", "numpyro", "funsor", "tfp-nightly", "optax", "equinox", "numpy"


def machine() -> dict[str, str]:
    """Where, with what and when this ran."""
    return {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "device": str(jax.devices()[0]),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def save_figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """Axes to draw on, saved at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure.subplots(rows, columns)
    figure.savefig(path, dpi=120)
