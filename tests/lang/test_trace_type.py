"""Trace types: addresses, shapes, kinds and supports, found without running."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import UnsupportedError
from ppl.lang.branch import cond
from ppl.lang.condition import condition
from ppl.lang.distributions.categorical import categorical
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.gamma import gamma
from ppl.lang.distributions.normal import normal
from ppl.lang.distributions.uniform import uniform
from ppl.lang.loop import scan
from ppl.lang.observed import masked
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.supports import boolean, real
from ppl.lang.trace_type import trace_type

from .programs import everything, one, step, xs


def test_a_whole_program():
    types = trace_type(everything, xs)
    assert {a: (c.shape, c.kind, c.support) for a, c in types.items()} == {
        "points/z": ((3,), "float", real),
        "points/y": ((3,), "float", real),
        "steps/z": ((3,), "float", real),
        "f": ((), "bool", boolean),
        "either/z": ((), "float", real),
        "either/w": ((), "float", real),
        "m": ((3,), "float", real),
    }
    assert list(types) == ["points/z", "points/y", "steps/z", "f", "either/z", "either/w", "m"]


def test_only_shapes_of_the_arguments_matter():
    abstract = jax.ShapeDtypeStruct((5,), jnp.float32)
    assert trace_type(plate(normal, in_axes=(0, None)), abstract, 1.0)[""].shape == (5,)


def test_numbers_among_the_arguments_are_static():
    @gen
    def model(n, name):
        assert name == "any"
        normal.repeat(n)(0.0, 1.0) @ "x"

    assert trace_type(model, 4, "any")["x"].shape == (4,)


def test_bounds_are_those_known_when_the_program_is_built():
    @gen
    def model(high, logits):
        uniform(0.0, 2.0) @ "known"
        uniform(0.0, high) @ "half"
        categorical(logits) @ "k"

    types = trace_type(model, jnp.array(3.0), jnp.zeros(4))
    assert types["known"].support.bounds == (0, 2) and types["known"].can_check
    assert types["half"].support.bounds == (0, None) and not types["half"].can_check
    assert types["half"].support.name == "interval(0, ?)"
    assert types["k"].support.bounds == (0, 3)


def test_branches_have_the_union_of_supports():
    @gen
    def positive(m):
        return gamma(2.0, 1.0) @ "z"

    types = trace_type(cond(one, positive), True, 0.5)
    assert types["z"].support is real and types["z"].distribution == "normal/gamma"


def test_observed_choices_are_not_there():
    data = np.array([0.1, np.nan, 0.3])
    given = condition(everything, {"f": True, "m": masked(data, ~np.isnan(data))})
    assert set(trace_type(everything, xs)) - set(trace_type(given, xs)) == {"f"}


def test_it_prints_as_a_table():
    text = str(trace_type(scan(step), 0.0, xs))
    assert text.splitlines() == [
        "trace type of step",
        "  address  shape  dtype    support  distribution",
        "  z        3      float32  real     normal",
    ]


def test_lines_point_at_the_program():
    types = trace_type(one, 0.0)
    assert "programs.py" in types["z"].where


def test_what_cannot_be_followed_is_refused():
    @gen
    def model():
        return jax.lax.while_loop(lambda x: x < 1, lambda x: x + normal.sample(0.0, 1.0), 0.0)

    with pytest.raises(UnsupportedError, match="done"):
        trace_type(model)


def test_a_distribution_has_no_address():
    assert list(trace_type(flip, 0.5)) == [""]
