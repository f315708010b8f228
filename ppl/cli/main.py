"""The commands. JAX is imported by those that need it, so that `ppl --help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ppl.errors import PplError

app = typer.Typer(
    help="Fit, sample, check and explain probabilistic programs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes three times as long as all the rest
)

Program = Annotated[
    str,
    typer.Argument(
        help="A .ppl file; or module:name or file.py:name of an objective, of a function "
        "from named arrays to one, or of a model (with --config)."
    ),
]
Data = Annotated[Path | None, typer.Option(help="A CSV, NPZ or NetCDF file of named arrays.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A JSON file with options of vi.fit, and for a model: "
        '{"observed": {"address": "column"}, "args": ["column"], "guide": "full_rank"}.'
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the random numbers.")]


@contextmanager
def errors_as_text() -> Iterator[None]:
    """Show errors that users can mend without a traceback, and exit with code 1."""
    try:
        yield
    except (PplError, OSError, ImportError, ValueError, TypeError) as error:
        if not isinstance(error, PplError) and not _is_ours(error):
            raise
        typer.secho(f"{type(error).__name__}: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error


def _is_ours(error: BaseException) -> bool:
    """Whether the error was raised by `ppl` itself or concerns a file, and not by user code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    inside = frame is not None and "/ppl/" in frame.tb_frame.f_code.co_filename
    return inside or isinstance(error, OSError | ImportError)


@app.command()
def fit(
    program: Program,
    data: Data = None,
    config: Config = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    num_samples: Annotated[int | None, typer.Option(help="Samples at each step.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of a minibatch.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Fits side by side.")] = None,
    seed: Seed = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A folder for checkpoints.")] = None,
    float64: Annotated[bool | None, typer.Option(help="Double precision.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("outputs"),
    report: Annotated[str, typer.Option(help="html, png or none.")] = "html",
    quiet: Annotated[bool, typer.Option(help="No progress bar and no summary.")] = False,
) -> None:
    """Fit a program; save the result and a report."""
    with errors_as_text():
        if report not in ("html", "png", "none"):
            raise PplError(f"--report is html, png or none, not {report!r}")
        from ppl import vi
        from ppl.cli import job

        options = job.read_config(config)
        objective = job.load_objective(program, data, options)
        given = {
            "steps": steps,
            "optimizer": learning_rate,
            "num_samples": num_samples,
            "batch_size": batch_size,
            "restarts": restarts,
            "checkpoint": checkpoint,
            "float64": float64,
        }
        result = vi.fit(
            objective,
            key=_key(seed, options),
            progress=not quiet,
            **job.fit_options(options, given),
        )
        facts = _facts(result)
        if not quiet:
            if objective.guide is not None:
                typer.echo(str(result.summary()))
            for name, value in facts.items():
                typer.echo(f"{name}: {value}")
        typer.echo(f"saved: {result.save(out / 'fit.ppl_fit')}")
        if report != "none":
            from ppl.cli.report import write_report

            typer.echo(f"report: {write_report(result, out / f'report.{report}', facts)}")


@app.command()
def sample(
    program: Program,
    fitted: Annotated[
        Path | None, typer.Option("--fit", help="A saved fit; without it, draws of the model.")
    ] = None,
    data: Data = None,
    config: Config = None,
    n: Annotated[int, typer.Option("-n", help="Number of draws.")] = 1_000,
    predictive: Annotated[bool, typer.Option(help="New data in place of the choices.")] = False,
    seed: Seed = None,
    out: Annotated[Path, typer.Option(help="An .npz or .nc file.")] = Path("draws.npz"),
) -> None:
    """Draw from a fit, or from a model, into a file."""
    with errors_as_text():
        from ppl.cli import job
        from ppl.cli.data import write_draws
        from ppl.lang.observed import flat_choices

        options = job.read_config(config)
        key = _key(seed, options)
        if fitted is None:
            draws = job.prior_draws(program, data, options, key, n)
        else:
            from ppl import vi

            result = vi.load(fitted, job.load_objective(program, data, options))
            draws = result.predictive(n, key) if predictive else result.sample(n, key)
        write_draws(out, flat_choices(draws))
        typer.echo(f"{n} draws: {out}")


@app.command()
def check(
    programs: Annotated[list[str], typer.Argument(help="As for fit; or several .ppl files.")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Check that a guide fits its model, and that the gradient is unbiased.

    Text programs are checked without running them: all errors, each with its line.
    """
    from ppl.cli.text import check_texts

    with errors_as_text():
        if all(program.endswith(".ppl") for program in programs):
            return check_texts(map(Path, programs))
        if len(programs) > 1:
            raise PplError("check takes one program, or several .ppl files")
        (program,) = programs
        from ppl import vi
        from ppl.cli import job

        objective = job.load_objective(program, data, job.read_config(config))
        estimator = vi.compile(objective, strict=True)
        names = ", ".join(estimator.params(*objective.data)) or "none"
        estimator.init(_key(None, {}), *objective.data)
        typer.echo(f"{program} is good\nparameters: {names}")


@app.command()
def fmt(
    paths: Annotated[list[Path], typer.Argument(help="Text programs, *.ppl.")],
    check: Annotated[bool, typer.Option("--check", help="Only say which would change.")] = False,
) -> None:
    """Write text programs in canonical form."""
    from ppl.cli.text import format_texts

    with errors_as_text():
        format_texts(paths, check)


@app.command()
def explain(program: Program, data: Data = None, config: Config = None) -> None:
    """Say how a program is compiled: strategies, costs, warnings."""
    with errors_as_text():
        from ppl import vi
        from ppl.cli import job

        objective = job.load_objective(program, data, job.read_config(config))
        typer.echo(str(vi.compile(objective).explain()))


def _key(seed: int | None, config: dict[str, Any]) -> Any:
    import jax

    return jax.random.key(config.get("seed", 0) if seed is None else seed)


def _facts(result: Any) -> dict[str, str]:
    """What a report begins with."""
    facts = {"objective": result.objective.name, "steps": str(result.steps)}
    facts["bound"] = f"{result.elbo()} nats"
    facts["seconds"] = f"{result.seconds:.2f} (compilation {result.compile_seconds:.2f})"
    if result.convergence is not None:
        facts["convergence"] = str(result.convergence)
    if result.objective.model is not None:
        try:
            facts["importance weights"] = str(result.importance())
        except ImportError:
            facts["importance weights"] = "unknown: the arviz extra is not installed"
    return facts


def main() -> None:
    """Run the command line."""
    app(prog_name="ppl")


if __name__ == "__main__":
    sys.exit(main())
