"""Plots of fits, in one style. Needs the `plots` extra.

Each function draws into a new figure, apart from pyplot, and returns it: notebooks show it, and
`figure.savefig(path)` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ppl.errors import PplError
from ppl.lang.observed import Choices, PartlyObserved, flat_choices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "legend.frameon": False,
    "figure.dpi": 120,
}
_BLUE, _ORANGE = "C0", "C1"


def pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib: install the extra with `pip install 'ppl[plots]'` "
            "or `uv sync --extra plots`"
        ) from error
    return pyplot


def _styled[**P, T](draw: Callable[P, T]) -> Callable[P, T]:
    """The function with matplotlib in our style, and in the user's again after it."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with pyplot().rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
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
    axes.plot(steps, losses, lw=0.5, alpha=0.4, color=_BLUE, label="loss")
    if window > 1:
        smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        axes.plot(steps[window - 1 :], smooth, color=_BLUE, label=f"mean of {window} steps")
        # The first steps would squeeze the rest into a line.
        low, high = losses.min(), np.quantile(losses, 0.98)
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel="loss (minus the objective)")
    axes.legend()
    return axes


@_styled
def plot_marginals(draws: PyTree[Array], *, max_panels: int) -> Figure:
    """Draw a histogram of each number of some choices, with mean and 90 % interval.

    Args:
        draws: with the draws along the first axis.
        max_panels: how many numbers to show, at most.
    """
    shown = _columns(draws, max_panels)
    figure, panels = _panels(len(shown))
    for axes, (name, values) in zip(panels, shown, strict=False):
        axes.hist(values, bins=40, density=True, color=_BLUE, alpha=0.5)
        low, high = np.quantile(values, [0.05, 0.95])
        axes.plot([low, high], [0, 0], color=_ORANGE, lw=4, solid_capstyle="butt")
        axes.axvline(values.mean(), color=_ORANGE, lw=1)
        axes.set(title=name, yticks=[])
    return figure


@_styled
def plot_pairs(draws: PyTree[Array], *, max_panels: int) -> Figure:
    """Draw each number of some choices against each other one."""
    shown = _columns(draws, max_panels)
    n = len(shown)
    figure = _figure((1.8 * n + 0.6, 1.8 * n + 0.4))
    grid = figure.subplots(n, n, squeeze=False)
    for i, (name, ys) in enumerate(shown):
        for j, (other, xs) in enumerate(shown):
            axes = grid[i][j]
            if j > i:
                axes.set_axis_off()
            elif i == j:
                axes.hist(xs, bins=30, color=_BLUE, alpha=0.5)
                axes.set_yticks([])
            else:
                axes.plot(xs, ys, ".", ms=1.5, alpha=0.4, color=_BLUE)
            if i == n - 1:
                axes.set_xlabel(other)
            if j == 0:
                axes.set_ylabel(name)
    return figure


@_styled
def plot_params(history: Sequence[tuple[int, dict[str, Any]]], *, max_lines: int) -> Figure:
    """Draw the parameters against the steps.

    Args:
        history: (steps made, parameters) of each snapshot.
        max_lines: of one parameter, at most.

    Raises:
        PplError: there are no snapshots.
    """
    if not history:
        raise PplError(
            "plot_params: this fit has no snapshots of its parameters",
            fix="vi.fit(..., snapshots=100)",
        )
    steps = [step for step, _ in history]
    first = history[0][1]
    figure, panels = _panels(len(first))
    for axes, name in zip(panels, first, strict=False):
        lines = np.array([_flat(params[name])[:max_lines] for _, params in history])
        axes.plot(steps, lines, lw=0.8)
        axes.set(title=name, xlabel="step")
    return figure


@_styled
def plot_predictive(predicted: PyTree[Array], observed: Choices) -> Figure:
    """Draw the observed data over the predicted distribution of each of them."""
    data = flat_choices(observed)
    draws = flat_choices(predicted)
    figure, panels = _panels(len(draws), wide=True)
    for axes, address in zip(panels, draws, strict=False):
        value = data[address]
        values = value.fill(np.nan * value.values) if isinstance(value, PartlyObserved) else value
        ys = np.ravel(np.asarray(values, float))
        each = np.asarray(draws[address], float).reshape(len(draws[address]), -1)
        low, middle, high = np.quantile(each, [0.05, 0.5, 0.95], axis=0)
        order = np.argsort(middle, kind="stable")
        place = np.arange(len(ys))
        axes.fill_between(place, low[order], high[order], alpha=0.3, color=_BLUE, label="90 %")
        axes.plot(place, middle[order], color=_BLUE, lw=1, label="median")
        axes.plot(place, ys[order], ".", ms=3, color=_ORANGE, label="data")
        axes.set(title=address, xlabel="data, by predicted median")
        axes.legend()
    return figure


def _columns(draws: PyTree[Array], limit: int) -> list[tuple[str, Float[np.ndarray, " draws"]]]:
    """(name, draws) of each number of some choices, the first ones."""

    def every() -> Iterator[tuple[str, np.ndarray]]:
        for address, value in flat_choices(draws).items():
            array = np.asarray(value, float)
            for index in np.ndindex(array.shape[1:]):
                entry = f"[{', '.join(map(str, index))}]" if index else ""
                yield address + entry, array[(slice(None), *index)]

    return [pair for pair, _ in zip(every(), range(limit), strict=False)]


def _flat(tree: PyTree) -> np.ndarray:
    leaves = [np.ravel(x) for x in jax.tree.leaves(tree) if isinstance(x, jax.Array | np.ndarray)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def _panels(count: int, *, wide: bool = False) -> tuple[Figure, list[Any]]:
    """A figure with so many panels, side by side in rows."""
    columns = min(count, 2 if wide else 4)
    rows = -(-count // columns)
    figure = _figure(((5.0 if wide else 2.6) * columns, 2.2 * rows + 0.3))
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels


def _figure(size: tuple[float, float]) -> Figure:
    pyplot()
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
