"""Fractional noise as Markov processes: what drives a path, and how it moves in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from stdlib.fractional_sde import weights as closed_form
from stdlib.fractional_sde.weights import Kind, Rates

Scheme = Literal["exact", "euler"]

RELATIVE_RANK = 1e-12
"""Directions of the noise within a step whose variance is less than this times the step's."""


@dataclass(frozen=True)
class Move:
    """y' = y - loss y + gain dW + between n: one step of the processes, n standard normal.

    dW is the Brownian motion's increment, and n what it does between the ends of the step, which
    is independent of dW. A control changes the law of dW alone.
    """

    loss: Float[np.ndarray, " processes"]
    gain: Float[np.ndarray, " processes"]
    between: Float[np.ndarray, "processes directions"]


@dataclass(frozen=True)
class FractionalNoise:
    """A Markov approximation of fractional Brownian motion by processes that share their noise.

    Attributes:
        kind: "I" (stationary increments) or "II" (nothing happened before time 0).
        rates: of the Ornstein-Uhlenbeck processes, increasing, in 1 over the unit of time.
        horizon: T, the end of the time that the weights are best for. Not a batch's end: the
            weights depend on it.
        normalise: divide by the square root of `variance_rate`, so that Var B_H(t) = t^(2H).

    Raises:
        ValueError: there is no such approximation; see `weights.check`.
    """

    kind: Kind = "II"
    rates: Any = None
    horizon: float = 1.0
    normalise: bool = False

    def __post_init__(self) -> None:
        rates = closed_form.geometric_rates() if self.rates is None else self.rates
        object.__setattr__(self, "rates", closed_form.check(self.kind, rates, self.horizon))

    def weights(self, hurst: Any) -> Float[Array, " processes"]:
        """The optimal weights for a Hurst index in (0, 1), which may be a parameter.

        Raises:
            ValueError: the index is a number outside of (0, 1).
        """
        if isinstance(hurst, float | int) and not 0 < hurst < 1:
            raise ValueError(f"a Hurst index is in (0, 1), not {hurst}")
        best = closed_form.weights_at(hurst, self.kind, self.rates, self.horizon)
        if not self.normalise:
            return best
        return best / jnp.sqrt(closed_form.variance_rate(self.kind, hurst))

    def past(self) -> Float[np.ndarray, "processes processes"] | None:
        """A factor L of the processes' stationary covariance, LL' = [1 / (gamma_i + gamma_j)].

        They start at L n, with n standard normal. For type II they start at 0: `None`.
        """
        if self.kind == "II":
            return None
        return root(1 / (self.rates[:, None] + self.rates))

    def move(self, dt: float, scheme: Scheme = "exact") -> Move:
        """One step of length dt: by Euler's scheme, or exactly, for any dt.

        Raises:
            ValueError: the scheme is unknown, or Euler's and dt times the largest rate is not
                below 1/2, where it becomes unstable.
        """
        if scheme == "exact":
            s = self.rates[:, None] + self.rates
            covariance, with_dw = dt * mean_decay(s * dt), dt * mean_decay(self.rates * dt)
            rest = covariance - np.outer(with_dw, with_dw) / dt
            between = root(rest, RELATIVE_RANK * dt)
            return Move(-np.expm1(-self.rates * dt), with_dw / dt, between)
        if scheme != "euler":
            raise ValueError(f"scheme must be 'exact' or 'euler', not {scheme!r}")
        if not dt * self.rates[-1] < 0.5:
            raise ValueError(
                f"Euler's scheme needs a step below {0.5 / self.rates[-1]:.3g} (half of 1 over the "
                f"largest rate), not {dt:.3g}; take more steps, or scheme='exact'"
            )
        flat = np.ones_like(self.rates)
        return Move(self.rates * dt, flat, np.zeros((len(flat), 0)))


BROWNIAN = FractionalNoise("II", np.zeros(1))
"""Plain Brownian motion, for Hurst index 1/2: one process that does not decay, with weight 1."""


def mean_decay(x: Any) -> Rates:
    """(1 - e^-x)/x, 1 at 0."""
    safe = np.where(x == 0, 1.0, x)
    return np.where(x == 0, 1.0, -np.expm1(-safe) / safe)


def root(covariance: np.ndarray, smallest: float = 0.0) -> np.ndarray:
    """L with LL' = covariance and as few columns as have variances above `smallest`."""
    values, vectors = np.linalg.eigh(covariance)
    keep = values > max(smallest, 0.0)
    return vectors[:, keep] * np.sqrt(values[keep])
