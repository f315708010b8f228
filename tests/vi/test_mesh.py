"""The same seed gives the same answer without a mesh, on 2 and 8 devices, and on two processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ppl import vi
from tests.vi.programs import conjugate

ROOT = Path(__file__).parents[2]


def start(*args):
    command = [sys.executable, "-m", "tests.vi.sharded_fit", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_devices_and_processes_agree(tmp_path):
    port = free_port()
    processes = [
        start(tmp_path / "one.npz"),
        start(tmp_path / "two.npz", port, 0),
        start(tmp_path / "two.npz", port, 1),
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=400)
            assert process.returncode == 0, output.decode()[-3_000:]
    finally:
        for process in processes:
            process.kill()
    one, two = np.load(tmp_path / "one.npz"), np.load(tmp_path / "two.npz")
    for size in ("None", "16"):
        expected = one[f"none_{size}"]
        assert np.ptp(expected) > 1
        for name in ("2", "8"):
            np.testing.assert_allclose(one[f"{name}_{size}"], expected, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(two[f"processes_{size}"], expected, rtol=2e-4, atol=2e-4)


def test_one_device_is_a_mesh_too():
    mesh = jax.make_mesh((1,), ("data",))
    whole, placed = vi.fit(conjugate, steps=20), vi.fit(conjugate, steps=20, mesh=mesh)
    np.testing.assert_allclose(placed.losses, whole.losses, rtol=1e-5)


def test_wrong_meshes_are_refused():
    with pytest.raises(TypeError, match=r"mesh is a jax\.sharding\.Mesh"):
        vi.fit(conjugate, mesh=4)
    with pytest.raises(ValueError, match=r"the mesh has the axes \['rows'\]"):
        vi.fit(conjugate, mesh=jax.make_mesh((1,), ("rows",)))
