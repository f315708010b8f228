"""`condition`, `masked` and `merge_choices`: observations and their checks."""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError, DataError, ShapeError, UnsupportedError
from ppl.lang.condition import condition
from ppl.lang.density import density, sim
from ppl.lang.distributions.dirichlet import dirichlet
from ppl.lang.distributions.normal import normal
from ppl.lang.observed import masked, merge_choices
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.seed import seed
from ppl.lang.trace_type import trace_type

from .programs import data, point, three, xs

partly = masked(data, ~np.isnan(data))


@gen
def nested(x):
    a = point(x, 1.0) @ "a"
    return plate(normal, in_axes=(0, None))(a + xs, 1.0) @ "rows"


def test_density_is_the_joint_one():
    given = condition(nested, {"a": {"y": 0.5}, "rows": xs})
    joint = density(nested)({"a": {"y": 0.5, "z": 0.1}, "rows": xs}, 0.3)
    np.testing.assert_allclose(density(given)({"a": {"z": 0.1}}, 0.3), joint, rtol=1e-6)


def test_simulate_draws_only_the_rest(key):
    given = condition(nested, {"a": {"y": 0.5}, "rows": xs})
    choices, log_p = seed(sim(given))(key, 0.3)
    assert list(choices) == ["a"] and list(choices["a"]) == ["z"]
    np.testing.assert_allclose(log_p, density(given)(choices, 0.3), rtol=1e-5)


def test_the_return_value_sees_the_observations(key):
    _, retval = condition(nested, {"rows": xs}).assess({"a": {"z": 0.0, "y": 0.0}}, 0.0)
    np.testing.assert_allclose(retval, xs)


def test_data_observed_in_part(key):
    given = condition(three, {"y": partly})
    y = jnp.array([9.0, 0.4, 9.0])  # the first and last are observed, and not looked at
    expected = normal.logpdf(jnp.array([0.3, 0.4, -0.2]), 0.1, 1.0)
    np.testing.assert_allclose(density(given)({"y": y}, 0.1), expected, rtol=1e-6)
    choices, _ = seed(sim(given))(key, 0.1)
    np.testing.assert_allclose(choices["y"][jnp.array([0, 2])], data[[0, 2]])
    assert np.isfinite(choices["y"][1])
    grad = jax.grad(lambda y: density(given)({"y": y}, 0.1))(y)
    np.testing.assert_allclose(grad, [0.0, -0.3, 0.0], atol=1e-6)


def test_update_of_data_observed_in_part_moves_the_rest_only(key):
    given = condition(three, {"y": partly})

    def run():
        tr = given.simulate(0.1)
        new, weight, _ = given.update(tr, {"y": jnp.full(3, 0.7)}, 0.1)
        return tr.get_score(), new.get_score(), weight, new.get_choices()["y"]

    old, new, weight, y = seed(run)(key)
    np.testing.assert_allclose(y, [0.3, 0.7, -0.2], rtol=1e-6)
    np.testing.assert_allclose(weight, old - new, rtol=1e-5)


def test_observed_choices_are_not_regenerated(key):
    given = condition(nested, {"a": {"y": 0.5}})

    def run():
        tr = given.simulate(0.3)
        new, _, _ = given.regenerate(tr, genjax.sel(()), 0.3)
        return tr._choices.get_choices()["a"], new._choices.get_choices()["a"]

    old, new = seed(run)(key)
    assert old["y"] == new["y"] == 0.5 and old["z"] != new["z"]


def test_regenerating_data_observed_in_part_is_refused():
    given = condition(three, {"y": partly})
    with pytest.raises(UnsupportedError, match="observed in part") as e:
        jax.eval_shape(lambda: given.regenerate(given.simulate(0.1), genjax.sel("y"), 0.1)[1])
    assert e.value.address == "y"


def test_a_distribution_itself(key):
    np.testing.assert_allclose(
        density(condition(normal, 0.4))({}, 0.1, 1.0), normal.logpdf(0.4, 0.1, 1.0)
    )

    @gen
    def model(x):
        z = normal(x, 1.0) @ "z"
        condition(normal, xs)(z * jnp.ones(3), 1.0) @ "y"

    choices, log_p = seed(sim(model))(key, 0.3)
    assert list(choices) == ["z"]
    np.testing.assert_allclose(log_p, density(model)(choices, 0.3), rtol=1e-5)


def test_unknown_addresses_are_refused():
    with pytest.raises(AddressError, match="did you mean 'rows'"):
        trace_type(condition(nested, {"row": xs}), 0.3)


def test_a_vector_observed_in_part_cannot_be_drawn():
    half = masked(jnp.array([0.4, 0.6]), jnp.array([True, False]))
    with pytest.raises(ShapeError, match="a vector is observed in part"):
        jax.eval_shape(lambda: sim(condition(dirichlet, half))(jnp.ones(2))[1])


# --------------------------------------------------------------------------- merge_choices


def test_merge_is_deep():
    merged = merge_choices({"a": {"z": 1.0}, "b": 2.0}, {"a": {"y": 3.0}, "c": {"d": 4.0}})
    assert merged == {"a": {"z": 1.0, "y": 3.0}, "b": 2.0, "c": {"d": 4.0}}


def test_merge_fills_data_observed_in_part():
    merged = merge_choices({"y": jnp.array([7.0, 8.0, 9.0])}, {"y": partly})
    np.testing.assert_allclose(merged["y"], [0.3, 8.0, -0.2])
    rows = masked(np.ones((2, 3)), np.array([True, False]))
    merged = merge_choices({"y": jnp.zeros((2, 3))}, {"y": rows})
    np.testing.assert_allclose(merged["y"], [[1, 1, 1], [0, 0, 0]])


def test_merge_refuses_what_contradicts():
    with pytest.raises(AddressError, match="both observed and given") as e:
        merge_choices({"a": {"z": 1.0}}, {"a": {"z": 2.0}})
    assert e.value.address == "a/z"
    with pytest.raises(AddressError, match="no value was given for the unobserved entries") as e:
        merge_choices({}, {"y": partly})
    assert e.value.address == "y"
    with pytest.raises(AddressError, match="have a dictionary"):
        merge_choices({"a": 1.0}, {"a": {"y": 2.0}})
    with pytest.raises(ShapeError, match=r"expected \(3,\), found \(2,\)"):
        merge_choices({"y": jnp.zeros(2)}, {"y": partly})


def test_density_refuses_data_that_is_not_completed():
    with pytest.raises(AddressError, match="must be completed first") as e:
        density(three)({"y": partly}, 0.1)
    assert e.value.address == "three/y"


def test_nan_in_the_data_is_refused():
    with pytest.raises(DataError, match=r"1 of 3 entries are NaN, the first at index \(1,\)") as e:
        merge_choices({}, {"layer": {"y": data}})
    assert e.value.address == "layer/y" and "masked(" in e.value.fix
    with pytest.raises(DataError, match="leave those entries out of the mask"):
        condition(three, {"y": masked(data, np.array([True, True, False]))})


def test_traced_data_is_not_looked_at():
    out = jax.jit(lambda y: density(three)(merge_choices({}, {"y": y}), 0.1))(data)
    assert np.isnan(out)


def test_masks_must_fit():
    with pytest.raises(ShapeError, match="float32 of shape"):
        masked(data, np.ones(3, np.float32))
    with pytest.raises(ShapeError, match=r"bool of shape \(2,\)"):
        masked(data, np.ones(2, bool))


def test_lists_are_data_too():
    merged = merge_choices({}, {"y": [0.1, 0.2, 0.3]})
    np.testing.assert_allclose(density(three)(merged, 0.0), normal.logpdf(merged["y"], 0.0, 1.0))
