"""Couplings between nodes whose mean-field problem has one solution.

With A any matrix, A_i its columns of node i, and s_i = min(sqrt(1 - m) / |A_i|, 1),

    Phi_ij = -s_i s_j A_i^T A_j  (i != j),    Phi_ii = 0,

so that I - Phi = I - blkdiag(s_i^2 A_i^T A_i) + (A S)^T (A S) >= m I (section 4 of the paper; the
norms are spectral). The negative ELBO then has the Hessian diag(1/q) - Phi >= m I, and so has its
restriction to any of the nodes. (The paper's code scales the rows of A^T A alone, so that its Phi
is not symmetric; this one is a Boltzmann machine's.)

`tangent` uses that the probabilities of a node sum to one. Along such directions the entropy's
Hessian is at least 2, since sum v^2 / q >= (sum |v|)^2 >= 2 |v|^2 if sum v = 0, and a part of A_i
that is the same for all states acts as a bias only. So A_i is centred over the states, and
s_i = min(sqrt(2 - m) / |A_i|, 1): couplings up to twice as strong, the same guarantee.
"""

from __future__ import annotations

import itertools
from typing import Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ppl.errors import PplError
from stdlib.monotone_dbm.layers import Layers


class Rows(Protocol):
    """Some rows of A."""

    def square(self, layers: Layers) -> Float[Array, "n n"]:
        """A^T A of these rows."""
        ...


class Dense(eqx.Module):
    """Rows that see all nodes."""

    weight: Float[Array, "rows n"]

    def square(self, layers: Layers) -> Float[Array, "n n"]:
        return self.weight.T @ self.weight


class Convolution(eqx.Module):
    """Rows that are the outputs of a convolution of all layers on a grid.

    Zeros stand around the grid, as many as the kernel reaches, so that every node meets the whole
    kernel, and A_i is the same for all nodes of a group, wherever they stand.

    Attributes:
        kernel: for each layer on the grid; its channels are the groups' states, group by group.
    """

    kernel: dict[str, Float[Array, "features channels height width"]]

    def square(self, layers: Layers) -> Float[Array, "n n"]:
        kernel = jnp.concatenate(list(self.kernel.values()), 1)
        (height, width), grid = kernel.shape[-2:], layers[next(iter(self.kernel))].grid
        assert grid is not None
        # Two nodes meet in the outputs that both reach: a correlation of the kernel with itself.
        reach = list(itertools.product(range(1 - height, height), range(1 - width, width)))
        overlap = jnp.stack([_correlation(kernel, dy, dx) for dy, dx in reach])
        none = jnp.zeros_like(overlap[:1])
        sites = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 2)
        dy, dx = np.moveaxis(sites[None] - sites[:, None], -1, 0)
        near = (abs(dy) < height) & (abs(dx) < width)
        which = np.where(near, (dy + height - 1) * (2 * width - 1) + dx + width - 1, len(reach))
        all_sites = jnp.concatenate([overlap, none])[which]  # [site, site, channel, channel]
        return self._laid_out(all_sites, layers)

    def _laid_out(self, square: Float[Array, "s s c c"], layers: Layers) -> Float[Array, "n n"]:
        """In the order of the flat vector, with zeros for the layers that are not on the grid."""
        sites, channels = square.shape[0], square.shape[-1]
        places, first = np.full(layers.size, sites * channels), 0
        starts = dict(zip(layers, np.cumsum([0, *(l.size for l in layers.values())]), strict=False))
        for name, kernel in self.kernel.items():
            own = np.arange(sites)[:, None] * channels + first + np.arange(kernel.shape[1])
            places[starts[name] : starts[name] + own.size] = own.ravel()
            first += kernel.shape[1]
        flat = jnp.moveaxis(square, 2, 1).reshape(sites * channels, sites * channels)
        return jnp.pad(flat, (0, 1))[places][:, places]


def _correlation(kernel: Float[Array, "f c h w"], dy: int, dx: int) -> Float[Array, "c c"]:
    """Sum over features and taps of kernel[c, tap] kernel[c', tap + (dy, dx)]."""
    height, width = kernel.shape[-2:]
    cut = lambda d, n: slice(max(d, 0), n + min(d, 0))
    one = kernel[..., cut(-dy, height), cut(-dx, width)]
    two = kernel[..., cut(dy, height), cut(dx, width)]
    return jnp.einsum("fcyx,fdyx->cd", one, two)


def monotone(
    rows: tuple[Rows, ...], layers: Layers, margin: float, *, tangent: bool = False
) -> Float[Array, "n n"]:
    """The coupling Phi of a free A.

    Args:
        rows: of A.
        margin: m in (0, 1).
        tangent: allow couplings up to 2 - m, not 1 - m, on centred columns.

    Raises:
        ValueError: the margin is not in (0, 1).
    """
    if not 0 < margin < 1:
        raise ValueError(f"monotone: the margin must be in (0, 1), not {margin}")
    square = sum((r.square(layers) for r in rows), jnp.zeros((layers.size, layers.size)))
    if tangent:
        centred = jnp.eye(layers.size) - same_node(layers) / layers.states
        square = centred @ square @ centred
    limit = (2 if tangent else 1) - margin
    scale = layers.join({n: _scales(own, limit) for n, own in blocks(square, layers).items()})
    return jnp.where(same_node(layers), 0, -scale[:, None] * square * scale)


def _scales(own: Float[Array, "nodes k k"], limit: float) -> Float[Array, "nodes k"]:
    """min(sqrt(limit) / |A_i|, 1), for each state, from the A_i^T A_i."""
    # |A_i|^2 is the largest eigenvalue, v^T (A_i^T A_i) v, whose derivative does not move v.
    v = lax.stop_gradient(jnp.linalg.eigh(own)[1][..., -1])
    norm2 = jnp.einsum("ik,ikl,il->i", v, own, v)
    return jnp.broadcast_to(jnp.sqrt(limit / jnp.maximum(norm2, limit))[:, None], v.shape)


def blocks(square: Float[Array, "n n"], layers: Layers) -> dict[str, Float[Array, "nodes k k"]]:
    """The blocks of each node with itself."""
    out, start = {}, 0
    for name, layer in layers.items():
        own = square[start : start + layer.size, start : start + layer.size]
        own = own.reshape(layer.nodes, layer.states, layer.nodes, layer.states)
        out[name] = jnp.einsum("ikil->ikl", own)
        start += layer.size
    return out


def same_node(layers: Layers) -> Bool[np.ndarray, "n n"]:
    """Whether two entries of the flat vector are states of one node."""
    return layers.owner[:, None] == layers.owner


def check_coupling(
    phi: Float[Array, "n n"], layers: Layers, margin: float | None = None, tolerance: float = 1e-5
) -> None:
    """Check a coupling that did not come from `monotone`.

    Args:
        margin: ask for I - Phi >= margin I too.

    Raises:
        PplError: it is not finite, not symmetric, couples a node with itself, or is not monotone.
    """
    problem = None
    if phi.shape != (layers.size, layers.size):
        problem = f"its shape is {phi.shape}, and the machine has {layers.size} states"
    elif not jnp.isfinite(phi).all():
        problem = "it is not finite"
    elif not jnp.allclose(phi, phi.T, atol=tolerance):
        problem = "it is not symmetric"
    elif jnp.any(phi * same_node(layers) != 0):
        problem = "it couples states of the same node"
    elif margin is not None and (least := 1 - jnp.linalg.eigvalsh(phi)[-1]) < margin - tolerance:
        problem = f"I - Phi has the eigenvalue {least:.4g}, below the margin {margin:g}"
    if problem:
        fix = "monotone(rows, layers, margin) makes one from any matrix A"
        raise PplError("the coupling cannot be used", because=problem, fix=fix)


def largest_eigenvalue(phi: Float[Array, "n n"], iterations: int = 12) -> Float[Array, ""]:
    """An estimate, from below, of the largest eigenvalue L of I - Phi, by power iteration.

    Forward-backward steps converge below 2 / L, so an error of less than a factor of two does no
    harm in a step of 1 / L. It is a constant: the fixed point does not depend on the step.
    """
    phi = lax.stop_gradient(phi)
    start = jnp.cos(1.7 * jnp.arange(len(phi)))

    def grow(v: Array, _: None) -> tuple[Array, Array]:
        w = v - phi @ v
        norm = jnp.linalg.norm(w)
        return w / norm, norm

    return lax.scan(grow, start / jnp.linalg.norm(start), None, iterations)[1][-1]
