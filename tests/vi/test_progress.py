"""The progress bar, and the sizes of runs."""

from __future__ import annotations

import pytest
from rich import console

from ppl.vi import progress
from ppl.vi.progress import Pace, progress_bar


def test_no_bar_without_a_terminal(capsys):
    with progress_bar(10, True) as update:
        update(10, 1.0)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(console.Console, "is_terminal", True)
    with progress_bar(10, False) as update:
        update(10, 1.0)
    assert capsys.readouterr().err == ""
    with progress_bar(10, True) as update:
        update(1, 7.0)  # too soon after the start to be drawn
        update(10, 1.25)
    shown = capsys.readouterr().err
    assert "10/10" in shown and "loss 1.25" in shown and "steps/s" in shown
    assert "loss 7" not in shown


@pytest.mark.parametrize("steps, block, capacity", [(1_000, 10, 1_000), (997, 1, 997), (4, 4, 4)])
def test_runs_grow_to_a_quarter_of_a_second(steps, block, capacity, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    pace, done, sizes = Pace(steps, None, block=block, capacity=capacity), 0, []
    while done < steps:
        count = pace.next(done)
        now += 1e-3 * count
        pace.made(count)
        done += count
        sizes.append(count)
    assert done == steps and sizes[0] == block
    assert max(sizes) <= 250
    assert all(size % block == 0 for size in sizes[:-1])


def test_a_fixed_size():
    pace = Pace(25, 10, block=5, capacity=10)
    sizes = []
    while sum(sizes) < 25:
        sizes.append(pace.next(sum(sizes)))
        pace.made(sizes[-1])
    assert sizes == [10, 10, 5]
