"""`mask`: densities that count only where a flag is true, and never leak NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import ShapeError, UnsupportedError
from ppl.lang.density import density, sim
from ppl.lang.distributions.categorical import one_hot_categorical
from ppl.lang.distributions.dirichlet import dirichlet
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.gamma import gamma
from ppl.lang.distributions.normal import normal
from ppl.lang.distributions.uniform import uniform
from ppl.lang.factor import factor
from ppl.lang.mask import mask
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.seed import seed

from .programs import point, xs

FLAG = jnp.array([True, False, True])

# Each has values outside of its support, or NaN, where the flag is false.
MISSING = {
    "normal": (normal, jnp.array([0.1, jnp.nan, 0.3]), (jnp.ones(3), 2.0)),
    "gamma": (gamma, jnp.array([0.1, -1.0, 0.3]), (jnp.ones(3), 2.0)),
    "uniform": (uniform, jnp.array([0.1, jnp.nan, 0.3]), (jnp.zeros(3), 2.0)),
    "dirichlet": (
        dirichlet,
        jnp.array([[0.4, 0.6], [jnp.nan, 2.0], [0.5, 0.5]]),
        (jnp.ones((3, 2)),),
    ),
}


@pytest.mark.parametrize("name", list(MISSING))
def test_missing_values_reach_neither_value_nor_gradient(name):
    dist, x, params = MISSING[name]
    present = np.asarray(FLAG)

    def log_density(params, x):
        return density(dist.mask(FLAG))(x, *params)

    def of_present(params, x):
        rows = [p[present] if jnp.shape(p)[:1] == (3,) else p for p in params]
        return density(dist)(x[present], *rows)

    found, grads = jax.value_and_grad(log_density, argnums=(0, 1))(params, x)
    expected, wanted = jax.value_and_grad(of_present, argnums=(0, 1))(params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for grad, want in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(grad, np.nan_to_num(want), rtol=1e-4, atol=1e-6)


def test_discrete_values_are_masked_too():
    one_hot = jnp.array([[1, 0], [7, 7], [0, 1]])
    probs = jnp.array([[0.25, 0.75]] * 3)
    found = density(one_hot_categorical.mask(FLAG))(one_hot, probs=probs)
    np.testing.assert_allclose(found, np.log(0.25 * 0.75), rtol=1e-6)
    found = density(flip.mask(FLAG))(jnp.array([True, True, False]), 0.3 * jnp.ones(3))
    np.testing.assert_allclose(found, np.log(0.3 * 0.7), rtol=1e-6)


def test_choices_are_drawn_as_usual(key):
    x, log_q = seed(lambda: sim(normal.mask(FLAG))(5 + jnp.zeros(3), 1.0))(key)
    assert np.all(x > 0)
    np.testing.assert_allclose(log_q, normal.logpdf(x[jnp.array([0, 2])], 5.0, 1.0), rtol=1e-5)


def test_a_masked_program_masks_everything_inside():
    @gen
    def model(x, flag):
        mask(inner, flag)(x) @ "inner"
        return normal(x, 1.0) @ "y"

    @gen
    def inner(x):
        point(x, 1.0) @ "point"
        plate(normal, in_axes=(0, None))(xs, 1.0) @ "rows"
        factor(x) @ "factor"

    choices = {"inner": {"point": {"z": 0.1, "y": 0.2}, "rows": 2 * xs}, "y": 0.4}
    on, off = (density(model)(choices, 0.3, flag) for flag in (True, False))
    np.testing.assert_allclose(off, normal.logpdf(0.4, 0.3, 1.0), rtol=1e-6)
    np.testing.assert_allclose(on, off + density(inner)(choices["inner"], 0.3), rtol=1e-6)


def test_masks_multiply():
    both = normal.mask(FLAG).mask(jnp.array([True, True, False]))
    np.testing.assert_allclose(
        density(both)(xs, 0.0 * xs, 1.0), normal.logpdf(xs[0], 0.0, 1.0), rtol=1e-6
    )


def test_values_pass_through_a_mask():
    @gen
    def model():
        y = normal.mask(jnp.array([False, True]))(jnp.zeros(2), 1.0) @ "y"
        factor(y[0]) @ "reads_it"

    value = density(model)({"y": jnp.array([3.0, 0.0])})
    np.testing.assert_allclose(value, normal.logpdf(0.0, 0.0, 1.0) + 3.0, rtol=1e-6)


def test_a_flag_per_lane_of_a_plate():
    rows = plate(masked_row, in_axes=(0, 0))
    found = density(rows)({"y": jnp.array([0.1, jnp.nan, 0.3])}, FLAG, xs)
    expected = normal.logpdf(jnp.array([0.1, 0.3]), xs[jnp.array([0, 2])], 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@gen
def masked_row(flag, x):
    normal.mask(flag)(x, 1.0) @ "y"


def test_flags_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"flag's shape is \(3,\), the lanes are \(2,\)"):
        density(normal.mask(FLAG))(jnp.zeros(2), jnp.zeros(2), 1.0)
    with pytest.raises(ShapeError, match=r"flag's shape is \(2, 1\), the lanes are \(2,\)"):
        density(normal.mask(jnp.ones((2, 1))))(jnp.zeros(2), jnp.zeros(2), 1.0)
    with pytest.raises(ShapeError, match="must be a single boolean"):
        mask(plate(normal), FLAG)


def test_a_function_that_is_not_ours_is_refused():
    class Other:
        pass

    with pytest.raises(UnsupportedError, match="cannot follow a generative function of type Other"):
        mask(Other(), True)
