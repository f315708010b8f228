"""How good a fit is: importance weights, their Pareto tail, gradients' signal, comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree
from rich.table import Table

from ppl.vi.summary import Summary, as_text, summarize

_ALIKE = 1e-3
"""Log-weights that differ by less are equal, to the rounding of single precision."""


@dataclass(frozen=True)
class Importance:
    """Draws of a guide, weighted so that they stand for the posterior.

    The weights are those of importance sampling, p(z, y) / q(z), smoothed in their tail (PSIS).
    `khat` estimates the tail's shape: below 0.7 the weighted moments can be trusted; above, the
    guide misses part of the posterior, and neither they nor the guide's own can.

    Attributes:
        draws: the guide's choices, with the draws along the first axis.
        log_weights: smoothed and normalised, so that their exponentials sum to 1.
        khat: shape of the tail of the raw weights.
        effective: effective number of draws, 1 / sum w^2.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (arXiv 1507.02646); Yao, Vehtari, Simpson and
    Gelman (arXiv 1802.02538) for variational inference.
    """

    draws: PyTree[Array]
    log_weights: Float[np.ndarray, " draws"]
    khat: float
    effective: float

    @property
    def weights(self) -> Float[np.ndarray, " draws"]:
        """They sum to 1."""
        return np.exp(self.log_weights)

    def expectation(self, function: Callable[[Any], Any] | None = None) -> PyTree[np.ndarray]:
        """The posterior mean of a function of the choices (of all choices if `None`).

        Args:
            function: from choices to arrays; called with one draw.
        """
        values = self.draws if function is None else jax.vmap(function)(self.draws)
        weigh = lambda x: np.tensordot(self.weights, np.asarray(x, float), (0, 0))
        return jax.tree.map(weigh, values)

    def mean(self) -> PyTree[np.ndarray]:
        """Posterior means."""
        return self.expectation()

    def sd(self) -> PyTree[np.ndarray]:
        """Posterior standard deviations."""
        means = self.mean()
        spread = lambda x, m: np.sqrt(
            np.tensordot(self.weights, (np.asarray(x, float) - m) ** 2, (0, 0))
        )
        return jax.tree.map(spread, self.draws, means)

    def resample(self, n: int, key: Array) -> PyTree[Array]:
        """Draws of the posterior, all of the same weight, with repetitions."""
        indices = jax.random.choice(key, len(self.log_weights), (n,), p=self.weights)
        return jax.tree.map(lambda x: x[indices], self.draws)

    def summary(self, *, max_entries: int = 20) -> Summary:
        """Weighted moments and quantiles."""
        return summarize(self.draws, max_entries=max_entries, weights=self.weights)

    def __str__(self) -> str:
        verdict = "good" if self.khat < 0.7 else "not reliable"
        return f"k-hat {self.khat:.2f} ({verdict}), {self.effective:.0f} effective draws"


def smooth_weights(log_weights: Float[np.ndarray, " draws"]) -> tuple[np.ndarray, float]:
    """Pareto-smoothed, normalised log-weights and k-hat (infinite if weights are not finite).

    Raises:
        ImportError: arviz-stats is not installed.
    """
    try:
        from arviz_stats.base.array import array_stats
    except ImportError as error:
        raise ImportError(
            "k-hat needs arviz-stats: install the extra with `pip install 'ppl[arviz]'` or "
            "`uv sync --extra arviz`"
        ) from error
    raw = np.asarray(log_weights, float)
    finite = np.isfinite(raw)
    raw = np.where(finite, raw, -np.inf)
    if not finite.any():
        return np.full(len(raw), -math.log(len(raw))), math.inf
    if np.ptp(raw[finite]) < _ALIKE:  # the guide is the posterior: there is no tail to fit
        smoothed, khat = raw, -math.inf
    else:
        smoothed, khat = array_stats.psislw(-raw)  # it takes log-likelihoods, as for leaving out
    smoothed = np.asarray(smoothed, float)
    return smoothed - np.logaddexp.reduce(smoothed), float(khat)


@dataclass(frozen=True)
class Signal:
    """How much of a parameter's gradient is signal, at the fitted values.

    Attributes:
        mean: of the gradient, entry by entry, in unconstrained space.
        sd: of one estimate of it.
    """

    mean: Float[np.ndarray, ...]
    sd: Float[np.ndarray, ...]

    @property
    def ratio(self) -> float:
        """Norm of the mean over that of the standard deviation; near 0 at an optimum."""
        noise = float(np.linalg.norm(self.sd))
        return float(np.linalg.norm(self.mean)) / noise if noise > 0 else math.inf

    def __repr__(self) -> str:
        return f"Signal(ratio={self.ratio:.3g}, shape={np.shape(self.mean)})"


@dataclass(frozen=True)
class FitComparison:
    """Fits side by side, the best bound first.

    Attributes:
        rows: (name, bound, its standard error, difference from the best and its standard error,
            k-hat, steps, seconds); k-hat is NaN where a fit has no model.
    """

    rows: tuple[tuple[str, float, float, float, float, float, int, float], ...]

    def __str__(self) -> str:
        table = Table(title="fits, best first", title_justify="left")
        table.add_column("fit")
        for name in ("bound", "se", "difference", "se", "k-hat", "steps", "seconds"):
            table.add_column(name, justify="right")
        for name, bound, error, behind, noise, khat, steps, seconds in self.rows:
            numbers = (f"{bound:.6g}", f"{error:.2g}", f"{behind:.4g}", f"{noise:.2g}")
            table.add_row(name, *numbers, f"{khat:.2f}", str(steps), f"{seconds:.2f}")
        return as_text(table)

    __repr__ = __str__


def compare_fits(
    fits: Mapping[str, Any], n: int = 1_000, key: Array | None = None
) -> FitComparison:
    """Compare fits of the same data by their bounds (in nats), and by how far they can be trusted.

    Args:
        fits: name -> fit.
        n: draws for each.
        key: random key; the fits' own if `None`.
    """
    found = {name: fit.elbo(n, key) for name, fit in fits.items()}
    order = sorted(found, key=lambda name: -found[name].mean)
    best = found[order[0]]
    rows = []
    for name in order:
        estimate, fit = found[name], fits[name]
        behind = estimate.mean - best.mean
        noise = (
            0.0 if name == order[0] else math.hypot(estimate.standard_error, best.standard_error)
        )
        khat = fit.importance(n, key).khat if fit.objective.model is not None else math.nan
        rows.append((name, *estimate, behind, noise, khat, fit.steps, fit.seconds))
    return FitComparison(tuple(rows))
