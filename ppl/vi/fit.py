"""`vi.fit`: maximise an objective program over its parameters.

The loop itself, on the device, is in `_loop.py`; here are its start, what happens between its
runs, and its end: done, converged, interrupted, or gone wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

from ppl.compiler.estimator import Estimator
from ppl.compiler.estimator import compile as compile_objective
from ppl.errors import NonFiniteError, PplError
from ppl.vi._batches import (
    Rows,
    Stream,
    check_params_fixed,
    check_totals,
    is_source,
    rows_of,
)
from ppl.vi._identity import Identity, digest, identity
from ppl.vi._inputs import (
    bind_data,
    check_callbacks,
    check_count,
    check_key,
    check_optimizer,
    start_params,
)
from ppl.vi._loop import Inputs, Sizes, is_array, loop_for
from ppl.vi._mesh import check_mesh, place_rows, put_everywhere
from ppl.vi._precision import precision
from ppl.vi._run import Report as Report
from ppl.vi._run import Run
from ppl.vi.checkpoint import Checkpoint, Checkpoints, as_checkpoint, describe_optimizer
from ppl.vi.convergence import Convergence, Windows
from ppl.vi.progress import Pace, progress_bar
from ppl.vi.result import Fit

STREAMED = 16
"""Batches of an out-of-memory source that are on the device at a time."""

_DEFAULT_OPTIMIZER = optax.adam(1e-2)  # one object, so that a second fit finds the compiled loop


def fit(
    program: Any,
    data: Any = None,
    *,
    steps: int = 1_000,
    optimizer: optax.GradientTransformation | None = None,
    key: Key[Array, ""] | None = None,
    num_samples: int | None = None,
    params: dict[str, Any] | None = None,
    batch_size: int | None = None,
    batch_axes: Any = None,
    restarts: int = 1,
    convergence: Convergence | bool = False,
    checkpoint: Any = None,
    mesh: jax.sharding.Mesh | None = None,
    float64: bool = False,
    snapshots: int = 0,
    callbacks: Callable[[Report], Any] | Sequence[Callable[[Report], Any]] = (),
    progress: bool = True,
    chunk: int | None = None,
    strategies: dict[str, Any] | None = None,
    rewrites: str | Sequence[str] = (),
) -> Fit:
    """Maximise an objective over its parameters.

    The steps run on the device, many at a time, without a check in between; the result does
    not depend on how many at a time. Ctrl-C between two such runs returns what there is. A second
    fit with the same estimator (`vi.compile`), optimiser and shapes compiles nothing.

    Args:
        program: an objective program, or what `vi.compile` made of it.
        data: its arguments: a tuple of all, or the only one; its own if `None`. For data that
            does not fit into memory, a `grain` dataset of them: of rows with `batch_size`, of
            batches without.
        steps: number of gradient steps.
        optimizer: from optax (schedules, clipping, chains of them); `optax.adam(1e-2)` if `None`.
            It sees unconstrained values and the gradient of minus the objective.
        key: random key; `jax.random.key(0)` if `None`. On a CPU, `jax.random.key(0,
            impl="philox4x32")` is a generator that is often faster, and as sound.
        num_samples: samples to average at each step; by default as `vi.compile` chooses.
        params: start values by name, in place of the declared ones.
        batch_size: rows of the data in each step, by epochs in random order; all if `None`. The
            program scales its terms to the whole data: `plate(..., total=N)`.
        batch_axes: which arrays of the data have rows: 0 or `None` for each, as `in_axes` of
            `jax.vmap`; all of them if `None`.
        restarts: fits from different start values and with different draws, side by side; the one
            with the lowest losses at the end is kept.
        convergence: stop early by this criterion, and average the iterates; `True` for
            `Convergence()`. See `ppl.vi.convergence`.
        checkpoint: a folder for checkpoints, or a `vi.Checkpoint`. A fit that finds some there
            goes on from the last one, and ends as if it had never stopped. Needs the
            `checkpoint` extra.
        mesh: devices over which rows (its axis `"data"`) and samples (`"samples"`) are spread.
        float64: compute in double precision.
        snapshots: how often to note the parameters on the way, for `Fit.history` and
            `Fit.plot_params`.
        callbacks: functions of a `Report`, or one, called between runs; a true result stops the
            fit.
        progress: show a progress bar if on a terminal.
        chunk: steps per run; by default by time, or a twentieth of `steps` if there are
            callbacks.
        strategies: gradient strategies by address, as for `vi.compile`.
        rewrites: of log-densities, by name (`"closed_form"`, `"stl"`, `"dreg"`), as for
            `vi.compile`.

    Returns:
        the fitted parameters and the losses, in a `Fit`.

    Raises:
        NonFiniteError: a loss or parameter became NaN or infinite. It names the step and the
            address; its `fit` is the result up to there, with the last good parameters.
        DataError: an array of the data has NaN, its source ends, or a program that is fitted by
            minibatches does not scale its terms.
        CheckpointError: the checkpoints are of another program, data or optimiser.
        StrategyError: there is no such strategy or rewrite, or it cannot be had.
        AddressError, ShapeError, SupportError: `params` does not fit the declared parameters.
        TypeError, ValueError: an argument is of the wrong kind.
    """
    steps = check_count("steps", steps)
    rule = Convergence() if convergence is True else convergence or None
    if rule is not None and not isinstance(rule, Convergence):
        raise TypeError(f"vi.fit: convergence is a vi.Convergence or a bool, not {convergence!r}")
    optimizer = check_optimizer(_DEFAULT_OPTIMIZER if optimizer is None else optimizer)
    callbacks = check_callbacks(callbacks)
    restarts = check_count("restarts", restarts)
    mesh = None if mesh is None else check_mesh(mesh)
    saving = as_checkpoint(checkpoint)
    watched = bool(callbacks) or saving is not None
    chunk = _chunk(chunk, steps, rule, snapshots, watched, saving)
    with precision(float64), nullcontext() if mesh is None else jax.set_mesh(mesh):
        init_key, step_key, result_key = jax.random.split(check_key(key), 3)
        estimator = _compiled(program, strategies, num_samples, rewrites)
        feed = _feed(estimator, data, batch_size, batch_axes, step_key, float64)
        keys = lambda key: [key] if restarts == 1 else list(jax.random.split(key, restarts))
        starts = _starts(estimator, feed.batch, keys(init_key), params)
        began = time.perf_counter()
        run = _new_run(estimator, optimizer, feed, keys(step_key), starts, steps, chunk, rule, mesh)
        run.keeps_history = snapshots > 0
        checkpoints = None
        if saving is not None:
            kind = _identity(estimator, optimizer, feed, starts, step_key)
            checkpoints = Checkpoints(saving, saving.every or max(1, steps // 20), kind)
            checkpoints.resume(run)
        run.compile()
        compiled = time.perf_counter()
        _make_steps(run, chunk, callbacks, checkpoints, progress)
        now = time.perf_counter()
        result = Fit(
            params=jax.tree.map(_local, run.params(averaged=not run.failed)),
            losses=run.losses if restarts == 1 else run.losses[:, run.best],
            estimator=estimator,
            objective=estimator.objective,
            data=feed.whole,
            key=result_key,
            interrupted=run.interrupted,
            seconds=now - compiled,
            compile_seconds=compiled - began,
            convergence=None if run.windows is None else run.windows.diagnosis,
            history=tuple(run.history),
            restarts=None if restarts == 1 else run.final_losses(),
            float64=float64,
        )
        if run.failed:
            raise _failure(result, run) if restarts == 1 else _all_failed(result, restarts)
        return result


def _new_run(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    feed: _Feed,
    keys: list[Any],
    starts: list[dict[str, Any]],
    steps: int,
    chunk: int | None,
    rule: Convergence | None,
    mesh: jax.sharding.Mesh | None,
) -> Run:
    """The run of a fit before its first step."""
    is_stream = feed.stream is not None
    if is_stream:
        chunk = min(chunk or STREAMED, STREAMED)
    arrays, static = eqx.partition((starts[0], feed.batch), is_array)
    loop = loop_for(
        estimator,
        optimizer,
        static,
        Sizes.of(steps, chunk),
        rows=feed.rows,
        stream=is_stream,
        restarts=None if len(starts) == 1 else len(starts),
        track=rule is not None,
        mesh=mesh,
    )
    inputs = _inputs(feed, keys, arrays[0], mesh)
    windows = None if rule is None else Windows(rule)
    return Run(
        loop, inputs, starts, feed.batch, steps, stream=feed.stream, mesh=mesh, windows=windows
    )


def _make_steps(
    run: Run,
    chunk: int | None,
    callbacks: tuple[Callable, ...],
    checkpoints: Checkpoints | None,
    progress: bool,
) -> None:
    """Make the steps of a run, until its end or Ctrl-C."""
    sizes = run.loop.sizes
    try:
        with progress_bar(run.steps, progress) as bar:
            pace = Pace(run.steps, chunk, block=sizes.block, capacity=sizes.capacity)
            run.go(pace, bar, callbacks, checkpoints and checkpoints.save)
    except KeyboardInterrupt:
        run.interrupted = True
    finally:
        if checkpoints is not None:
            checkpoints.close()


def _local(x: Any) -> Any:
    """An array on this process's own device, if it is on a mesh."""
    spread = isinstance(x, jax.Array) and len(x.sharding.device_set) > 1
    return jnp.asarray(np.asarray(x)) if spread else x


def _chunk(
    chunk: int | None,
    steps: int,
    rule: Convergence | None,
    snapshots: int,
    watched: bool,
    saving: Checkpoint | None,
) -> int | None:
    """Steps per run, if something depends on it."""
    if chunk is not None:
        return check_count("chunk", chunk)
    if rule is not None:
        return min(rule.steps(steps), steps)
    if snapshots:
        return max(1, steps // check_count("snapshots", snapshots))
    if saving is not None and saving.every is not None:
        return min(saving.every, steps)
    return max(1, steps // 20) if watched else None


@dataclass(frozen=True)
class _Feed:
    """Where the steps' data comes from.

    Attributes:
        whole: all data; of a stream, its first batch.
        batch: data with the shapes that a step sees.
        rows: how the data splits into batches.
        stream: where batches are read from.
    """

    whole: tuple[Any, ...]
    batch: tuple[Any, ...]
    rows: Rows | None = None
    stream: Stream | None = None


def _feed(
    estimator: Estimator, data: Any, size: int | None, axes: Any, key: Any, float64: bool
) -> _Feed:
    objective = estimator.objective
    size = None if size is None else check_count("batch_size", size)
    if is_source(data):
        stream = Stream(data, size, key)
        batch = stream.peek()
        batch = bind_data(objective, batch)
        check_totals(objective, batch, stream.total)
        return _Feed(batch, batch, stream=stream)
    data = bind_data(objective, data)
    if float64:
        double = lambda x: jnp.asarray(x, float) if eqx.is_inexact_array(x) else x
        data = jax.tree.map(double, data)
    if size is None:
        if axes is not None:
            raise ValueError("vi.fit: batch_axes says which arrays have rows; give batch_size too")
        return _Feed(data, data)
    rows = rows_of(data, size, axes)
    batch = rows.take(data, np.arange(size))
    check_totals(objective, batch, rows.total)
    check_params_fixed(estimator.params(*data), estimator.params(*batch))
    return _Feed(data, batch, rows)


def _compiled(
    program: Any, strategies: Any, num_samples: int | None, rewrites: str | Sequence[str]
) -> Estimator:
    """The estimator of a program."""
    if isinstance(program, Estimator):
        if strategies is not None or num_samples is not None or rewrites:
            raise TypeError("vi.fit: pass strategies, num_samples and rewrites to vi.compile")
        return program
    if not callable(program):
        raise TypeError(
            f"vi.fit: expected an objective program or an estimator, not {type(program).__name__};"
            " for a model and its guide pass vi.elbo(model, guide, ...)"
        )
    if num_samples is not None:
        num_samples = check_count("num_samples", num_samples)
    return compile_objective(
        program, strategies=strategies, num_samples=num_samples, rewrites=rewrites
    )


def _identity(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    feed: _Feed,
    starts: list[dict[str, Any]],
    key: Key[Array, ""],
) -> Identity:
    """What a checkpoint must agree with."""
    unconstrained = estimator.unconstrain(starts[0], *feed.batch)
    return identity(
        estimator,
        feed.batch,
        starts[0],
        optimizer=describe_optimizer(optimizer, unconstrained),
        key=digest(jax.random.key_data(key)),
        generator=str(jax.random.key_impl(key)),
        restarts=len(starts),
        rows=None if feed.rows is None else (feed.rows.size, feed.rows.total),
        **({} if feed.stream is not None else {"values of the data": digest(feed.whole)}),
    )


def _starts(
    estimator: Estimator, data: tuple[Any, ...], keys: list[Any], given: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Start values of each restart: the user's, else the guide's own, else the declared."""
    supports = {name: decl.info.support for name, decl in estimator.params(*data).items()}
    own = getattr(estimator.objective.guide, "start", None)
    starts = []
    for key in keys:
        start = estimator.init(key, *data)
        if own is not None:
            start = start_params(start, own(key), supports)
        starts.append(start_params(start, given, supports))
    if not starts[0]:
        raise PplError(
            "vi.fit: the program has no parameters to fit",
            fix='declare some, param("loc", 0.0), in the guide or the objective',
        )
    return starts


def _inputs(feed: _Feed, keys: list[Any], params: PyTree, mesh: jax.sharding.Mesh | None) -> Inputs:
    """The steps' inputs, on the device or spread over the mesh."""
    key = keys[0] if len(keys) == 1 else jnp.stack(keys)
    params = jax.tree.map(jnp.asarray, params)
    data = None if feed.stream is not None else eqx.filter(feed.whole, is_array)
    if mesh is None:
        return Inputs(key, params, jax.tree.map(jnp.asarray, data))
    if feed.rows is not None:
        data = place_rows(data, feed.rows.batched, mesh)
    elif data is not None:
        data = place_rows(data, (True,) * len(jax.tree.leaves(data)), mesh)
    key, params = put_everywhere((key, params), mesh)
    return Inputs(key, params, data)


def _failure(result: Fit, run: Run) -> NonFiniteError:
    """Say what of the step after the last good one is not finite, and where."""
    step = result.steps
    value, gradient, key, data = run.failure()
    address = result.estimator.check_finite(key, result.params, *data)
    if not np.isfinite(value):
        what, because = f"the loss is {float(value)}", None
    elif names := _not_finite(gradient):
        what = f"the gradient is not finite, though the loss is ({float(value):.6g})"
        because = f"the gradient with respect to {', '.join(names)} is NaN or infinite"
    else:
        what, because = "the optimiser's update is not finite, though the gradient is", None
    start = "start values (params=...), " if step == 0 else ""
    error = NonFiniteError(
        f"vi.fit: at step {step}, {what}",
        address=address,
        because=because,
        fix=f"try other {start}a smaller learning rate, or clipped gradients, optax.chain("
        "optax.clip_by_global_norm(1.0), optax.adam(1e-3)); this error's .fit has the last good "
        "parameters and all losses",
    )
    error.step, error.fit = step, result
    return error


def _all_failed(result: Fit, restarts: int) -> NonFiniteError:
    error = NonFiniteError(
        f"vi.fit: after step {result.steps}, none of the {restarts} restarts is finite any more",
        fix="a fit without restarts says which step and choice; this error's .fit has the last "
        "good parameters",
    )
    error.step, error.fit = result.steps, result
    return error


def _not_finite(gradient: PyTree) -> list[str]:
    """Names of the leaves that are not finite."""
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    bad = [path for path, leaf in leaves if not np.isfinite(np.asarray(leaf)).all()]
    return [jax.tree_util.keystr(path) for path in bad]
