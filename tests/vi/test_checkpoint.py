"""Checkpoints: bit-exact resumption, also after a kill; and refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppl import param, vi
from ppl.errors import CheckpointError
from tests.vi.killed_fit import run
from tests.vi.programs import conjugate

ROOT = Path(__file__).parents[2]


def steps_in(folder):
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


@pytest.mark.slow
def test_a_killed_fit_goes_on_bit_by_bit(tmp_path):
    """The process is killed, with no warning, once it has some checkpoints; and one that it might
    have been writing is left behind."""
    whole = run(None)
    folder = tmp_path / "fit"
    command = [sys.executable, "-m", "tests.vi.killed_fit", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not (folder.exists() and len(steps_in(folder)) >= 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    last = steps_in(folder)[-1]
    assert 40 <= last < 400
    partial = folder / f"{last + 20}.orbax-checkpoint-tmp-1"
    partial.mkdir()
    (partial / "half").write_text("written")
    resumed = run(folder)
    assert resumed.steps == 400
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)
    with pytest.raises(CheckpointError, match="are of another fit") as error:
        vi.fit(conjugate, steps=20, checkpoint=folder)
    text = str(error.value)
    assert "parameter 'slope.loc'" in text and "not there now" in text


def test_windows_and_sources_go_on_too(tmp_path):
    rows = [(np.float32(x), np.float32(2 * x + np.sin(9 * x))) for x in np.linspace(-1, 1, 40)]
    source = grain.MapDataset.source(rows)
    objective = lambda xs, ys: -jnp.mean((param("slope", 0.0) * xs - ys) ** 2)
    rule = vi.Convergence(window=10, windows=3, mcse=1e-9)
    options = dict(batch_size=8, convergence=rule, optimizer=optax.adam(0.05), chunk=10)
    whole = vi.fit(objective, source, steps=80, **options)
    vi.fit(
        objective,
        source,
        steps=80,
        checkpoint=vi.Checkpoint(tmp_path, every=30),
        callbacks=lambda report: report.step >= 50,
        **options,
    )
    assert steps_in(tmp_path) == [30]
    resumed = vi.fit(
        objective, source, steps=80, checkpoint=vi.Checkpoint(tmp_path, every=30), **options
    )
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert resumed.convergence == whole.convergence
    np.testing.assert_array_equal(resumed.params["slope"], whole.params["slope"])


def test_snapshots_go_on_too(tmp_path):
    """Also those of a network, with functions among its leaves, beside windows."""

    def objective(xs):
        net = param("net", lambda key: eqx.nn.MLP(1, 1, 3, 1, key=key))
        return -jnp.mean((jax.vmap(net)(xs[:, None])[:, 0] - param("shift", 0.5) - xs) ** 2)

    rule = vi.Convergence(window=10, windows=3, mcse=1e-9)
    options = dict(snapshots=8, convergence=rule, chunk=10)
    stop = {"callbacks": lambda report: report.step >= 50}
    xs = jnp.linspace(-1, 1, 5)
    run = lambda **more: vi.fit(objective, xs, steps=80, **options, **more)
    saved = {"checkpoint": vi.Checkpoint(tmp_path, every=30)}
    whole = run()
    run(**saved, **stop)
    resumed = run(**saved)
    assert [step for step, _ in resumed.history] == [step for step, _ in whole.history]
    assert eqx.tree_equal([p for _, p in resumed.history], [p for _, p in whole.history])
    assert resumed.convergence == whole.convergence


def test_another_program_is_refused(tmp_path):
    def make(scale, size=2):
        return lambda ys: -jnp.sum((param("x", jnp.zeros(size)) - ys[:size]) ** 2) / scale

    ys, options = jnp.ones(3), dict(steps=20, checkpoint=tmp_path)
    first = vi.fit(make(2.0), ys, **options)
    again = vi.fit(make(2.0), ys, **options)  # nothing left to do
    np.testing.assert_array_equal(again.losses, first.losses)
    changes = {
        "the program computed div (float32[], 2.0)": dict(program=make(3.0)),
        "parameter 'x': was float32[2]; float32[3] now": dict(program=make(2.0, 3)),
        "values of the data": dict(data=2 * ys),
        "optimizer: was": dict(optimizer=optax.adam(0.02)),
        "restarts: was 1; 2 now": dict(restarts=2),
    }
    for text, change in changes.items():
        with pytest.raises(CheckpointError) as error:
            vi.fit(**(dict(program=make(2.0), data=ys) | options | change))
        assert text.replace(" (", "(") in str(error.value).replace(" (", "("), error.value
    for wrong, kind in ((3, TypeError), (vi.Checkpoint(tmp_path, every=0), ValueError)):
        with pytest.raises(kind, match=r"checkpoint|every and keep"):
            vi.fit(make(2.0), ys, checkpoint=wrong)
