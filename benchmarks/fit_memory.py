"""A fit on data that do not fit into memory: `python -m benchmarks.fit_memory --gigabytes 1`.

The data lie in a file, which a `grain` source reads row by row. Once the program is compiled, the
process may take only `--bound` megabytes more (`RLIMIT_DATA`): reading the file at once fails, the
fit goes through.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

import grain
import jax.numpy as jnp
import numpy as np
import optax

from ppl import gen, normal, plate, vi

COLUMNS = 64
MEGABYTE = 2**20


class Rows:
    """Rows of a file of 32-bit floats: features, then the response."""

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_RDONLY)
        self._bytes = 4 * (COLUMNS + 1)
        self._length = path.stat().st_size // self._bytes

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):
        raw = os.pread(self._file, self._bytes, int(index) * self._bytes)
        row = np.frombuffer(raw, np.float32)
        return {"points": {"y": row[-1]}}, (row[:-1],)

    def __repr__(self) -> str:
        return f"Rows({self._length})"


def write(path: Path, megabytes: float, truth: np.ndarray) -> int:
    """A file of so many megabytes; returns the number of its rows."""
    rng = np.random.default_rng(0)
    rows, part = int(megabytes * MEGABYTE) // (4 * (COLUMNS + 1)), 20_000
    with open(path, "wb") as file:
        for start in range(0, rows, part):
            features = rng.normal(size=(min(part, rows - start), COLUMNS)).astype(np.float32)
            noise = rng.normal(size=len(features))
            ys = (features @ truth + noise).astype(np.float32)
            file.write(np.concatenate([features, ys[:, None]], 1).tobytes())
    return rows


def program(total: int, batch: int) -> vi.Objective:
    """Linear regression, with a batch of zeros in place of the data."""

    @gen
    def point(x, weights):
        normal(x @ weights, 1.0) @ "y"

    @gen
    def model(xs):
        weights = normal(jnp.zeros(COLUMNS), 1.0) @ "weights"
        plate(point, in_axes=(0, None), total=total)(xs, weights) @ "points"

    observed = {"points": {"y": jnp.zeros(batch)}}
    return vi.elbo(model, observed=observed, args=(jnp.zeros((batch, COLUMNS)),))


def limit(bound: float) -> None:
    """Let the process take only so many megabytes of memory more than it has."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    used = int(fields["VmData"].split()[0]) * 1024
    most = used + int(bound * MEGABYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def run(megabytes: float, bound: float, steps: int = 300, batch: int = 256) -> dict[str, float]:
    """Fit data of `megabytes` under a bound of `bound` megabytes.

    Returns:
        the size of the data, the bound, and the largest error of a weight.
    """
    truth = np.random.default_rng(1).normal(size=COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.bin"
        rows = write(path, megabytes, truth)
        source = grain.MapDataset.source(Rows(path))
        estimator = vi.compile(program(rows, batch))
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))
        options: Any = dict(batch_size=batch, optimizer=optimizer, steps=steps, progress=False)
        vi.fit(estimator, source, **options)  # compiles, and starts all threads
        limit(bound)
        try:
            np.fromfile(path, np.float32)
            raise AssertionError("the whole file could be read: the bound does not bind")
        except MemoryError:
            pass
        fit = vi.fit(estimator, source, **options)
    error = np.abs(np.asarray(fit.params["weights.loc"]) - truth).max()
    return {"megabytes": megabytes, "bound": bound, "error": float(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--bound", type=float, default=256.0, help="megabytes")
    options = parser.parse_args()
    found = run(options.gigabytes * 1024, options.bound)
    print(", ".join(f"{name} {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
