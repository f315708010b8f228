"""The commands. JAX is imported only by those that run something."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ppl.errors import PplError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)

Paths = Annotated[list[Path], typer.Argument(help="Text programs, *.ppl")]
TargetText = Annotated[str, typer.Argument(help="A text program, FILE.ppl")]
ObjectiveName = Annotated[str | None, typer.Option("--objective", help="Which one; else the last")]


@contextmanager
def _errors() -> Iterator[None]:
    """Our errors and those of files end the command with a message, not with a traceback."""
    try:
        yield
    except (PplError, OSError) as e:
        typer.echo(str(e), err=True)
        raise typer.Exit(1) from None


@app.command()
def check(paths: Paths) -> None:
    """Report all errors of text programs."""
    from ppl.syntax import check_path

    failed = False
    for path in paths:
        with _errors():
            checked = check_path(path)
        for error in checked.errors:
            typer.echo(checked.source.show(error))
        failed = failed or bool(checked.errors)
    if failed:
        raise typer.Exit(1)


@app.command()
def fmt(
    paths: Paths,
    check: Annotated[bool, typer.Option("--check", help="Only say which would change")] = False,
) -> None:
    """Write text programs in canonical form."""
    from ppl.syntax import format_text

    changed = []
    for path in paths:
        with _errors():
            text = path.read_text()
            new = format_text(text, str(path))
            if new != text:
                changed.append(path)
                if not check:
                    path.write_text(new)
    for path in changed:
        typer.echo(f"{path}: {'would change' if check else 'formatted'}")
    if check and changed:
        raise typer.Exit(1)


@app.command()
def explain(target: TargetText, objective: ObjectiveName = None) -> None:
    """Show each choice of an objective, its gradient strategy and why, and each cost."""
    with _errors():
        from ppl import vi
        from ppl.cli.target import load_target

        chosen = load_target(target).objective(objective)
        typer.echo(str(vi.compile(chosen).explain(*chosen.data)))


@app.command()
def fit(
    target: TargetText,
    objective: ObjectiveName = None,
    steps: Annotated[int, typer.Option(help="Gradient steps")] = 2_000,
    seed: Annotated[int, typer.Option(help="Of the random key")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of Adam")] = 0.02,
    samples: Annotated[int, typer.Option(help="Gradient samples a step")] = 2,
) -> None:
    """Maximise an objective on the data of the file; print its value and the parameters."""
    with _errors():
        import jax
        import optax

        from ppl import vi
        from ppl.cli.report import show_fit
        from ppl.cli.target import load_target

        chosen = load_target(target).objective(objective)
        result = vi.fit(
            chosen,
            steps=steps,
            optimizer=optax.adam(learning_rate),
            key=jax.random.key(seed),
            num_samples=samples,
            progress=sys.stderr.isatty(),
        )
        typer.echo(show_fit(result))


@app.command()
def sample(
    target: TargetText,
    program: Annotated[str | None, typer.Option(help="Which one; else the first")] = None,
    count: Annotated[int, typer.Option("-n", help="Number of runs")] = 1,
    seed: Annotated[int, typer.Option(help="Of the random key")] = 0,
) -> None:
    """Run a program and print its choices, as JSON, one run on each line."""
    with _errors():
        from ppl.cli.report import show_runs
        from ppl.cli.target import load_target

        name, chosen, args = load_target(target).program(program)
        for line in show_runs(chosen, args, count, seed):
            typer.echo(line)


if __name__ == "__main__":
    app()
