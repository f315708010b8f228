"""Eight schools: a hierarchical model fitted with a guide made from it.

Coaching effects in eight schools, each known up to a standard error (Rubin 1981). The effects are
written as `mean + spread * deviation`, so that a guide of independent factors can follow them.
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import optax

from examples._report import run_as_script
from ppl import gen, half_cauchy, normal, vi
from stdlib.report import OUTPUTS, console

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@gen
def model(errors):
    mean = normal(0.0, 5.0) @ "mean"
    spread = half_cauchy(0.0, 5.0) @ "spread"
    deviation = normal.repeat(len(errors))(0.0, 1.0) @ "deviation"
    normal(mean + spread * deviation, errors) @ "effect"


def main(quick: bool = False, folder: Path = OUTPUTS) -> vi.Fit:
    """Fit the mean-field guide, and print its summary."""
    del folder
    steps = 1_000 if quick else 5_000
    program = vi.elbo(model, observed={"effect": EFFECTS}, args=(ERRORS,))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    fit = vi.fit(program, steps=steps, num_samples=8, optimizer=optimizer)
    console.print(fit.summary(10_000))
    console.print(f"ELBO: {fit.elbo(10_000)} nats")
    return fit


if __name__ == "__main__":
    run_as_script(main, __doc__)
