"""`gen`: a program is a GenJAX function whose addresses are checked."""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError, KeyRequiredError, ShapeError
from ppl.lang.density import density
from ppl.lang.distributions.normal import normal
from ppl.lang.program import Program, gen
from ppl.lang.seed import seed

from .programs import point


def test_it_is_a_genjax_function():
    assert isinstance(point, genjax.Fn) and isinstance(point, Program)
    assert point.__name__ == "point"


def test_genjaxs_functions_are_converted_once_and_equal():
    @genjax.gen
    def inner(x):
        return normal(x, 1.0) @ "z"

    @gen
    def outer(x):
        return inner(x) @ "inner"

    trees = [jax.tree.structure(jax.eval_shape(lambda: outer.simulate(0.0))) for _ in range(2)]
    assert trees[0] == trees[1]
    np.testing.assert_allclose(
        density(outer)({"inner": {"z": 0.3}}, 0.0), normal.logpdf(0.3, 0.0, 1.0), rtol=1e-6
    )


def test_an_unknown_address_in_an_update_is_refused(key):
    tr = seed(point.simulate)(key, 0.0, 1.0)
    with pytest.raises(AddressError, match="has no choice 'q'"):
        point.update(tr, {"q": 1.0}, 0.0, 1.0)


def test_an_update_checks_shapes(key):
    tr = seed(point.simulate)(key, 0.0, 1.0)
    with pytest.raises(ShapeError) as e:
        point.update(tr, {"y": jnp.zeros(2)}, 0.0, 1.0)
    assert e.value.address == "y"


def test_an_update_may_name_nested_choices_only(key):
    @gen
    def outer(x):
        return point(x, 1.0) @ "inner"

    tr = seed(outer.simulate)(key, 0.0)
    new, _, _ = outer.update(tr, {"inner": {"y": 2.0}}, 0.0)
    assert new.get_choices()["inner"] == {"z": tr.get_choices()["inner"]["z"], "y": 2.0}


def test_a_draw_without_a_key_is_refused():
    with pytest.raises(KeyRequiredError) as e:
        point.simulate(0.0, 1.0)
    assert e.value.address == "z" and "seed(f)(key" in e.value.fix
    with pytest.raises(KeyRequiredError):
        jax.jit(lambda: point.simulate(0.0, 1.0).get_score())()


def test_control_flow_in_python(key):
    @gen
    def model(n):
        return sum(normal(float(i), 1.0) @ f"x{i}" for i in range(n))

    choices = seed(lambda: model.simulate(3).get_choices())(key)
    assert set(choices) == {"x0", "x1", "x2"}


def test_keyword_arguments_reach_the_program():
    @gen
    def model(x, *, scale=1.0):
        return normal(x, scale) @ "z"

    np.testing.assert_allclose(
        density(model)({"z": jnp.array(0.3)}, 0.0, scale=2.0), normal.logpdf(0.3, 0.0, 2.0)
    )
