"""Nodes of different numbers of states, as layers of equal ones and as one flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ppl import require
from ppl.errors import ShapeError

States = Mapping[str, Int[Array, " nodes"]]
"""For each layer the states of its nodes."""


@dataclass(frozen=True)
class Layer:
    """Nodes of `states` states each; on a grid there are height x width x groups, in this order."""

    nodes: int
    states: int
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.states < 2:
            raise ValueError(
                f"a layer has at least one node, of at least two states, not {self.nodes} of "
                f"{self.states}"
            )
        if self.grid is not None and self.nodes % (self.grid[0] * self.grid[1]):
            raise ValueError(f"{self.nodes} nodes do not fill a grid of {self.grid}")

    @property
    def size(self) -> int:
        return self.nodes * self.states


class Layers(dict[str, Layer]):
    """The layers of a machine by name; each node is `states` entries of a flat vector."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.values())

    @property
    def owner(self) -> Int[np.ndarray, " n"]:
        """The number of the node that each entry belongs to."""
        states = [layer.states for layer in self.values() for _ in range(layer.nodes)]
        return np.repeat(np.arange(len(states)), states)

    @property
    def states(self) -> Int[np.ndarray, " n"]:
        """The number of states of the node that each entry belongs to."""
        return np.array([layer.states for layer in self.values() for _ in range(layer.size)])

    @property
    def log_states(self) -> float:
        """The logarithm of the number of joint states."""
        return sum(layer.nodes * np.log(layer.states) for layer in self.values())

    def split(self, flat: Float[Array, " n"]) -> dict[str, Float[Array, "nodes states"]]:
        """A flat vector, layer by layer."""
        ends = np.cumsum([layer.size for layer in self.values()])[:-1]
        parts = zip(self.items(), jnp.split(flat, ends), strict=True)
        return {name: part.reshape(layer.nodes, layer.states) for (name, layer), part in parts}

    def join(self, parts: Mapping[str, Array]) -> Float[Array, " n"]:
        """The inverse of `split`."""
        return jnp.concatenate([jnp.ravel(parts[name]) for name in self])

    def one_hot(self, states: States) -> Float[Array, " n"]:
        """The flat vector of given states of all nodes."""
        return self.join({n: jax.nn.one_hot(states[n], self[n].states) for n in self})

    def clamp(
        self, values: States, seen: Mapping[str, Bool[Array, " nodes"]] | None = None
    ) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
        """Observations as flat vectors: values, one-hot, and where there are any.

        Args:
            values: states of some layers; layers that are left out are not observed.
            seen: which nodes of those layers are observed; all of them where it says nothing.

        Raises:
            ShapeError: values or flags do not fit their layer, or the flags are not boolean.
        """
        given, flags = {}, {}
        for name in {**values, **(seen or {})}:
            if name not in self or name not in values:
                raise ShapeError(f"the machine has no observed layer {name!r}")
        for name, layer in self.items():
            if name not in values:
                given[name] = np.zeros((layer.nodes, layer.states))
                flags[name] = np.zeros(given[name].shape, bool)
                continue
            value = jnp.asarray(values[name])
            known = jnp.asarray((seen or {}).get(name, np.ones(layer.nodes, bool)))
            shape, found = (layer.nodes,), f"{value.shape} and {known.dtype}{known.shape}"
            if not (value.shape == known.shape == shape and known.dtype == bool):
                raise ShapeError(
                    f"observations of layer {name!r} do not fit",
                    because=f"expected values and booleans of shape {shape}, found {found}",
                    fix="one state and one flag for each node",
                )
            valid = (value >= 0) & (value < layer.states) & (value == jnp.floor(value))
            one_hot = jax.nn.one_hot(value, layer.states)
            what = f"an observed value in layer {name!r} is no state of its node"
            given[name] = require(one_hot, (valid | ~known)[:, None], what)
            flags[name] = jnp.broadcast_to(known[:, None], (layer.nodes, layer.states))
        return self.join(given), self.join(flags)
