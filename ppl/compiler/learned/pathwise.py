"""Control variates that see a relaxation of the draw: LAX and RELAX."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.learned.base import ControlVariate, features, mlp, mlp_value
from ppl.compiler.learned.relaxed import relaxations
from ppl.lang.keys import key_beside
from ppl.lang.primitives import draw
from ppl.lang.staged import Eqn


@dataclass(frozen=True)
class PathNetwork(ControlVariate):
    """c(z) for a continuous z that moves with the choice's parameters (Grathwohl et al., arXiv
    1711.00123).

    The network is a sum of two: one sees all entries along the last lane axis and predicts one
    number for all of them, with rows of the other axes apart (and, if the first axis is as long
    as that of some data, the data's row); the other sees each lane alone.

    Args:
        kind: `"lax"`: z is the draw itself, reparameterised; `"relax"`: z is the continuous
            variable that a discrete draw is rounded from.
    """

    kind: Literal["lax", "relax"] = "relax"
    name: ClassVar[str] = "path"

    def noise(self, eqn: Eqn, data: tuple[Any, ...], key: Array) -> dict[str, Any]:
        # LAX draws the same value again; RELAX needs noise that the value has not seen.
        key = key if self.kind == "lax" else key_beside(key, "relaxation")
        return {"key": key, "features": self._features(eqn, data)}

    def _features(self, eqn: Eqn, data: tuple[Any, ...]) -> Array:
        lanes = eqn.params["shape"]
        if len(lanes) > 1:
            x, by_row = features(data, lanes[0])
            if by_row:
                return jnp.reshape(x, (lanes[0], *(1,) * (len(lanes) - 2), -1))
        return jnp.zeros(0)

    def _sizes(self, eqn: Eqn) -> tuple[int, int]:
        """(entries along the last lane axis, numbers in each)."""
        shape, out = tuple(eqn.params["shape"]), eqn.outs[0].aval.shape
        event = math.prod(out[len(shape) :])
        if self.kind == "relax" and eqn.params["family"].name == "categorical":
            event = eqn.ins[0].aval.shape[-1]
        return (shape[-1] if shape else 1), event

    def network(self, key: Array, eqn: Eqn, data: tuple[Any, ...]) -> Any:
        size, event = self._sizes(eqn)
        together, alone = jax.random.split(key)
        inputs = size * event + self._features(eqn, data).shape[-1]
        return {
            "together": mlp(together, (inputs, self.width, 1)),
            "alone": mlp(alone, (event, self.width, 1), (size,)),
        }

    def terms(
        self, weights: Any, eqn: Eqn, params: list[Array], noise: dict[str, Any]
    ) -> tuple[Array, Array]:
        lanes, (size, event) = tuple(eqn.params["shape"]), self._sizes(eqn)
        rows = lanes[:-1]

        def both(x: Array) -> tuple[Array, Array]:
            x = jnp.reshape(x, (*rows, size, event))
            flat = jnp.reshape(x, (*rows, size * event))
            more = jnp.broadcast_to(noise["features"], (*rows, noise["features"].shape[-1]))
            return mlp_value(weights["together"], jnp.concatenate([flat, more], -1)), mlp_value(
                weights["alone"], x
            )[..., 0]

        if self.kind == "lax":
            here = both(draw(noise["key"], params, **eqn.params))
            path = jnp.sum(here[0]) + jnp.sum(here[1])
        else:
            named = dict(zip(eqn.params["names"], params, strict=True))
            relax = relaxations[eqn.params["family"].name]
            z, given = relax(named, noise["value"], noise["key"])
            free, here = both(_squash(z)), both(_squash(given))
            path = sum((jnp.sum(a - b) for a, b in zip(free, here, strict=True)), jnp.zeros(()))
        return jnp.reshape(here[0] + here[1], lanes), path


def _squash(z: Array) -> Array:
    """A relaxed choice between 0 and 1."""
    return jax.nn.sigmoid(z) if z.shape[-1] == 1 else jax.nn.softmax(z, -1)
