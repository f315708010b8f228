"""The inference problems: each a program that draws a prior, a latent value from it, and data.

A `Task` says how the network sees them. No parameter reaches these programs: they are simulators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from tensorflow_probability.substrates.jax import bijectors as tfb

from ppl import (
    beta,
    dirichlet,
    exponential,
    flip,
    gamma,
    gen,
    inverse_gamma,
    log_normal,
    multivariate_normal,
    normal,
    scan,
    uniform,
)
from stdlib.distribution_transformer.mixture import Mixture, gmm, small_product
from stdlib.distribution_transformer.network import Forecast

Choices = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is inferred from what.

    Attributes:
        joint: a program that draws everything.
        prior: from its choices to what tells the network the prior: features, or a `Mixture`.
        latent: from its choices to the value x to be inferred, a vector of n numbers.
        data: from its choices to the observations, `[points, features]` for each source.
        through: makes the bijector from the numbers u that the mixture is a law of to x.
        size: n.
        sources: features of each source.
        features: of the prior; 0 for a mixture.
        forecast: what the tokens are told of how each component forecast the data, if anything.
    """

    joint: Any
    prior: Callable[[Choices], Any]
    latent: Callable[[Choices], Float[Array, " n"]]
    data: Callable[[Choices], tuple[Array, ...]]
    through: Callable[[], Any]
    size: int
    sources: tuple[int, ...]
    features: int = 0
    forecast: Forecast | None = None


def _log_uniform(low: float, high: float, shape: tuple[int, ...] = ()) -> Any:
    return uniform(jnp.full(shape, np.log(low)), jnp.log(high))


# ------------------------------------------------------------------ a variance, T1 of the card


@gen
def variance_joint():
    log_alpha = _log_uniform(0.7, 8.0) @ "log_alpha"
    log_beta = _log_uniform(0.3, 10.0) @ "log_beta"
    x = inverse_gamma(jnp.exp(log_alpha), jnp.exp(log_beta)[None]) @ "x"
    normal(0.0, jnp.sqrt(x)) @ "z"


variance = Task(
    joint=variance_joint,
    prior=lambda c: jnp.stack([c["log_alpha"], c["log_beta"]]),
    latent=lambda c: c["x"],
    data=lambda c: (jnp.arcsinh(c["z"])[:, None],),  # its tails are heavy
    through=tfb.Exp,
    size=1,
    sources=(1,),
    features=2,
)
"""x, a variance, has an inverse gamma prior; one number z from N(0, x) is seen."""

# --------------------------------------------------- a filter's step in one dimension, E2


OBSERVATION_SD, STEP, STEP_SD = 0.5, 0.95, 0.3**0.5


def squared_mean(x: ArrayLike) -> Array:
    """The sensor sees x² / 4, so that the sign of x is lost and posteriors have two modes."""
    return jnp.square(x) / 4


def prior_mixture(c: Choices) -> Mixture:
    """The mixture that was drawn as the prior."""
    # Weights that underflow would have a log of -inf.
    return Mixture(jnp.log(c["weights"] + 1e-8), c["loc"], c["scale_tril"])


@gen
def squared_joint():
    k = 4
    weights = dirichlet(jnp.ones(k)) @ "weights"
    loc = normal(jnp.zeros((k, 1)), 2.5) @ "loc"
    log_scale = _log_uniform(0.3, 2.5, (k, 1, 1)) @ "log_scale"
    prior = prior_mixture({"weights": weights, "loc": loc, "scale_tril": jnp.exp(log_scale)})
    x = gmm(*prior) @ "x"
    normal(squared_mean(x), OBSERVATION_SD) @ "z"


squared = Task(
    joint=squared_joint,
    prior=lambda c: prior_mixture(c | {"scale_tril": jnp.exp(c["log_scale"])}),
    latent=lambda c: c["x"],
    data=lambda c: (c["z"][:, None],),
    through=tfb.Identity,
    size=1,
    sources=(1,),
)
"""One step of a filter: x has a mixture prior; x² / 4 is seen with noise."""

# ----------------------------------------------------------------- a quantum parameter, T3

STARTS = np.repeat(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32), [5, 2, 3], axis=0)
TIMES = np.array([1, 2, 3, 4, 5, 1, 2, 1, 2, 3], np.float32)
START_SD, TIME_SD = 0.1, 0.05


def zero_probability(
    delta: ArrayLike, time: ArrayLike, start: Float[ArrayLike, "*batch 2"]
) -> Array:
    """|<0| exp(-i t H) ψ>|² for H = δ X + (1 - δ) Z and a real start ψ = (a, b), normalised.

    With ω² = δ² + (1 - δ)²: P = (a cos ωt)² + ((sin ωt / ω) ((1 - δ) a + δ b))².
    """
    start = jnp.asarray(start)
    a, b = jnp.moveaxis(start / jnp.linalg.norm(start, axis=-1, keepdims=True), -1, 0)
    delta = jnp.asarray(delta)
    omega = jnp.sqrt(delta**2 + (1 - delta) ** 2)
    along = jnp.cos(omega * time) * a
    across = jnp.sin(omega * time) / omega * ((1 - delta) * a + delta * b)
    return along**2 + across**2


@gen
def quantum_joint():
    log_a = _log_uniform(1.5, 8.0) @ "log_a"
    log_b = _log_uniform(1.5, 8.0) @ "log_b"
    delta = beta(jnp.exp(log_a), jnp.exp(log_b)[None]) @ "delta"
    start = normal(STARTS, START_SD) @ "start"  # how the system really started, and when it was
    time = normal(TIMES, TIME_SD) @ "time"  # really looked at; both unknown
    flip(zero_probability(delta, time, start)) @ "z"


quantum = Task(
    joint=quantum_joint,
    prior=lambda c: jnp.stack([c["log_a"], c["log_b"]]),
    latent=lambda c: c["delta"],
    data=lambda c: (c["z"][None] * 2.0 - 1,),  # the set-ups are always the same
    through=tfb.Sigmoid,
    size=1,
    sources=(10,),
    features=2,
)
"""δ of a two-level system has a beta prior; ten measurements, in set-ups that are not exact."""

# ------------------------------------------- hyper-parameters of a Gaussian process, T5

POINTS, NOISE_VARIANCE, SCALE_SD = 5, 0.05, 0.6


def covariance(at: Float[Array, " p"], lengthscale: ArrayLike, scale: ArrayLike) -> Array:
    """Of noisy values of a process with a squared exponential kernel, at points `at`."""
    distance = (at[:, None] - at[None]) / lengthscale
    return jnp.asarray(scale) * jnp.exp(-0.5 * distance**2) + NOISE_VARIANCE * jnp.eye(len(at))


@gen
def process_joint():
    concentration = uniform(2.0, 6.0) @ "concentration"
    rate = uniform(4.0, 12.0) @ "rate"
    log_median = uniform(-0.7, 0.7) @ "log_median"
    mean = uniform(-0.5, 0.5) @ "mean"
    lengthscale = gamma(concentration, rate) @ "lengthscale"
    scale = log_normal(log_median, SCALE_SD) @ "scale"
    at = uniform(jnp.zeros(POINTS), 1.0) @ "at"
    multivariate_normal(jnp.full(POINTS, mean), covariance(at, lengthscale, scale)) @ "y"


def process_features(at: Float[Array, " p"], y: Float[Array, " p"]) -> Array:
    """Of all points at once, from left to right: places, values, and the differences of neighbours.

    A set of tokens, one for each point, has to learn first which points are neighbours.
    """
    order = jnp.argsort(at)
    at, y = at[order], y[order]
    return jnp.concatenate([2 * at - 1, y, jnp.diff(at), jnp.diff(y)])


process = Task(
    joint=process_joint,
    prior=lambda c: jnp.stack(
        [c["concentration"] / 4 - 1, c["rate"] / 8 - 1, c["log_median"], 2 * c["mean"]]
    ),
    latent=lambda c: jnp.stack([c["lengthscale"], c["scale"]]),
    data=lambda c: (process_features(c["at"], c["y"] - c["mean"])[None],),
    through=tfb.Exp,
    size=2,
    sources=(4 * POINTS - 2,),
    features=4,
)
"""Length scale and variance of a Gaussian process, from five noisy values."""

# ------------------------------------------------------- range and bearing sensors, T4

AXIS = np.array([[1.0, 0.6321], [0.0, 0.3679]], np.float32)
TRANSITION = np.kron(np.eye(2, dtype=np.float32), AXIS)
TRANSITION_SD = np.array([0.1, 0.2, 0.1, 0.2], np.float32)
START_LOC = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
FARTHEST, BEARING_SD = 10.0, 0.1
KINDS = np.array([0.7, 0.2, 0.1], np.float32)
"""Of a range reading: of the target, of something in front (exponential), of anything."""


def start_prior() -> Mixture:
    """N(START_LOC, I) as four components, either side of the mean along each place's axis, with the
    same mean and covariance (a divergence of 0.004 nats): equal ones would be equal tokens."""
    apart = 0.6
    sides = np.array([[a, 0, b, 0] for a in (-1, 1) for b in (-1, 1)], np.float32)
    within = np.sqrt([1 - apart**2, 1.0, 1 - apart**2, 1.0]).astype(np.float32)
    tril = jnp.broadcast_to(jnp.diag(within), (4, 4, 4))
    return Mixture(jnp.full(4, -np.log(4.0)), jnp.asarray(START_LOC + apart * sides), tril)


def range_of(x: Float[Array, "*batch 4"]) -> Array:
    """The distance from the sensor, of a state (position, velocity) along two axes."""
    return jnp.hypot(x[..., 0], x[..., 2])


def bearing_of(x: Float[Array, "*batch 4"]) -> Array:
    """The angle from the second axis, in radians."""
    return jnp.arctan2(x[..., 0], x[..., 2])


@gen
def sensors(x):
    """Readings of range and bearing; a range comes from one of three sources, and is clipped."""
    source = uniform(0.0, 1.0) @ "source"
    distance = range_of(x)
    target = normal(distance, 0.1 * (distance + 1)) @ "target"
    clutter = exponential(1.0) @ "clutter"
    anything = uniform(0.0, FARTHEST) @ "anything"
    angle = normal(bearing_of(x), BEARING_SD) @ "angle"
    z = {"source": source, "target": target, "clutter": clutter, "anything": anything}
    return reading_of(z), angle


def reading_of(z: Choices) -> Array:
    """The range reading among the sensors' choices."""
    first, second, _ = np.cumsum(KINDS)
    other = jnp.where(z["source"] < second, z["clutter"], z["anything"])
    return jnp.clip(jnp.where(z["source"] < first, z["target"], other), 0.0, FARTHEST)


def sensor_features(reading: ArrayLike, angle: ArrayLike) -> tuple[Array, Array]:
    """What the network sees: the range, and the bearing as a point on the circle."""
    reading, angle = jnp.asarray(reading), jnp.asarray(angle)
    features = jnp.stack([jnp.sin(angle), jnp.cos(angle)])
    return (reading / 2 - 1)[None, None], features[None]


@gen
def fusion_joint():
    k = 4
    weights = dirichlet(jnp.ones(k)) @ "weights"
    centre = normal(START_LOC, jnp.array([2.5, 0.6, 2.5, 0.6])) @ "centre"
    log_spread = _log_uniform(0.02, 2.0) @ "log_spread"
    log_scale = _log_uniform(0.15, 1.1) @ "log_scale"  # a filter's components are alike in scale
    log_ratios = _log_uniform(0.5, 2.0, (k, 4)) @ "log_ratios"
    below = normal(jnp.zeros((k, 4, 4)), 0.5) @ "below"
    away = normal(jnp.zeros((k, 4)), 1.0) @ "away"
    c = {"weights": weights, "centre": centre, "log_spread": log_spread, "log_scale": log_scale}
    c |= {"log_ratios": log_ratios, "below": below, "away": away}
    x = gmm(*scattered_mixture(c)) @ "x"
    sensors(x) @ "z"


def scattered_mixture(c: Choices) -> Mixture:
    """The mixture that was drawn as the prior: components around a centre, with correlations."""
    scales = jnp.exp(c["log_scale"] + c["log_ratios"])
    tril = scales[..., None] * (jnp.eye(4) + jnp.tril(c["below"], -1))
    loc = c["centre"] + jnp.exp(c["log_spread"]) * jnp.einsum("kij,kj->ki", tril, c["away"])
    return prior_mixture({"weights": c["weights"], "loc": loc, "scale_tril": tril})


def sensor_forecast(prior: Mixture, distance: Array, direction: Array) -> Float[Array, "k 12"]:
    """For each component: how far the readings are from those at its mean, in standard deviations
    of the noise, and how these move with the component's coordinates."""
    reading, (sine, cosine) = 2 * (distance[0, 0] + 1), direction[0]

    def component(loc: Array, tril: Array) -> Array:
        at = jnp.maximum(range_of(loc), 0.01)
        sd = 0.1 * (at + 1)
        across, along = loc[0] / at, loc[2] / at  # sine and cosine of the bearing
        turn = jnp.arctan2(sine * along - cosine * across, cosine * along + sine * across)
        rows = jnp.array([[across, 0, along, 0], [along / at, 0, -across / at, 0]])
        slopes = small_product(rows, tril) / jnp.array([sd, BEARING_SD])[:, None]
        misses = jnp.array([(reading - at) / sd, turn / BEARING_SD])
        squash = lambda x: x / (1 + jnp.abs(x) / 10)
        return jnp.concatenate([squash(misses), jnp.array([at / 2, turn]), squash(slopes.ravel())])

    return jax.vmap(component)(prior.loc, prior.scale_tril)


fusion = Task(
    joint=fusion_joint,
    prior=scattered_mixture,
    latent=lambda c: c["x"],
    data=lambda c: sensor_features(reading_of(c["z"]), c["z"]["angle"]),
    through=tfb.Identity,
    size=4,
    sources=(1, 2),
    forecast=Forecast(12, sensor_forecast),
)
"""One step of a filter for position and velocity in the plane, from range and bearing."""


@gen
def target_step(x, _):
    sensors(x) @ "z"
    moved = normal(TRANSITION @ x, TRANSITION_SD) @ "next"
    return moved, None


def journey(steps: int) -> Any:
    """A program that draws a target's first state, and then its readings and its next state."""

    @gen
    def target():
        start = normal(START_LOC, 1.0) @ "start"
        scan(target_step, length=steps)(start, None) @ "on"

    return target


def seen_on_journey(c: Choices) -> tuple[Float[Array, "steps 4"], tuple[Array, Array]]:
    """The states, and the readings of range and bearing at them."""
    states = jnp.concatenate([c["start"][None], c["on"]["next"][:-1]])
    z = c["on"]["z"]
    return states, (jax.vmap(reading_of)(z), z["angle"])
