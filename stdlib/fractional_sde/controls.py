"""Controls: how a posterior's path steers towards what is observed."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl import param
from stdlib.fractional_sde.noise import FractionalNoise
from stdlib.fractional_sde.programs import SDE, Control

REACTION = 0.05
"""Added to the time left to an observation, so that the pull towards it stays bounded."""


def network(inputs: int, outputs: int, width: int = 32, *, quiet: bool = False) -> Any:
    """A network with two hidden layers, as a function of the key that its weights are drawn with;
    a quiet one gives 0 at first."""

    def make(key: Array) -> eqx.nn.MLP:
        net = eqx.nn.MLP(inputs, outputs, width, 2, jnp.tanh, key=key)
        last = lambda n: (n.layers[-1].weight, n.layers[-1].bias)
        return eqx.tree_at(last, net, jax.tree.map(jnp.zeros_like, last(net))) if quiet else net

    return make


def network_control(name: str, width: int = 32) -> Control:
    """A control by a network of the time and the state, with parameters `name`; 0 at first."""

    def control(t: Array, x: Array, y: Array, _: Any) -> Array:
        seen = jnp.concatenate([jnp.stack([jnp.sin(t), jnp.cos(t)]), x, y.reshape(-1)])
        return param(name, network(len(seen), len(x), width, quiet=True))(seen)

    return control


class Guidance(NamedTuple):
    """What `affine_control` sees of each step.

    Attributes:
        coefficients: of the features, the same for all dimensions.
        log_spread: log of what the noise's scale is multiplied by.
        target: the next observation.
        left: the time to it.
        memory: what the processes add to the state until then, on average: weights (e^(-rate left)
            - 1) for each.
        observed: all observations, with the dimensions first.
    """

    coefficients: Float[Array, "steps features"]
    log_spread: Float[Array, " steps"]
    target: Float[Array, "steps dims"]
    left: Float[Array, " steps"]
    memory: Float[Array, "steps processes"]
    observed: Float[Array, "steps dims observations"]


def affine_guidance(
    sde: SDE,
    times: Float[np.ndarray, " observations"],
    observed: Float[Array, "observations dims"],
    coefficients: Float[Array, "steps features"],
    log_spread: Float[Array, " steps"],
) -> Guidance:
    """The inputs of `affine_control` for observations at some times."""
    starts = np.arange(sde.steps) * sde.dt
    following = np.searchsorted(times, starts + sde.dt / 2).clip(max=len(times) - 1)
    left = times[following] - starts
    memory = np.expm1(-sde.noise.rates * left[:, None]) * sde.noise.weights(sde.hurst)
    every = jnp.broadcast_to(observed.T, (sde.steps, *observed.T.shape))
    return Guidance(coefficients, log_spread, observed[following], jnp.asarray(left), memory, every)


def num_features(noise: FractionalNoise, observations: int) -> int:
    """How many coefficients a step of `affine_control` has."""
    return 3 + len(noise.rates) + observations


def affine_control(t: Array, x: Array, y: Array, inputs: Guidance) -> tuple[Array, Array]:
    """Free coefficients for each step, times: how far the next observation is from where the noise
    leads by itself, over the time left; the state, 1, the processes, and all observations. And
    the noise's scale times exp(log_spread).

    For a linear equation the exact posterior is of this form. With one observation its control is
    the first feature times a number (Doob's transform).
    """
    toward = (inputs.target - x - y @ inputs.memory) / (inputs.left + REACTION)
    columns = jnp.stack([toward, x, jnp.ones_like(x)], 1)
    features = jnp.concatenate([columns, y, inputs.observed], 1)
    return features @ inputs.coefficients, jnp.exp(inputs.log_spread)
