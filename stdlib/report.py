"""What the experiments share: command line, progress, headline table, figures.

An experiment is a function `main(smoke, folder)` that returns its claims; `run_as_script` runs it
for `python -m stdlib.NAME [--smoke] [--outputs FOLDER]`, which fails if a claim is not met.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = Path("outputs")
CACHE = Path(".cache") / "jax"
console = Console(highlight=False)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper (or its card) and what we measured.

    Attributes:
        what: The statement, for instance "ELBO above plain Brownian motion's, nats a path".
        measured: Our number.
        bar: What it is held against, as text: "at least 0.7".
        met: Whether it holds.
    """

    what: str
    measured: float
    bar: str
    met: bool

    @classmethod
    def at_least(cls, what: str, measured: float, bound: float) -> Claim:
        """`measured >= bound`; NaN never meets it."""
        return cls(what, measured, f"at least {bound:g}", bool(measured >= bound))

    @classmethod
    def at_most(cls, what: str, measured: float, bound: float) -> Claim:
        """`measured <= bound`; NaN never meets it."""
        return cls(what, measured, f"at most {bound:g}", bool(measured <= bound))

    @classmethod
    def between(cls, what: str, measured: float, low: float, high: float) -> Claim:
        """`low <= measured <= high`."""
        return cls(what, measured, f"{low:g} to {high:g}", bool(low <= measured <= high))


Experiment = Callable[[bool, Path], list[Claim]]
"""`main(smoke, folder)`: with `smoke` a short version; figures go into `folder`."""


def print_claims(title: str, claims: Iterable[Claim]) -> None:
    """The headline table."""
    rows = [(c.what, f"{c.measured:.4g}", c.bar, "yes" if c.met else "NO") for c in claims]
    print_table(title, ("claim", "measured", "bar", "met"), rows)


def print_table(title: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table; its first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def save_figure(figure: Figure, name: str, folder: Path) -> Path:
    """Write a figure as PNG, and say where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=150)
    console.print(f"figure: {path}", soft_wrap=True)
    return path


def run_as_script(main: Experiment, title: str) -> None:
    """Run an experiment with the options of the command line and print its claims.

    Compiled programs are kept in `.cache/jax`. A short run, most of whose time is compilation, has
    them compiled without most of XLA's optimisations.

    Raises:
        SystemExit: With status 1 if a claim is not met.
    """
    options = arguments(title, "--smoke", "a short version, well under a minute").parse_args()
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", options.smoke)
    # Drawing is imported beside the first compilation, which leaves the interpreter to others.
    threading.Thread(target=import_module, args=("matplotlib.figure",), daemon=True).start()
    claims = main(options.smoke, options.outputs)
    print_claims(title, claims)
    if not all(claim.met for claim in claims):
        raise SystemExit(1)


def arguments(description: str | None, short: str, meaning: str) -> argparse.ArgumentParser:
    """A command line with an option for a short run, and `--outputs`."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument(short, action="store_true", help=meaning)
    parser.add_argument(
        "--outputs", type=Path, default=OUTPUTS, help="where figures go (default: %(default)s)"
    )
    return parser
