"""`scan`: steps, their number, and what a step must return."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError, ShapeError
from ppl.lang.density import density, sim
from ppl.lang.distributions.normal import normal
from ppl.lang.loop import scan
from ppl.lang.program import gen
from ppl.lang.seed import seed
from ppl.lang.trace_type import trace_type

from .programs import named, step, xs


def test_log_density_is_the_sum_over_steps():
    z = jnp.array([1.0, -1.0, 0.5])
    carries = [0.2, *z[:-1]]
    steps = [density(step)({"z": v}, c, x) for v, c, x in zip(z, carries, xs, strict=True)]
    total = density(scan(step))({"z": z}, 0.2, xs)
    np.testing.assert_allclose(total, sum(steps), rtol=1e-5)


def test_returns_the_last_carry_and_the_outs(key):
    tr = seed(scan(step).simulate)(key, 0.0, xs)
    carry, outs = tr.get_retval()
    z = tr.get_choices()["z"]
    np.testing.assert_allclose(carry, z[-1])
    np.testing.assert_allclose(outs, 2 * z)


def test_the_length_comes_from_xs_or_is_given():
    assert trace_type(scan(step), 0.0, {"a": xs}["a"])["z"].shape == (3,)
    assert trace_type(scan(named, length=5), 0.0, scale=1.0)["z"].shape == (5,)


def test_an_integer_start_becomes_a_float_carry():
    assert trace_type(scan(step), 0, xs)["z"].shape == (3,)


def test_addresses_have_no_index():
    @gen
    def model(xs):
        scan(step)(0.0, xs) @ "steps"

    assert list(trace_type(model, xs)) == ["steps/z"]
    with pytest.raises(AddressError) as e:
        density(model)({"steps": {"zz": xs}}, xs)
    assert e.value.address in ("model/steps/z", "model/steps/zz")


def test_wrong_lengths_are_refused():
    with pytest.raises(ShapeError, match="no length was given"):
        sim(scan(step))(0.0)
    with pytest.raises(ShapeError, match="length says 2, xs says 3"):
        sim(scan(step, length=2))(0.0, xs)
    with pytest.raises(ShapeError, match=r"xs\['a'\] says 3, xs\['b'\] says 2"):
        sim(scan(step))(0.0, {"a": xs, "b": xs[:2]})
    with pytest.raises(ShapeError, match="is a single number"):
        sim(scan(step))(0.0, 1.0)
    with pytest.raises(ShapeError, match=r"expected 3 entries in front, found shape \(2,\)"):
        density(scan(step))({"z": xs[:2]}, 0.0, xs)


def test_a_step_must_return_a_pair():
    @gen
    def walk(carry, x):
        return normal(carry, 1.0) @ "z"

    with pytest.raises(ShapeError, match="must return a pair"):
        sim(scan(walk))(0.0, xs)
