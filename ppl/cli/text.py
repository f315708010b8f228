"""Text programs on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from ppl.errors import AddressError, suggestion


def is_text(program: str) -> bool:
    """Whether a target is a text program: `FILE.ppl`, or `FILE.ppl:name` of one in it."""
    return program.endswith(".ppl") or ".ppl:" in program


def load_text_target(program: str) -> Any:
    """An objective with the file's data, or a model or guide with its arguments from there.

    Without a name it is the file's last objective.

    Raises:
        TextError: the text has errors.
        AddressError: there is no such name, or nothing to choose.
        DataError: there are no data for an argument.
        OSError: the file cannot be read.
    """
    from ppl.syntax import load

    path, _, name = program.rpartition(":") if ".ppl:" in program else (program, "", "")
    text = load(path)
    if name in text.programs:
        return text.with_data(name)
    if not name and text.objectives:
        name = list(text.objectives)[-1]
    if name not in text.objectives:
        raise AddressError(
            f"{path} has no objective" + (f" or program {name!r}" if name else ""),
            because=suggestion(name, [*text.objectives, *text.programs]),
            fix="objective bound(...) { return ... }",
        )
    return text.objectives[name].with_data()


def check_texts(paths: Iterable[Path]) -> None:
    """Print all errors of text programs; exit with code 1 if there are any."""
    from ppl.syntax import check_path

    failed = False
    for path in paths:
        checked = check_path(path)
        for error in checked.errors:
            typer.echo(checked.source.show(error))
        failed = failed or bool(checked.errors)
    if failed:
        raise typer.Exit(1)


def format_texts(paths: Iterable[Path], only_check: bool) -> None:
    """Write text programs in canonical form, or say which would change and exit with code 1."""
    from ppl.syntax import format_text

    changed = False
    for path in paths:
        text = path.read_text()
        new = format_text(text, str(path))
        if new == text:
            continue
        changed = True
        if not only_check:
            path.write_text(new)
        typer.echo(f"{path}: {'would change' if only_check else 'formatted'}")
    if changed and only_check:
        raise typer.Exit(1)
