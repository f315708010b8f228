"""Control variates with parameters, trained by the gradient that passes them.

A score choice with log-probability L (one number per lane) adds A dL to the gradient, where the
*signal* A is the sum of the costs charged to the lane. A control variate replaces that by

    (A - c) dL + dC,    with E[c dL] = E[dC],

so that the mean stays the same, whatever c is. Reverse mode brings A to the choice: it is the
derivative of the objective in L. So the control variate stands at the choice, sees all of the
costs at once, through loops and branches, and its own training gradient comes out of the same
backward pass, as the derivative in its network's weights (`tap`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ppl.lang.staged import Eqn, Lit

ADAM = optax.adam(1e-2)

DECAY = 0.9
"""Decay per step of the signal's running moments."""


@dataclass(frozen=True)
class ControlVariate:
    """What a network predicts of the signal, and how it learns.

    Args:
        width: of the hidden layer.
        optimizer: of the network's weights.
    """

    width: int = 16
    optimizer: optax.GradientTransformation = ADAM
    name: ClassVar[str]

    @property
    def biased(self) -> str | None:
        """Why the gradient is biased, or `None`."""
        return None

    def network(self, key: Array, eqn: Eqn, data: Any) -> Any:
        """First weights, for a choice and the objective's data."""
        raise NotImplementedError

    def terms(
        self, weights: Any, eqn: Eqn, params: list[Array], noise: dict[str, Any]
    ) -> tuple[Array, Array]:
        """(c, C): one number per lane, and a scalar differentiable in the choice's parameters."""
        raise NotImplementedError

    def loss(
        self,
        weights: Any,
        eqn: Eqn,
        signal: Array,
        log_density: Callable[[list[Array]], Array],
        terms: Callable[[Any, list[Array]], tuple[Array, Array]],
        params: list[Array],
    ) -> Array:
        """What the weights minimise; by default, the variance of the gradient with respect to
        the choice's own parameters (those that are no constants): its squared norm, since its
        mean does not depend on the weights (Grathwohl et al., arXiv 1711.00123, eq. 5)."""

        def surrogate(at: list[Array]) -> Array:
            here, path = terms(weights, params)[0], terms(weights, at)[1]
            return jnp.sum((signal - here) * log_density(at)) + path

        gradients = jax.grad(surrogate)(params)
        moving = [g for g, a in zip(gradients, eqn.ins, strict=True) if not isinstance(a, Lit)]
        return sum((jnp.sum(g**2) for g in moving), jnp.zeros(()))

    def noise(self, eqn: Eqn, data: tuple[Any, ...], key: Array) -> dict[str, Any]:
        """What `terms` depends on beside the weights, the parameters and the value drawn."""
        return {}

    def divisor(self, moments: dict[str, Array]) -> Array | float:
        """What charges are divided by."""
        return 1.0

    # ------------------------------------------------------------------------------- state

    def init(self, key: Array, eqn: Eqn, data: Any) -> dict[str, Any]:
        """The state before the first step."""
        weights = self.network(key, eqn, data)
        moments = {n: jnp.zeros(()) for n in ("mean", "square", "residual", "weight")}
        return {
            "learned": {"network": weights, "moments": moments},
            "optimizer": self.optimizer.init(weights),
        }

    def update(self, state: dict[str, Any], gradient: dict[str, Any]) -> dict[str, Any]:
        """The state after a step in which reverse mode gave this for `state["learned"]`."""
        learned = state["learned"]
        updates, optimizer = self.optimizer.update(
            gradient["network"], state["optimizer"], learned["network"]
        )
        share = jnp.maximum(gradient["moments"]["weight"], jnp.finfo(jnp.float32).tiny)
        moments = jax.tree.map(
            lambda m, g: DECAY * m + (1 - DECAY) * g / share,
            learned["moments"],
            gradient["moments"],
        )
        return {
            "learned": {
                "network": optax.apply_updates(learned["network"], updates),
                "moments": moments,
            },
            "optimizer": optimizer,
        }


def tap(
    variate: ControlVariate,
    eqn: Eqn,
    log_density: Callable[[list[Array], Any], Array],
    params: list[Array],
    noise: dict[str, Any],
    learned: dict[str, Any],
) -> tuple[Array, Array]:
    """A choice's log-probability with a control variate.

    Args:
        log_density: `(params, noise)`, per lane at the value drawn.
        noise: all that the draw and its relaxation depend on beside the parameters.

    Returns:
        the log-probability that costs are charged with, and a scalar 0 that must be added to the
        objective: its derivative is that of C.
    """

    @jax.custom_vjp
    def tapped(logp: Array, params: list[Array], noise: Any, learned: Any) -> tuple[Array, Array]:
        return logp, jnp.zeros((), logp.dtype)

    def forward(logp, params, noise, learned):
        return tapped(logp, params, noise, learned), (params, noise, learned)

    def backward(saved, cotangents):
        params, noise, learned = saved
        # The objective itself is scaled (by 1 / samples, by -1 in a fit): so is its part here.
        charge, scale = cotangents
        signal = charge / jnp.where(scale == 0, 1, scale)
        moments = learned["moments"]
        known = moments["weight"] > 0
        weight = jnp.where(known, moments["weight"], 1)
        center = moments["mean"] / weight
        square = moments["square"] / weight
        spread = jnp.where(known, jnp.sqrt(jnp.maximum(square - center**2, 0)), 1)
        spread = jnp.where(spread > 0, spread, 1)
        # The network sees a signal of mean 0 and sd 1, so that one learning rate fits all.
        unit = (signal - center) / spread

        def terms(weights, params):
            return variate.terms(weights, eqn, params, noise)

        def path(params):
            at, path = terms(learned["network"], params)
            return path, at

        _, pull, at = jax.vjp(path, params, has_aux=True)
        at = center + spread * at
        (d_params,) = pull(scale * spread)
        d_network = jax.grad(variate.loss)(
            learned["network"], eqn, unit, lambda p: log_density(p, noise), terms, params
        )
        size = jnp.abs(scale)
        residual = signal - at
        seen = {
            "mean": jnp.mean(signal),
            "square": jnp.mean(signal**2),
            "residual": jnp.mean(residual**2),
            "weight": jnp.ones(()),
        }
        d_learned = {"network": d_network, "moments": seen}
        d_learned = jax.tree.map(lambda g, x: (size * g).astype(x.dtype), d_learned, learned)
        d_logp = scale * residual / variate.divisor(moments)
        return d_logp, d_params, None, d_learned

    tapped.defvjp(forward, backward)
    logp = log_density(params, noise)
    return tapped(logp, params, noise, learned)


# ---------------------------------------------------------------------------------- networks


def mlp(key: Array, sizes: tuple[int, int, int], copies: tuple[int, ...] = ()) -> dict[str, Array]:
    """Weights of `mlp_value`: (inputs, hidden units, outputs); the output starts at 0."""
    first, hidden, last = sizes
    scale = (1 / max(first, 1)) ** 0.5
    return {
        "in": scale * jax.random.normal(key, (*copies, first, hidden)),
        "bias": jnp.zeros((*copies, hidden)),
        "out": jnp.zeros((*copies, hidden, last)),
        "shift": jnp.zeros((*copies, last)),
    }


def mlp_value(weights: dict[str, Array], x: Array) -> Array:
    """`[..., inputs] -> [..., outputs]`, one hidden layer of tanh."""
    hidden = jnp.tanh(x[..., None, :] @ weights["in"] + weights["bias"][..., None, :])
    return (hidden @ weights["out"] + weights["shift"][..., None, :])[..., 0, :]


def features(data: Any, rows: int | None) -> tuple[Array, bool]:
    """The numbers in the data, as the last axis.

    Arrays whose first axis has the length `rows` are taken row by row, if there are any.

    Returns:
        `[rows, features]` and True, or `[features]` and False.
    """
    arrays = [jnp.asarray(x, float) for x in jax.tree.leaves(data)]
    matching = [x.reshape(rows, -1) for x in arrays if rows is not None and x.shape[:1] == (rows,)]
    if matching:
        return jnp.concatenate(matching, -1), True
    flat = [x.reshape(-1) for x in arrays]
    return (jnp.concatenate(flat) if flat else jnp.zeros(0)), False
