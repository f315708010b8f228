"""`cond` and `switch`: the union of the choices, the taken branch's density, safe gradients."""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError, ShapeError
from ppl.lang.branch import cond, switch
from ppl.lang.density import density
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.normal import normal
from ppl.lang.distributions.uniform import uniform
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.seed import seed
from ppl.lang.trace_type import trace_type

from .programs import one, two

either = cond(two, one)
CHOICES = {"z": jnp.array(0.3), "w": jnp.array(-1.0)}


@gen
def positive_only(scale):
    z = uniform(0.0, scale) @ "z"
    return normal(jnp.sqrt(z), scale) @ "y"


@gen
def anywhere(scale):
    z = normal(0.0, scale) @ "z"
    return normal(z, 1.0) @ "y"


def test_the_density_is_the_taken_branchs():
    np.testing.assert_allclose(
        density(either)(CHOICES, True, 0.5), density(two)(CHOICES, 0.5), rtol=1e-6
    )
    np.testing.assert_allclose(
        density(either)(CHOICES, False, 0.5), density(one)({"z": 0.3}, 0.5), rtol=1e-6
    )


def test_choices_are_the_union_with_the_taken_values(key):
    tr = seed(either.simulate)(key, False, 100.0)
    choices = tr.get_choices()
    assert set(choices) == {"z", "w"}
    assert choices["z"] < -50 < 50 < choices["w"]  # `one` draws around -100, `two` around 100
    np.testing.assert_allclose(tr.get_retval(), choices["z"])


@pytest.mark.parametrize("index, taken", [(0, 0), (1, 1), (2, 2), (-3, 0), (9, 2)])
def test_switch_clamps_its_index(index, taken):
    programs = (two, one, two)
    found = density(switch(*programs))(CHOICES, index, 0.5)
    own = CHOICES if taken != 1 else {"z": 0.3}
    np.testing.assert_allclose(found, density(programs[taken])(own, 0.5), rtol=1e-6)


def test_gradients_are_not_touched_by_the_branch_not_taken():
    # z = -1 is outside of the other branch's support, and its square root is NaN.
    choices = {"z": jnp.array(-1.0), "y": jnp.array(0.2)}

    def log_density(scale, z):
        return density(cond(anywhere, positive_only))(choices | {"z": z}, True, scale)

    def alone(scale, z):
        return density(anywhere)(choices | {"z": z}, scale)

    for run in (jax.grad, jax.jacfwd):
        found = run(log_density, argnums=(0, 1))(2.0, choices["z"])
        np.testing.assert_allclose(found, run(alone, argnums=(0, 1))(2.0, choices["z"]), rtol=1e-5)


def test_the_branch_not_taken_adds_no_gradient():
    grads = jax.grad(lambda m, flag: density(either)(CHOICES, flag, m))
    alone = jax.grad(lambda m: density(one)({"z": 0.3}, m))
    np.testing.assert_allclose(grads(0.5, False), alone(0.5), rtol=1e-5)


def test_update_keeps_the_visible_choices_when_the_branch_changes(key):
    def run():
        tr = either.simulate(True, 0.5)
        new, weight, discard = either.update(tr, None, False, 0.5)
        redrawn, _, _ = either.regenerate(tr, genjax.sel("w"), False, 0.5)
        return tr.get_choices(), new.get_choices(), redrawn.get_choices(), weight, discard

    old, new, redrawn, weight, discard = seed(run)(key)
    assert old == new == discard
    assert old["z"] == redrawn["z"]
    change = density(either)(new, False, 0.5) - density(either)(old, True, 0.5)
    np.testing.assert_allclose(weight, change, rtol=1e-5)


def test_branches_of_distributions():
    both = cond(normal, normal)
    np.testing.assert_allclose(density(both)(0.3, False, 1.0, 2.0), normal.logpdf(0.3, 1.0, 2.0))
    assert trace_type(both, True, 1.0, 2.0)[""].shape == ()


def test_branches_of_plates_agree_on_shape():
    rows = cond(normal.repeat(3), normal.repeat(3))
    value = jnp.arange(3.0)
    np.testing.assert_allclose(
        density(rows)(value, True, 0.0, 1.0), normal.logpdf(value, 0.0, 1.0), rtol=1e-6
    )


def test_nested_branches_and_lanes(key):
    @gen
    def inner(flag, x):
        return either(flag, x) @ "inner"

    nested = cond(inner, inner)
    lanes = plate(nested)
    flags = jnp.array([True, False, True])
    tr = seed(lanes.simulate)(key, flags, ~flags, jnp.arange(3.0))
    choices = tr.get_choices()["inner"]
    single = [
        density(nested)({"inner": {"z": z, "w": w}}, flag, ~flag, x)
        for z, w, flag, x in zip(choices["z"], choices["w"], flags, jnp.arange(3.0), strict=True)
    ]
    np.testing.assert_allclose(-tr.get_score(), sum(single), rtol=1e-5)


def test_shapes_must_agree():
    @gen
    def wide(m):
        return normal(m * jnp.ones(2), 1.0) @ "z"

    @gen
    def whole(m):
        return flip(0.5) @ "z"

    with pytest.raises(ShapeError, match=r"(?s)disagree about a choice.*address: z.*float32"):
        trace_type(cond(one, wide), True, 0.0)
    with pytest.raises(ShapeError, match="bool"):
        trace_type(cond(one, whole), True, 0.0)


def test_results_must_agree():
    @gen
    def silent(m):
        normal(m, 1.0) @ "z"

    with pytest.raises(ShapeError, match="return different things"):
        trace_type(cond(one, silent), True, 0.0)


def test_kinds_of_choices_must_agree():
    with pytest.raises(AddressError, match="different kinds of choices"):
        cond(one, normal)


def test_the_flag_must_be_a_scalar():
    with pytest.raises(ShapeError, match="flag must be a scalar"):
        trace_type(either, jnp.array([True, False]), 0.0)


def test_unknown_and_missing_addresses():
    with pytest.raises(AddressError, match="did you mean 'w'") as e:
        density(either)(CHOICES | {"ww": 1.0}, True, 0.0)
    assert e.value.address == "cond/ww"
    with pytest.raises(AddressError, match="no value was given for the choice 'w'"):
        density(either)({"z": 0.3}, True, 0.0)


def test_an_empty_switch_is_refused():
    with pytest.raises(ValueError, match="at least one program"):
        switch()
