"""Random programs: the compiled value and gradient against the sum over all outcomes.

With planned strategies nearly all of a program is enumerated and must be exact. With score choices
the gradient is z-tested with 3,000 draws, |z| < 5.5 (false-alarm rate 4e-8 per program), which
catches what is grossly wrong; small biases are for `test_structures.py`.
"""

from __future__ import annotations

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.compiler import compile
from ppl.compiler.plan import CannotEnumerate
from ppl.compiler.strategies import Spa
from ppl.lang.param import param

from .exact import Z_BOUND
from .random_programs import Generator, JaxWorld, exact

THETA = 0.3
DRAWS = 3_000
ALTERNATIVES = ["mvd", "disarm", "arms", "unordered_set", "spa", Spa(prune=True)]
MODES = {
    "planned": [None],
    "mixed": ["score", "enum", None],
    "score": ["score"],
    "worlds": [*ALTERNATIVES, "score", "enum", None],
}
SEEDS = {"planned": 12, "mixed": 12, "score": 12, "worlds": 8}


def z_score(draws: np.ndarray, reference: float) -> float:
    """|z| of the mean, 0 if it is exact to float32 (the reference is good to about 1e-6)."""
    scale = max(1.0, abs(reference))
    error = abs(draws.mean() - reference)
    if error < 5e-4 * scale:
        return 0.0
    stderr = draws.std() / np.sqrt(len(draws))
    return error / stderr if stderr > 0 else np.inf


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "seed"), [(m, s) for m, n in SEEDS.items() for s in range(n)])
def test_random_program(mode, seed):
    program = Generator(random.Random(f"{mode}/{seed}"), MODES[mode]).program()
    value, grad = exact(program, THETA)

    def objective():
        return jnp.float32(program.run(JaxWorld(param("theta", THETA)), {}))

    est = compile(objective)
    try:
        params = est.init(jax.random.key(0)) or {"theta": jnp.float32(THETA)}
        keys = jax.random.split(jax.random.key(seed), DRAWS)
        values, grads = jax.jit(jax.vmap(lambda k: est.value_and_grad(k, params)))(keys)
    except CannotEnumerate:
        assert mode in ("mixed", "worlds"), "only an enumeration that was asked for may be refused"
        return
    assert z_score(np.asarray(values, np.float64), value) < Z_BOUND, program
    assert z_score(np.asarray(grads["theta"], np.float64), grad) < Z_BOUND, program
