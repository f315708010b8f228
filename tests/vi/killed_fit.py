"""A fit with checkpoints, for a test to kill: `python -m tests.vi.killed_fit FOLDER`."""

from __future__ import annotations

import sys
import time

import jax
import jax.numpy as jnp
import optax

from ppl import gen, normal, plate, vi

N = 40


@gen
def point(x, slope):
    normal(slope * x, 1.0) @ "y"


@gen
def model(xs):
    slope = normal(0.0, 2.0) @ "slope"
    plate(point, in_axes=(0, None), total=N)(xs, slope) @ "points"


def run(folder, wait=0.0, steps=400, **options):
    """A fit by minibatches with a schedule, slowed down by `wait` seconds per checkpoint."""
    xs = jnp.linspace(-1, 1, N)
    ys = 2 * xs + jax.random.normal(jax.random.key(5), (N,))
    program = vi.elbo(model, observed={"points": {"y": ys}}, args=(xs,))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 400))
    checkpoint = None if folder is None else vi.Checkpoint(folder, every=20)
    return vi.fit(
        program,
        steps=steps,
        chunk=20,
        batch_size=8,
        optimizer=optimizer,
        checkpoint=checkpoint,
        callbacks=lambda report: time.sleep(wait),
        **options,
    )


if __name__ == "__main__":
    run(sys.argv[1], wait=0.2)
