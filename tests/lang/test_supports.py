"""Supports: examples inside, unions, and containment."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ppl.lang import supports as s

ALL = {
    "real": (s.real, ()),
    "positive": (s.positive, ()),
    "nonnegative": (s.nonnegative, ()),
    "unit_interval": (s.unit_interval, ()),
    "interval": (s.interval(2.0, 3.0), ()),
    "intervals": (s.interval(jnp.array([0.0, 2.0]), 3.0), ()),
    "greater_than": (s.greater_than(5.0), ()),
    "vector": (s.vector(s.positive), (3,)),
    "matrix": (s.real_matrix, (2, 3)),
    "simplex": (s.simplex, (4,)),
    "ordered": (s.ordered, (3,)),
    "positive_definite": (s.positive_definite, (3, 3)),
    "lower_cholesky": (s.lower_cholesky, (3, 3)),
    "correlation_cholesky": (s.correlation_cholesky, (3, 3)),
    "boolean": (s.boolean, ()),
    "integer_interval": (s.integer_interval(2, 5), ()),
    "nonnegative_integer": (s.nonnegative_integer, ()),
    "one_hot": (s.one_hot(4), (4,)),
}


@pytest.mark.parametrize("name", list(ALL))
def test_the_example_is_an_element(name):
    support, shape = ALL[name]
    example = support.example(shape)
    assert np.all(support.check(example))
    assert example.shape[example.ndim - len(shape) :] == shape


@pytest.mark.parametrize("name", ["real", "positive", "interval", "simplex", "vector"])
def test_an_example_without_a_point_comes_from_the_bijector(name):
    support, shape = ALL[name]
    bare = s.Support(support.name, support.event_ndims, False, support.check, support.bijector)
    example = bare.example(shape)
    assert example.shape == shape and np.all(support.check(example))


def test_containment():
    inside = [
        (s.positive, s.real),
        (s.unit_interval, s.nonnegative),
        (s.interval(0.0, 1.0), s.positive),
        (s.integer_interval(1, 3), s.integer_interval(0, 3)),
        (s.boolean, s.nonnegative_integer),
        (s.simplex, s.real_vector),
    ]
    for inner, outer in inside:
        assert s.is_within(inner, outer), (inner, outer)
        assert not s.is_within(outer, inner), (outer, inner)


def test_intervals_with_arrays_are_compared_by_value():
    narrow = s.interval(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0]))
    wide = s.interval(jnp.array([0.0, 0.0]), jnp.array([1.0, 3.0]))
    assert narrow.name == wide.name
    assert s.is_within(narrow, wide) and not s.is_within(wide, narrow)


def test_unions():
    assert s.union([s.positive, s.real]) is s.real
    both = s.union([s.integer_interval(0, 1), s.integer_interval(5, 6)])
    assert both.name == "integer_interval(0, 1) or integer_interval(5, 6)"
    np.testing.assert_array_equal(both.check(jnp.array([0, 3, 6])), [True, False, True])
    assert s.is_within(s.integer_interval(5, 5), both)
    assert not s.is_within(s.integer_interval(0, 6), both)
    assert s.is_within(both, s.nonnegative_integer)
    assert s.is_within(both, both)
