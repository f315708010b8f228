"""Plots of fits. Needs the `plots` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_loss(losses: Float[np.ndarray, " steps"], ax: Axes | None = None) -> Axes:
    """Draw the loss of each step and its running mean over 2 % of the steps.

    Args:
        losses: minus the objective, one per step.
        ax: where to draw; the current axes if `None`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    axes: Any = pyplot().gca() if ax is None else ax
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 50)
    axes.plot(steps, losses, lw=0.5, alpha=0.4, color="C0", label="loss")
    if window > 1:
        smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        axes.plot(steps[window - 1 :], smooth, color="C0", label=f"mean of {window} steps")
        # The first steps would squeeze the rest into a line.
        low, high = losses.min(), np.quantile(losses, 0.98)
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel="loss (minus the objective)")
    axes.legend()
    return axes


def pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib: install the extra with `pip install 'ppl[plots]'` "
            "or `uv sync --extra plots`"
        ) from error
    return pyplot
