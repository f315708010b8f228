"""When a fit has converged, judged from its iterates.

With a fixed step size the parameters do not come to rest: once they have found the optimum, they
move about it, and their average is a better estimate than the last of them. A run is cut into
windows; a fit has converged when, over its last few windows,

1. the iterates are stationary: R-hat, with the windows as chains, is near 1 for each parameter;
2. their average is known well: its Monte Carlo standard error, from the windows' means, is small
   beside the parameter (or beside 1, where the parameter is smaller), in unconstrained space;
3. the loss has settled: its change from the first to the last window is a small part of it, or
   within three standard errors.

Then the fit's parameters are the average of the iterates over these windows.

Source: Dhaka, Catalina, Andersen, Magnusson, Huggins and Vehtari (arXiv 2009.00666), section 4;
Welandawe, Andersen, Vehtari and Huggins (arXiv 2203.15945).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree


@dataclass(frozen=True)
class Convergence:
    """The criterion by which `vi.fit` stops early and averages its iterates.

    Attributes:
        window: steps of a window; a fortieth of the steps, and at least 50, if `None`.
        windows: how many of the last windows are looked at, at least 3.
        rhat: stationary if R-hat is at most this.
        mcse: known well if the standard error, relative to `max(1, |value|)`, is at most this.
        change: settled if the loss's change, relative to `max(1, |loss|)`, is at most this.
    """

    window: int | None = None
    windows: int = 5
    rhat: float = 1.1
    mcse: float = 0.02
    change: float = 0.01

    def __post_init__(self) -> None:
        if self.windows < 3:
            raise ValueError(f"Convergence: windows must be at least 3, not {self.windows}")
        if self.window is not None and self.window < 2:
            raise ValueError(f"Convergence: window must be at least 2, not {self.window}")
        if not (self.rhat > 1 and self.mcse > 0 and self.change >= 0):
            raise ValueError("Convergence: rhat must be over 1, mcse over 0, change not negative")

    def steps(self, total: int) -> int:
        """Steps of a window of a fit of `total` steps."""
        return self.window or max(50, total // 40)


@dataclass(frozen=True)
class Diagnosis:
    """The criterion's numbers at the end of a fit.

    Attributes:
        converged: whether all three held.
        rhat: the largest of all parameters.
        mcse: the largest, relative to `max(1, |value|)`.
        change: of the loss, relative to `max(1, |loss|)`.
        steps: over how many of the last steps the parameters were averaged; 0 if the iterates were
            not stationary, and the parameters are the last ones.
    """

    converged: bool
    rhat: float
    mcse: float
    change: float
    steps: int

    def __str__(self) -> str:
        verdict = "converged" if self.converged else "not converged"
        averaged = f", averaged over the last {self.steps} steps" if self.steps else ""
        return (
            f"{verdict} (R-hat {self.rhat:.3f}, relative MCSE {self.mcse:.2g}, "
            f"relative change of the loss {self.change:.2g}){averaged}"
        )


def diagnose(
    means: Float[np.ndarray, "windows params"],
    variances: Float[np.ndarray, "windows params"],
    losses: Float[np.ndarray, " windows"],
    loss_errors: Float[np.ndarray, " windows"],
    window: int,
    rule: Convergence,
) -> Diagnosis:
    """Apply a criterion.

    Args:
        means, variances: of each parameter's iterates, in each window.
        losses: mean of each window, with standard errors `loss_errors`.
        window: steps of a window.
    """
    within, between = variances.mean(0), means.var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(between > 0, between / within, 0.0)
    rhat = float(np.sqrt((window - 1) / window + np.nanmax(ratio)))
    error = np.sqrt(between / len(means)) / np.maximum(1, np.abs(means.mean(0)))
    mcse = float(np.nanmax(error))
    moved = abs(losses[-1] - losses[0])
    change = float(moved / max(1.0, abs(losses[-1])))
    noise = 3 * np.hypot(loss_errors[0], loss_errors[-1])
    settled = change <= rule.change or moved <= noise
    stationary = rhat <= rule.rhat
    converged = bool(stationary and mcse <= rule.mcse and settled)
    return Diagnosis(converged, rhat, mcse, change, window * len(means) if stationary else 0)


class Windows:
    """The last windows of a run.

    Attributes:
        diagnosis: of the last windows, `None` while there are too few.
    """

    def __init__(self, rule: Convergence):
        self.diagnosis: Diagnosis | None = None
        self._rule = rule
        self._kept: list[tuple[np.ndarray, np.ndarray, float, float]] = []
        self._structure: PyTree = None

    def add(self, start: PyTree, moments: Any, losses: np.ndarray) -> None:
        """Note a window: its start, its moments about the start, its losses."""
        n = len(losses)
        mean_moved = _flat(moments.sum) / n
        variance = np.maximum(_flat(moments.squares) / n - mean_moved**2, 0) * n / max(n - 1, 1)
        loss = losses.reshape(n, -1).astype(float)
        error = float(np.nanmax(loss.std(0, ddof=min(1, n - 1)))) / n**0.5
        self._structure = start
        self._kept.append((_flat(start) + mean_moved, variance, float(np.nanmean(loss)), error))
        self._kept = self._kept[-self._rule.windows :]
        if len(self._kept) == self._rule.windows:
            means, variances, mean_losses, errors = map(np.array, zip(*self._kept, strict=True))
            self.diagnosis = diagnose(means, variances, mean_losses, errors, n, self._rule)

    @property
    def converged(self) -> bool:
        """Whether the criterion holds."""
        return self.diagnosis is not None and self.diagnosis.converged

    def average(self) -> PyTree | None:
        """The mean of the iterates of the last windows, if they are stationary."""
        if self.diagnosis is None or not self.diagnosis.steps:
            return None
        mean = np.mean([means for means, *_ in self._kept], 0)
        leaves, tree = jax.tree.flatten(self._structure)
        ends = np.cumsum([x.size for x in leaves])[:-1]
        parts = zip(np.split(mean, ends), leaves, strict=True)
        return jax.tree.unflatten(
            tree, [part.reshape(x.shape).astype(x.dtype) for part, x in parts]
        )

    @property
    def kept(self) -> Any:
        """For a checkpoint."""
        return self._kept

    def restore(self, kept: Any, structure: PyTree) -> None:
        """Continue from `kept`."""
        self._kept, self._structure = [*kept], structure


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x, float)) for x in jax.tree.leaves(tree)])
