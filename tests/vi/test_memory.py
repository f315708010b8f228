"""A fit on data larger than the memory that it may use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all memory on Linux only")
def test_a_fit_stays_under_a_memory_bound():
    """200 MB of rows in a file; once compiled, the process may take 128 MB more."""
    command = [sys.executable, "-m", "benchmarks.fit_memory", "--gigabytes", "0.2"]
    result = subprocess.run(
        [*command, "--bound", "128"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3_000:]
    found = dict(part.rsplit(" ", 1) for part in result.stdout.strip().split(", "))
    assert float(found["megabytes"]) > float(found["bound"])
    assert float(found["error"]) < 0.1
