"""A conjugate model whose posterior is known, for tests of `vi.fit`."""

from __future__ import annotations

import jax.numpy as jnp

from ppl.compiler.objective import Objective
from ppl.lang.density import density, sim
from ppl.lang.distributions.normal import normal
from ppl.lang.param import param
from ppl.lang.program import gen
from ppl.lang.supports import positive

YS = jnp.array([1.0, 2.0, 1.5])
POSTERIOR = 1.125, 0.5
"""Mean and standard deviation of `z` given `YS`."""

LOG_EVIDENCE = -4.5437
"""log p(YS)."""


@gen
def model():
    z = normal(0.0, 1.0) @ "z"
    normal(jnp.broadcast_to(z, (3,)), 1.0) @ "ys"


@gen
def guide():
    normal(param("loc", 0.0), param("scale", 1.0, support=positive)) @ "z"


def bound(ys):
    z, log_q = sim(guide)()
    return density(model)(z | {"ys": ys}) - log_q


conjugate = Objective(bound, "bound", (YS,), guide)
