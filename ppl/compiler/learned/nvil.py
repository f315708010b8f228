"""A learned, input-dependent baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.baselines.base import register_baseline
from ppl.compiler.learned.base import ControlVariate, features, mlp, mlp_value
from ppl.lang.staged import Eqn


@register_baseline
@dataclass(frozen=True)
class NVIL(ControlVariate):
    """A network predicts the costs of each lane from the data (Mnih and Gregor, arXiv 1402.0030).

    It is trained by regression on the costs seen in each step, beside their running mean. Arrays
    of the inputs whose first axis is as long as the choice's first lane axis are seen row by row
    (an autoencoder's baseline of a data point is a function of that data point); if there are
    none, the network sees all numbers and has an output per lane.

    Args:
        width, optimizer: of the network.
        inputs: `inputs(*data)`, a pytree of arrays made from the objective's arguments; these
            arguments themselves if `None`.
        normalize: divide what is charged by its running standard deviation, if that is above 1.
            This scales the choice's part of the gradient, and is a bias: use it if the choice's
            parameters have an optimiser of their own (any, as Adam does not see the scale).
    """

    inputs: Callable[..., Any] | None = None
    normalize: bool = False
    name: ClassVar[str] = "nvil"

    @property
    def biased(self) -> str | None:
        return "the charges are divided by their running sd" if self.normalize else None

    def seen(self, eqn: Eqn, data: tuple[Any, ...]) -> tuple[Array, bool]:
        lanes = eqn.params["shape"]
        given = data if self.inputs is None else self.inputs(*data)
        return features(given, lanes[0] if lanes else None)

    def noise(self, eqn: Eqn, data: tuple[Any, ...], key: Array) -> dict[str, Any]:
        return {"features": self.seen(eqn, data)[0]}

    def network(self, key: Array, eqn: Eqn, data: tuple[Any, ...]) -> Any:
        x, by_row = self.seen(eqn, data)
        outputs = math.prod(eqn.params["shape"][1 if by_row else 0 :])
        return mlp(key, (x.shape[-1], self.width, outputs))

    def terms(
        self, weights: Any, eqn: Eqn, params: list[Array], noise: dict[str, Any]
    ) -> tuple[Array, Array]:
        value = mlp_value(weights, noise["features"])
        return value.reshape(eqn.params["shape"]), jnp.zeros(())

    def loss(self, weights, eqn, signal, log_density, terms, params) -> Array:
        return jnp.mean((signal - terms(weights, params)[0]) ** 2)

    def divisor(self, moments: dict[str, Array]) -> Array | float:
        if not self.normalize:
            return 1.0
        weight = jnp.where(moments["weight"] > 0, moments["weight"], 1)
        return jnp.maximum(1, jnp.sqrt(moments["residual"] / weight))
