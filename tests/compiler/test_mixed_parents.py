"""Enumerated choices whose probabilities combine several lanes of another one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from ppl import flip, vi


def mean(fun):
    return float(vi.compile(fun, strategies={"*": "enum"}).value(jax.random.key(0), {}))


def test_a_parent_whose_lanes_are_combined_is_tabulated_jointly():
    def objective():
        u = flip.sample(jnp.full(2, 0.3))
        v = flip.sample(jnp.where(u[0] & u[1], 0.9, 0.1))
        return jnp.where(v, 1.0, 0.0)

    assert mean(objective) == pytest.approx(0.09 * 0.9 + 0.91 * 0.1, abs=1e-6)


def test_the_parents_of_a_joint_choice_are_joint():
    def objective():
        u = flip.sample(0.3 * jnp.ones(2))
        v = flip.sample(jnp.where(u, 0.9, 0.1))
        return jnp.where(v[0] & v[1], 1.0, 0.0)

    assert mean(objective) == pytest.approx((0.3 * 0.9 + 0.7 * 0.1) ** 2, abs=1e-6)
