"""`sim` and `density`: values, scalars, full addresses."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError, ShapeError
from ppl.lang.density import density, sim
from ppl.lang.distributions.normal import normal
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.seed import seed
from ppl.lang.staged import stage

from .programs import everything, point, xs


def test_sim_and_density_agree(key):
    choices, log_q = seed(sim(everything))(key, xs)
    np.testing.assert_allclose(log_q, density(everything)(choices, xs), rtol=1e-5)
    assert log_q.shape == ()


def test_a_distribution_is_a_program(key):
    x, log_q = seed(sim(normal))(key, xs, 2.0)
    assert x.shape == (3,)
    np.testing.assert_allclose(log_q, density(normal)(x, xs, 2.0), rtol=1e-6)
    np.testing.assert_allclose(
        density(normal)(0.5, loc=0.0, scale=2.0), normal.logpdf(0.5, 0.0, 2.0)
    )


def test_addresses_start_with_the_programs_name():
    def addresses(fun, *args):
        return [eqn.params["address"] for eqn in stage(fun, *args).sites]

    assert addresses(sim(point), 0.0, 1.0) == ["point/z", "point/y"]
    assert addresses(sim(normal), 0.0, 1.0) == ["normal"]
    assert addresses(sim(plate(point)), xs, xs) == ["point/z", "point/y"]


def test_missing_unknown_and_doubled_addresses():
    with pytest.raises(AddressError, match="no value was given for the choice 'y'") as e:
        density(point)({"z": 0.0}, 0.0, 1.0)
    assert e.value.address == "point/y"
    with pytest.raises(AddressError, match="did you mean 'z'") as e:
        density(point)({"z": 0.0, "y": 0.0, "zz": 0.0}, 0.0, 1.0)
    assert e.value.address == "point/zz"

    @gen
    def twice():
        normal(0.0, 1.0) @ "x"
        normal(0.0, 1.0) @ "x"

    with pytest.raises(AddressError, match="used twice") as e:
        density(twice)({"x": 0.0})
    assert e.value.address == "twice/x"


def test_a_missing_choice_deep_inside_is_named():
    @gen
    def outer(x):
        point(x, 1.0) @ "inner"

    with pytest.raises(AddressError) as e:
        density(outer)({}, 0.0)
    assert e.value.address == "outer/inner/z"


def test_choices_of_the_wrong_kind():
    with pytest.raises(AddressError, match="a dictionary from address to value"):
        density(point)(jnp.zeros(2), 0.0, 1.0)
    with pytest.raises(ShapeError) as e:
        density(point)({"z": jnp.zeros(2), "y": 0.0}, 0.0, 1.0)
    assert e.value.address == "point/z"
