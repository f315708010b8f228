"""Two inference tasks with known answers: a bridge, and the Hurst index of observed paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl import Program, density, gen, importance, interval, marginal, normal, param, vi
from stdlib.fractional_sde import exact
from stdlib.fractional_sde.controls import (
    affine_control,
    affine_guidance,
    network_control,
    num_features,
)
from stdlib.fractional_sde.noise import FractionalNoise
from stdlib.fractional_sde.programs import SDE, path, weighed_path
from stdlib.fractional_sde.weights import Kind

HURST = interval(0.02, 0.98)
"""Where a learned Hurst index may be; at the ends the approximation is bad."""


# ------------------------------------------------------------------------------------ the bridge


@dataclass(frozen=True)
class Bridge:
    """Noise that starts at 0 and is seen once, at its end, as `o ~ normal(B(T), scale)`."""

    kind: Kind
    steps: int = 100
    duration: float = 2.0
    scale: float = 0.5

    @property
    def noise(self) -> FractionalNoise:
        return FractionalNoise(self.kind, horizon=self.duration)

    def sde(self, hurst: Any) -> SDE:
        return SDE(self.noise, hurst, self.steps, self.duration)

    @property
    def model(self) -> Program:
        @gen
        def model(hurst):
            result: Any = path(self.sde(hurst))(jnp.zeros(1)) @ "path"
            xs = result[0]
            normal(xs[-1, 0], self.scale) @ "o"
            return xs[:, 0]

        return model

    @property
    def guide(self) -> Program:
        """A network as control, and for type I a normal past; of what is seen (one number, so it
        need not look) and the Hurst index."""

        @gen
        def guide(seen, hurst):
            shape = (1, len(self.noise.rates))
            past = param("past", jnp.zeros(shape)), jnp.exp(param("spread", jnp.zeros(shape)))
            path(self.sde(hurst), network_control("control"), past)(jnp.zeros(1)) @ "path"

        return guide

    def bound(self, observed: float, hurst: float) -> vi.Objective:
        data, hurst_ = {"o": jnp.asarray(observed)}, jnp.asarray(hurst)
        return vi.elbo(
            self.model, self.guide, observed=data, args=(hurst_,), guide_args=(data, hurst_)
        )

    def evidence(self, particles: int) -> Any:
        """The law of what is seen, by importance sampling of whole paths with the guide: its
        density's estimate is unbiased, whatever the control."""
        return marginal(self.model, keep="o", by=importance(self.guide, particles))

    def log_evidence(self, observed: float, hurst: float) -> float:
        """In the approximation, exactly; in nats."""
        end = np.array([self.duration])
        covariance = exact.markov_covariance(self.noise, self.noise.weights(hurst), end)
        return float(exact.log_evidence([observed], covariance, self.scale)[0])

    def middle(self, hurst: float) -> float:
        """Standard deviation a posteriori of the path at half of the time, exactly."""
        times = np.array([0.5, 1.0]) * self.duration
        c = exact.markov_covariance(self.noise, self.noise.weights(hurst), times)
        return float(np.sqrt(c[0, 0] - c[0, 1] ** 2 / (c[1, 1] + self.scale**2)))


# ---------------------------------------------------------------------------- the Hurst index


@dataclass(frozen=True)
class Sequences:
    """Noise of an unknown Hurst index, seen at equal times, `o_i ~ normal(B(t_i), scale)`."""

    kind: Kind = "II"
    steps: int = 200
    duration: float = 2.0
    count: int = 20
    scale: float = 0.3

    @property
    def noise(self) -> FractionalNoise:
        return FractionalNoise(self.kind, horizon=self.duration)

    @property
    def times(self) -> Float[np.ndarray, " times"]:
        return self.duration * np.arange(1, self.count + 1) / self.count

    @property
    def seen(self) -> np.ndarray:
        """The steps that end at the observations' times."""
        return np.arange(1, self.count + 1) * (self.steps // self.count) - 1

    def data(self, hurst: float, paths: int) -> Float[np.ndarray, "paths times"]:
        """Observed paths of exact fractional Brownian motion (not of its approximation)."""
        rng = np.random.default_rng(0)
        covariance = exact.covariance(self.kind, hurst, self.times)
        paths_ = rng.multivariate_normal(np.zeros(self.count), covariance, size=paths)
        return paths_ + self.scale * rng.standard_normal(paths_.shape)

    def log_evidence(self, observed: Any, hurst: float) -> float:
        """Of fractional Brownian motion, exactly: the mean over paths, in nats."""
        covariance = exact.covariance(self.kind, hurst, self.times)
        return float(exact.log_evidence(observed, covariance, self.scale).mean())

    @property
    def model(self) -> Program:
        """`model(hurst)`: one path and its observations."""

        @gen
        def model(hurst):
            sde = SDE(self.noise, hurst, self.steps, self.duration)
            result: Any = path(sde)(jnp.zeros(1)) @ "path"
            normal(result[0][self.seen, 0], self.scale) @ "o"

        return model

    def bound(self, hurst: Array, coefficients: Array, spreads: Array, observed: Array) -> Array:
        """The ELBO's estimate for one path, from one draw; for objectives. `coefficients` and
        `spreads` are of `controls.affine_guidance`."""
        sde = SDE(self.noise, hurst, self.steps, self.duration)
        guidance = affine_guidance(sde, self.times, observed[:, None], coefficients, spreads)
        xs, log_ratio = weighed_path(sde, affine_control)(jnp.zeros(1), guidance)
        return density(seen_path)({"o": observed}, xs[self.seen, 0], self.scale) + log_ratio

    @property
    def num_coefficients(self) -> int:
        return num_features(self.noise, self.count)


@gen
def seen_path(xs, scale):
    normal(xs, scale) @ "o"


@dataclass(frozen=True)
class HurstFits:
    """Several fits of `Sequences` side by side, each with parameters of its own.

    Attributes:
        learns: for each fit, whether it learns the Hurst index; else it is 1/2.
        narrows: for each fit, whether its posterior may also narrow the noise of the steps.
    """

    task: Sequences
    learns: np.ndarray
    narrows: np.ndarray

    def bounds(self, observed: Float[Array, "fits paths times"]) -> Float[Array, "fits paths"]:
        """An estimate of each path's bound under each fit, from one draw; for objectives."""
        fits = len(self.learns)
        hurst = jnp.where(self.learns, param("hurst", jnp.full(fits, 0.5), support=HURST), 0.5)
        shape = fits, self.task.steps, self.task.num_coefficients
        coefficients = param("coefficients", jnp.zeros(shape))
        spreads = param("spreads", jnp.zeros(shape[:2]))
        spreads = jnp.where(self.narrows[:, None], spreads, 0.0)
        per_path = jax.vmap(self.task.bound, in_axes=(None, None, None, 0))
        return jax.vmap(per_path)(hurst, coefficients, spreads, observed)

    @property
    def objective(self) -> vi.Objective:
        """Of the observed paths, `[fits, paths, times]`."""
        return vi.objective(lambda observed: jnp.sum(self.bounds(observed)))
