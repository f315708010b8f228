"""Means and variances of what an estimator returns, measured in jitted batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

_HELD = 2**22
"""Numbers of one batch held at once, about."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sample moments of several numbers.

    Attributes:
        count: how many draws.
        mean: of each number.
        squares: sum of squared deviations from the mean.
    """

    count: int
    mean: Float[np.ndarray, " numbers"]
    squares: Float[np.ndarray, " numbers"]

    @property
    def variance(self) -> Float[np.ndarray, " numbers"]:
        return self.squares / max(1, self.count - 1)

    @property
    def standard_error(self) -> Float[np.ndarray, " numbers"]:
        return np.sqrt(self.variance / self.count)

    def merge(self, other: Moments) -> Moments:
        """Those of all draws together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        shift = other.mean - self.mean
        share = other.count / count
        squares = self.squares + other.squares + shift**2 * self.count * share
        return Moments(count, self.mean + share * shift, squares)


class Sampler:
    """Draws of a random pytree of numbers, as moments.

    Args:
        draw: `key -> pytree of numbers`.
        batch: draws per jitted call, at most; fewer where the pytree is large.
        vectorized: draw a batch in a `vmap`, not one after the other.
        compiler_options: for `jax.jit`.

    Attributes:
        batch: draws per jitted call.
        names: of each number, as `theta[0, 2]`.
        seen: moments of all draws so far.
        tree: a pytree like a draw, with the shapes.
    """

    def __init__(
        self,
        draw: Callable[[Key[Array, ""]], PyTree],
        key: Key[Array, ""],
        *,
        batch: int = 4096,
        vectorized: bool = True,
        compiler_options: dict[str, Any] | None = None,
    ):
        self.tree = jax.eval_shape(draw, key)
        self.names = entry_names(self.tree)
        self.batch = max(1, min(batch, _HELD // max(1, len(self.names))))
        self.seen = Moments(0, np.zeros(len(self.names)), np.zeros(len(self.names)))
        self._key, self._calls = key, 0

        def run(key: Key[Array, ""]) -> tuple[Array, Array]:
            keys = jax.random.split(key, self.batch)
            one = lambda k: ravel_pytree(draw(k))[0]
            x = jax.vmap(one)(keys) if vectorized else jax.lax.map(one, keys)
            mean = jnp.mean(x, 0)
            return mean, jnp.sum((x - mean) ** 2, 0)

        self._run = jax.jit(run, compiler_options=compiler_options)

    def more(self, batches: int = 1) -> Moments:
        """Draw more; the moments of all draws so far."""
        for _ in range(batches):
            mean, squares = self._run(jax.random.fold_in(self._key, self._calls))
            self._calls += 1
            new = Moments(self.batch, np.asarray(mean, float), np.asarray(squares, float))
            self.seen = self.seen.merge(new)
        return self.seen


def entry_names(tree: PyTree) -> list[str]:
    """A name for each number of a pytree, in the order in which it is flattened."""
    names: list[str] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        shape = np.shape(leaf)
        names += [f"{name}[{', '.join(map(str, i))}]" if i else name for i in np.ndindex(*shape)]
    return names
