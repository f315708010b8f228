"""The mean-field solution of a Boltzmann machine, by forward-backward splitting.

Mean field asks for q with q_i = softmax((Phi q + b)_i) at each node that is not observed. The
iteration (section 4 of the paper)

    q <- prox_a((1 - a) q + a (Phi q + b))

has the same fixed points for every step a. As Phi is symmetric it is a proximal gradient method: it
converges for a < 2 / L, L the largest eigenvalue of I - Phi, and for a <= 1 / L the ELBO grows in
each step. Repeating the softmax itself may oscillate for ever.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from ppl import FixedPoint, fixed_point
from stdlib.monotone_dbm.coupling import largest_eigenvalue
from stdlib.monotone_dbm.layers import Layers
from stdlib.monotone_dbm.prox import prox

Clamp = tuple[Float[Array, " n"], Bool[Array, " n"]]
"""Observed values, one-hot, and where there are any; made by `Layers.clamp`."""


class Energy(eqx.Module):
    """log p(x) = 1/2 x^T Phi x + b^T x - log Z over one-hot nodes, and how to find its mean field.

    Attributes:
        phi: the coupling, symmetric, 0 within nodes.
        bias: b.
        step: a, no more than 1 / L.
    """

    phi: Float[Array, "n n"]
    bias: Float[Array, " n"]
    step: Float[Array, ""]
    layers: Layers = eqx.field(static=True)

    @staticmethod
    def of(phi: Array, bias: Array, layers: Layers, largest_step: ArrayLike = 1.0) -> Energy:
        """With the step min(largest_step, 1 / L)."""
        step = jnp.minimum(largest_step, 1 / largest_eigenvalue(phi))
        return Energy(phi, bias, step, layers)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The unnormalised log-probability; of means of independent nodes, its expectation."""
        return 0.5 * x @ self.phi @ x + self.bias @ x

    def field(self, q: Float[Array, " n"]) -> Float[Array, " n"]:
        """Phi q + b: the logits of the nodes, given the means of all others."""
        return self.phi @ q + self.bias

    def forward_backward(self, q: Float[Array, " n"], clamp: Clamp) -> Float[Array, " n"]:
        """One step; observed nodes stay."""
        parts = self.layers.split((1 - self.step) * q + self.step * self.field(q))
        moved = self.layers.join({name: prox(part, self.step) for name, part in parts.items()})
        values, seen = clamp
        return jnp.where(seen, values, moved)

    def uniform(self, clamp: Clamp) -> Float[Array, " n"]:
        """The uniform distribution on all nodes but the observed ones."""
        values, seen = clamp
        return jnp.where(seen, values, 1 / self.layers.states)


def mean_field(
    energy: Energy, clamp: Clamp | None = None, start: Array | None = None, **options: Any
) -> FixedPoint:
    """The mean-field marginals, differentiable in the energy.

    Args:
        clamp: observations.
        start: marginals to start from, uniform if `None`.
        options: of `ppl.fixed_point`: `tol`, `max_steps`, `acceleration`, `strict`.
    """
    clamp = energy.layers.clamp({}) if clamp is None else clamp
    start = energy.uniform(clamp) if start is None else jnp.where(clamp[1], clamp[0], start)
    return fixed_point(lambda q: energy.forward_backward(q, clamp), start, **options)


def residual(energy: Energy, q: Float[Array, " n"], clamp: Clamp | None = None) -> Float[Array, ""]:
    """How far q is from the mean-field equations: the largest |q - softmax(Phi q + b)|."""
    return jnp.max(jnp.abs(q - parallel(energy, q, clamp)))


def parallel(
    energy: Energy, q: Float[Array, " n"], clamp: Clamp | None = None
) -> Float[Array, " n"]:
    """The naive update of all nodes at once, q <- softmax(Phi q + b)."""
    values, seen = energy.layers.clamp({}) if clamp is None else clamp
    fields = energy.layers.split(energy.field(q))
    updated = energy.layers.join({name: jax.nn.softmax(part) for name, part in fields.items()})
    return jnp.where(seen, values, updated)
