"""Which lanes a cost is charged to, for every way in which JAX moves axes: exact, without draws.

A choice of 2 x 3 flips whose outcome is given, not drawn: the estimator's gradients for all 64
outcomes, weighted by their probabilities, are its exact expectation. Every lane has a probability
of its own, so a cost charged to the wrong lane shows.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import compile
from ppl.compiler.strategies import Score
from ppl.lang import param
from ppl.lang.distribution import make_distribution
from ppl.lang.family import Family
from ppl.lang.supports import boolean
from tests.compiler.exact import QUICK

LANES = np.array([[0.3, 0.5, 0.8], [1.1, 0.65, 0.2]], np.float32)
OUTCOMES = np.array(list(itertools.product([0, 1], repeat=6)), np.float32).reshape(-1, 2, 3)
THETA = 0.5

given = make_distribution(
    Family(
        "given",
        {"p": 0, "outcome": 0},
        lambda key, shape, p, outcome: jnp.broadcast_to(outcome, shape) > 0.5,
        lambda value, p, outcome: jnp.where(value, jnp.log(p), jnp.log1p(-p)),
        support=boolean,
        kind="bool",
    ),
    Score("none"),
)
"""A flip with a known outcome."""


def constant(*shape):
    return np.cos(1.7 * np.arange(1, 1 + int(np.prod(shape)))).reshape(shape).astype(np.float32)


def decay(carry, row):
    return 0.5 * carry + row, carry + 2 * row


def row_sums(carry, row):
    return 0.5 * carry + jnp.sum(row), carry + row


# Each takes 2 x 3 numbers, to an array of any shape.
MOVES = {
    # ------------------------------------------------------------------- elementwise
    "square": lambda x: x * x + x,
    "where": lambda x: jnp.where(x > 0.5, 2 * x, 0.3 - x),
    "where decided by another lane": lambda x: jnp.where(x[::-1] > 0.5, 2 * x, 0.3 - x),
    "where decided by one lane": lambda x: jnp.where(x[0, 0] > 0.5, 2 * x, x),
    "clip by one lane": lambda x: jnp.clip(x, 0.3 * x[1, 2], 0.8),
    "as integers": lambda x: (3 * x).astype(int) * 1.0,
    "stopped": lax.stop_gradient,
    "custom derivative": lambda x: jax.nn.relu(x - 0.2),
    # ------------------------------------------------------------------------ shapes
    "transpose": lambda x: x.T,
    "reshape": lambda x: x.reshape(3, 2),
    "flatten": lambda x: x.reshape(-1),
    "new axes": lambda x: x[None, :, None, :, None],
    "squeeze": lambda x: x[None, :, None, :].squeeze(),
    "broadcast": lambda x: jnp.broadcast_to(x, (2, 2, 3)),
    "outer sum": lambda x: x[:, :, None] + constant(2),
    "outer product with itself": lambda x: x[:, :, None] * x[:, None, :],
    "swap": lambda x: jnp.swapaxes(x[:, :, None], 0, 2),
    "tile": lambda x: jnp.tile(x, (2, 1)),
    "repeat": lambda x: jnp.repeat(x, 2, axis=0),
    # --------------------------------------------------------------------- reductions
    "sum of rows": lambda x: x.sum(1),
    "sum of columns": lambda x: x.sum(0),
    "less the mean": lambda x: x - x.mean(1, keepdims=True),
    "max": lambda x: x.max(0),
    "product": lambda x: jnp.prod(x + 0.5, 1),
    "argmax": lambda x: jnp.argmax(x + constant(2, 3) / 9, 1) * 1.0,
    "all": lambda x: jnp.all(x > 0, 0) * 1.0,
    "softmax": lambda x: jax.nn.softmax(x, 1),
    "logsumexp": lambda x: jax.nn.logsumexp(x, 0),
    "window": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1), (1, 1), "SAME"),
    # --------------------------------------------------------------------- cumulative
    "cumsum of rows": lambda x: jnp.cumsum(x, 1),
    "cumsum of columns": lambda x: jnp.cumsum(x, 0),
    "cumsum from the end": lambda x: lax.cumsum(x, 1, reverse=True),
    "cumsum there and back": lambda x: lax.cumsum(jnp.cumsum(x, 1), 1, reverse=True),
    "cumsum, reversed": lambda x: jnp.cumsum(x, 1)[:, ::-1],
    "cumsum, transposed": lambda x: jnp.cumsum(x, 1).T,
    "cumsum, one step late": lambda x: jnp.cumsum(x, 1)[:, :-1],
    "cumprod": lambda x: jnp.cumprod(x + 0.5, 0),
    "cummax": lambda x: lax.cummax(x, 1),
    "associative scan": lambda x: lax.associative_scan(jnp.add, x, axis=1),
    # --------------------------------------------------------------- slices and indices
    "reverse": lambda x: x[::-1],
    "roll": lambda x: jnp.roll(x, 1, 1),
    "slice": lambda x: x[:, 1:],
    "slice of the other axis": lambda x: x[1:],
    "stride": lambda x: x[:, ::2],
    "split": lambda x: jnp.split(x, [1], axis=1)[1],
    "concatenate": lambda x: jnp.concatenate([x, 2 * x[::-1]], 0),
    "stack": lambda x: jnp.stack([x, x[:, ::-1]], 2),
    "stack of columns": lambda x: jnp.stack([x, 2 * x], 0),
    "unstack rows": lambda x: jnp.unstack(x)[1],
    "unstack columns": lambda x: jnp.unstack(x, axis=1)[2],
    "pad": lambda x: jnp.pad(x, [(1, 0), (0, 0)]),
    "gather rows": lambda x: x[np.array([1, 0, 1])],
    "gather columns": lambda x: x[:, np.array([2, 0])],
    "gather by a lane": lambda x: jnp.asarray(x)[x[0, 0].astype(int)],
    "gather entries": lambda x: x[np.array([0, 1, 1]), np.array([2, 0, 1])],
    "take along": lambda x: jnp.take_along_axis(x, jnp.argsort(constant(2, 3), 1), 1),
    "a table's entries": lambda x: jnp.array([0.2, 1.5])[x.astype(int)],
    "a table's rows": lambda x: jnp.array(constant(2, 4))[x.astype(int)],
    "diagonal": lambda x: jnp.diagonal(x[:, :2]),
    "dynamic slice": lambda x: lax.dynamic_slice_in_dim(x, jnp.array(1), 2, 1),
    "dynamic slice at a lane": lambda x: lax.dynamic_slice_in_dim(x, x[0, 0].astype(int), 1, 0),
    "dynamic update": lambda x: lax.dynamic_update_slice_in_dim(x, 2 * x[:1], 1, 0),
    "set": lambda x: x.at[0].set(0.3 * x[1]),
    "add at": lambda x: x.at[jnp.array([0, 0])].add(x[:1]),
    "scale a column": lambda x: x.at[:, 0].mul(2.0),
    "segment sum": lambda x: jax.ops.segment_sum(x, np.array([0, 0]), 1),
    "sort": lambda x: jnp.sort(x + constant(2, 3), 1),
    "top k": lambda x: lax.top_k(x + constant(2, 3), 2)[0],
    # ------------------------------------------------------------------ linear algebra
    "times a matrix": lambda x: x @ constant(3, 2),
    "a matrix times": lambda x: constant(2, 2) @ x,
    "Gram matrix": lambda x: x @ x.T,
    "rowwise product": lambda x: jnp.einsum("ij,ij->i", x, x + 1),
    "batched product": lambda x: jnp.einsum("bi,bij->bj", x, constant(2, 3, 2)),
    "batched product, other side": lambda x: jnp.einsum("bij,bj->bi", constant(2, 2, 3), x),
    "cholesky": lambda x: jnp.linalg.cholesky(x[:, :, None] * x[:, None, :] + 2 * jnp.eye(3)),
    "solve": lambda x: jnp.linalg.solve(2 * jnp.eye(3) + 0.1 * x[:, :, None], x[:, :, None]),
    "Fourier": lambda x: jnp.abs(jnp.fft.fft(x, axis=1) + 0.1),
    "convolution": lambda x: jax.vmap(lambda r: jnp.convolve(r, constant(2)))(x),
    # ------------------------------------------------------------------ control flow
    "scan of rows": lambda x: lax.scan(row_sums, 0.0, x)[1],
    "scan in reverse": lambda x: lax.scan(decay, jnp.zeros(3), x, reverse=True)[1],
    "scan's last carry": lambda x: lax.scan(decay, jnp.zeros(3), x)[0],
    "scan of columns": lambda x: lax.scan(decay, jnp.zeros(2), x.T)[1],
    "scan of a cumsum": lambda x: lax.scan(decay, jnp.zeros(2), jnp.cumsum(x, 1).T)[1],
    "map": lambda x: lax.map(lambda r: jnp.exp(0.2 * r) + jnp.sum(r), x),
    "fori_loop": lambda x: lax.fori_loop(0, 2, lambda i, s: 0.5 * s + jnp.roll(s, 1), x),
    "while_loop": lambda x: lax.while_loop(
        lambda s: s[0] < 2, lambda s: (s[0] + 1, 1.2 * s[1] + s[1][::-1]), (0, x)
    )[1],
    "cond": lambda x: lax.cond(x[1, 2] > 0, lambda y: 2 * y, lambda y: y[::-1] + 1.0, x),
    "vmap": lambda x: jax.vmap(lambda row: jnp.sum(row) ** 2 + row)(x),
    "vmap of columns": lambda x: jax.vmap(jnp.cumsum, in_axes=1)(x),
    "checkpoint": lambda x: jax.checkpoint(lambda y: y * y.sum(1, keepdims=True))(x),
    "jit": lambda x: jax.jit(lambda y: y * y[:, :1])(x),
}


def cost(x, y, t):
    """Of the choice, what a move made of it, and theta: costs of single entries and of rows."""
    entries = jnp.sum(jnp.sin(y + constant(*y.shape)))
    scaled = t * jnp.sum(constant(*y.shape) * y)
    return entries + scaled + jnp.sum(jnp.sum(y, -1) ** 2) / 9 + jnp.sum(x[0] * x[1])


@pytest.mark.slow
def test_expectation_of_the_estimator_is_exact():
    moves = list(MOVES.values())

    def objective(outcome):
        theta = param("theta", jnp.full(len(moves), THETA))
        total = 0.0
        for t, move in zip(theta, moves, strict=True):
            x = given(t * LANES, outcome).astype(float)
            total += cost(x, move(x), t)
        return total

    def expectation(theta):
        total = 0.0
        for t, move in zip(theta, moves, strict=True):
            p = jnp.prod(jnp.where(OUTCOMES > 0, t * LANES, 1 - t * LANES), (1, 2))
            total += jnp.sum(p * jax.vmap(lambda x, t=t, m=move: cost(x, m(x), t))(OUTCOMES))
        return total

    est = compile(objective, num_samples=1)
    probabilities = np.prod(np.where(OUTCOMES > 0, THETA * LANES, 1 - THETA * LANES), (1, 2))

    @jax.jit
    def both(theta):
        grad = lambda x: est.grad(jax.random.key(0), {"theta": theta}, x)["theta"]
        return probabilities @ jax.vmap(grad)(OUTCOMES), jax.grad(expectation)(theta)

    theta = jnp.full(len(moves), THETA)
    estimated, exact = both.lower(theta).compile(QUICK)(theta)
    wrong = ~np.isclose(estimated, exact, rtol=2e-3, atol=2e-3)
    assert not wrong.any(), {
        m: (float(e), float(x))
        for m, e, x, w in zip(MOVES, estimated, exact, wrong, strict=True)
        if w
    }
