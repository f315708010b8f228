"""`factor`: weights without choices."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError
from ppl.lang.density import density, sim
from ppl.lang.distributions.normal import normal
from ppl.lang.factor import factor
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.seed import seed

from .programs import only_a_factor, weighted, xs


@gen
def outer(x):
    z = weighted(x) @ "inner"
    only_a_factor(z) @ "nothing"
    plate(only_a_factor)(xs) @ "nothings"


def test_it_adds_to_the_density():
    expected = normal.logpdf(0.5, 0.3, 1.0) - 0.5**2
    np.testing.assert_allclose(density(weighted)({"z": 0.5}, 0.3), expected, rtol=1e-6)
    total = expected + 0.5 + jnp.sum(xs)
    np.testing.assert_allclose(density(outer)({"inner": {"z": 0.5}}, 0.3), total, rtol=1e-6)


def test_it_has_no_address_among_the_choices(key):
    choices, log_q = seed(sim(outer))(key, 0.3)
    assert set(choices) == {"inner"} and set(choices["inner"]) == {"z"}
    np.testing.assert_allclose(log_q, density(outer)(choices, 0.3), rtol=1e-5)


def test_an_empty_entry_is_accepted():
    given = {"inner": {"z": 0.5, "penalty": {}}, "nothing": {}}
    np.testing.assert_allclose(
        density(outer)(given, 0.3), density(outer)({"inner": {"z": 0.5}}, 0.3)
    )


def test_it_weighs_even_if_nothing_is_given(key):
    _, weight = seed(only_a_factor.generate)(key, None, 0.7)
    np.testing.assert_allclose(weight, 0.7)


def test_an_array_counts_with_its_sum():
    @gen
    def model():
        factor(xs) @ "f"

    np.testing.assert_allclose(density(model)({}), jnp.sum(xs))


def test_a_value_for_it_is_refused():
    with pytest.raises(AddressError) as e:
        density(weighted)({"z": 0.5, "penalty": 1.0}, 0.3)
    assert e.value.address == "weighted/penalty"
