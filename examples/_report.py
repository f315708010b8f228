"""What the examples share: tables in the terminal, figures in files, and command lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = Path("outputs")
console = Console(highlight=False)


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


def run_as_script(main: Callable[..., Any], description: str | None) -> None:
    """Run an example's `main(quick, folder)` with the options of the command line."""
    options = arguments(description).parse_args()
    main(quick=options.quick, folder=options.outputs)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all examples have."""
    summary = (description or "").split("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--quick", action="store_true", help="fewer steps, for a look")
    parser.add_argument(
        "--outputs", type=Path, default=OUTPUTS, help="where figures go (default: %(default)s)"
    )
    return parser
