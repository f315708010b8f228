"""Plots."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ppl.vi.plots import plot_loss


@pytest.mark.parametrize("steps", [1, 40, 1_000])
def test_the_losses_are_drawn(steps):
    figure = pytest.importorskip("matplotlib.figure")
    ax = figure.Figure().add_subplot()
    losses = np.linspace(3.0, 1.0, steps)
    assert plot_loss(losses, ax) is ax
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), losses)
    assert len(ax.lines) == (2 if steps == 1_000 else 1)
    assert ax.get_xlabel() == "step"


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"ppl\[plots\]"):
        plot_loss(np.zeros(3))
