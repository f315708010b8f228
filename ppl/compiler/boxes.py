"""Score boxes: a cost whose derivative is that of its expectation.

`box(value, cost, baseline, charge)` is `value`, with the tangent
`d value + (cost - baseline) d charge`, where `charge` is the log-probability of the draws that
influence the cost. The mean of that tangent is the derivative of E[cost], for any baseline that
does not depend on those draws (Williams 1992; Schulman et al., arXiv 1506.05254).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

SAMPLES = "ppl_samples"
"""Name of the vmapped axis of independent samples."""


@jax.custom_jvp
def box(value: Array, cost: Array, baseline: Array, charge: Array) -> Array:
    """`value`, charged with log-probabilities.

    Args:
        value: the cost, or a box around it (for charges with another baseline).
        cost: the cost itself.
        baseline, charge: broadcast against the cost.
    """
    del cost, baseline
    return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, charge.shape))


@box.defjvp
def _box_jvp(primals, tangents):
    value, cost, baseline, charge = primals
    d_value, _, _, d_charge = tangents
    out = box(value, cost, baseline, charge)
    return out, jnp.broadcast_to(d_value + (cost - baseline) * d_charge, out.shape)


def leave_one_out(cost: Array, num_samples: int) -> Array:
    """Mean cost of the other samples (Kool et al. 2019); needs the axis `SAMPLES`."""
    cost = lax.stop_gradient(cost)
    return (lax.psum(cost, SAMPLES) - cost) / (num_samples - 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def actual(worlds: Array, weights: tuple[float, ...]) -> Array:
    """The estimate in world 0, with the weighted derivatives of all worlds.

    Args:
        worlds: `[worlds, *shape]`, an estimate per world.
    """
    return worlds[0]


@actual.defjvp
def _actual_jvp(weights, primals, tangents):
    factors = jnp.asarray(weights, tangents[0].dtype)
    return primals[0][0], jnp.tensordot(factors, tangents[0], 1, precision=lax.Precision.HIGHEST)
