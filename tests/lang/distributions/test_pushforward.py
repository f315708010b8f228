"""The factors of mean-field guides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl.lang import supports
from ppl.lang.distributions.pushforward import pushforward_normal
from ppl.lang.seed import seed

SUPPORTS = {
    "positive": (supports.positive, ()),
    "greater_than": (supports.greater_than(1.0), ()),
    "interval": (supports.interval(-1.0, 3.0), ()),
    "simplex": (supports.simplex, (3,)),
}


@pytest.mark.parametrize("name", list(SUPPORTS))
def test_made_while_one_program_is_traced_and_used_in_another(name, key):
    made = []

    @jax.jit
    def trace(x):
        made.append(pushforward_normal(*SUPPORTS[name]))
        return x

    trace(0.0)
    size = 2 if name == "simplex" else ()
    run = jax.jit(seed(lambda: made[0].sample(jnp.zeros(size), jnp.ones(size))))
    support = SUPPORTS[name][0]
    for k in jax.random.split(key, 3):  # the second run is another than the first, in JAX
        assert np.all(support.check(run(k)))


def test_of_positive_numbers_it_is_the_softplus_of_a_normal():
    x, loc, scale = 1.7, 0.4, 0.8
    at = np.log(np.expm1(x))
    expected = stats.norm.logpdf(at, loc, scale) - np.log1p(-np.exp(-x))
    found = pushforward_normal(supports.positive).logpdf(x, loc, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
