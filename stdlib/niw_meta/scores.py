"""Errors and calibration of predictions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, ArrayLike, Float, Int

from stdlib.niw_meta.tasks import WAYS


class Scores(NamedTuple):
    """Means over tasks.

    Attributes:
        error: mean squared error, or share of wrong labels.
        standard_error: of `error`, over tasks.
        nll: negative log-density or log-probability of an observation, nats.
        calibration: regressions: mean |share of observations inside the central p-interval - p|
            over p = 0.1 .. 0.9; labels: the expected calibration error, in 10 bins of confidence.
    """

    error: float
    standard_error: float
    nll: float
    calibration: float

    @property
    def row(self) -> tuple[str, str, str]:
        error = f"{self.error:.3f} ± {self.standard_error:.3f}"
        return error, f"{self.nll:.3f}", f"{self.calibration:.3f}"


LEVELS = np.arange(1, 10) / 10


def of_regression(
    mean: Float[ArrayLike, "tasks points"],
    variance: Float[ArrayLike, "tasks points"],
    y: Float[ArrayLike, "tasks points"],
    truth: Float[ArrayLike, "tasks points"] | None = None,
) -> Scores:
    """Of Gaussian predictions of `y`; errors are against `truth` (`y` if `None`)."""
    mean, variance, y = map(jnp.asarray, (mean, variance, y))
    errors = np.mean((np.asarray(mean) - np.asarray(y if truth is None else truth)) ** 2, 1)
    z = (y - mean) / jnp.sqrt(variance)
    nll = 0.5 * z**2 + 0.5 * jnp.log(2 * jnp.pi * variance)
    inside = jnp.abs(z)[..., None] < norm.ppf((1 + LEVELS) / 2)
    calibration = jnp.mean(jnp.abs(jnp.mean(inside, (0, 1)) - LEVELS))
    return Scores(*_mean(errors), float(jnp.mean(nll)), float(calibration))


def moments(
    outputs: Float[Array, "tasks draws points"], sd: float
) -> tuple[Float[Array, "tasks points"], Float[Array, "tasks points"]]:
    """Mean and variance of an observation with noise `sd`, from draws of its mean."""
    return jnp.mean(outputs, 1), jnp.var(outputs, 1) + sd**2


def of_labels(
    outputs: Float[Array, "tasks draws outputs"], labels: Int[ArrayLike, "tasks points"]
) -> Scores:
    """Of class probabilities, averaged over draws of the logits."""
    tasks, draws, _ = outputs.shape
    logits = jax.nn.log_softmax(outputs.reshape(tasks, draws, -1, WAYS))
    log_probs = logsumexp(logits, 1) - jnp.log(draws)
    wrong = jnp.argmax(log_probs, -1) != labels
    nll = -jnp.take_along_axis(log_probs, jnp.asarray(labels)[..., None], -1)
    confidence = jnp.exp(jnp.max(log_probs, -1))
    bins = np.clip((np.asarray(confidence) * 10).astype(int), 0, 9).ravel()
    gap = np.asarray(confidence - (1.0 - wrong)).ravel()
    calibration = sum(abs(gap[bins == b].sum()) for b in range(10)) / gap.size
    return Scores(*_mean(np.mean(np.asarray(wrong), 1)), float(jnp.mean(nll)), float(calibration))


def _mean(per_task: np.ndarray) -> tuple[float, float]:
    return float(per_task.mean()), float(per_task.std(ddof=1) / np.sqrt(len(per_task)))
