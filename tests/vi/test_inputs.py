"""What `vi.fit` refuses to run with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import gen, normal, poisson, vi
from ppl.errors import AddressError, DataError, ShapeError, SupportError
from ppl.lang.supports import positive, real
from ppl.vi._inputs import bind_data, check_key, start_params

INIT = {"loc": jnp.array(0.0), "scale": jnp.array(1.0)}
SUPPORTS = {"loc": real, "scale": positive}


def objective(xs, ys):
    raise AssertionError("not called")


def test_a_tuple_holds_all_arguments():
    assert bind_data(objective, (1.0, 2.0)) == (1.0, 2.0)
    assert bind_data(lambda ys: 0.0, {"a": 1.0}) == ({"a": 1.0},)
    assert bind_data(lambda *all: 0.0, (1.0, 2.0)) == (1.0, 2.0)


def test_the_number_of_arguments_is_checked():
    with pytest.raises(TypeError, match=r"objective takes \(xs, ys\), but data has 1 argument"):
        bind_data(objective, jnp.zeros(3))


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_nan_in_data_is_named_and_counted(array):
    good, bad = array([1.0, 2.0]), array([[1.0, np.nan], [np.nan, 0.0]])
    with pytest.raises(DataError, match="ys has 2 NaN in 4 values"):
        bind_data(objective, (good, bad))
    with pytest.raises(DataError, match=r"xs\['b'\] has 2 NaN"):
        bind_data(objective, ({"a": good, "b": bad}, good))
    with pytest.raises(DataError, match=r"all\[1\] has 2 NaN"):
        bind_data(lambda *all: 0.0, (good, bad))


def test_other_data_passes():
    data = ({"names": ["a"], "count": 3, "flag": np.array([True])}, np.array([np.inf, 1]))
    assert bind_data(objective, data) == data
    jax.jit(lambda x: bind_data(lambda ys: 0.0, x)[0])(jnp.nan)  # not known yet


@pytest.mark.parametrize(
    ("observed", "error"),
    [
        ({"ys": np.ones(3)}, AddressError),
        ({"y": np.ones(4)}, ShapeError),
        ({"y": np.array([1.0, np.nan, 0.0])}, DataError),
        ({"count": -1}, SupportError),
    ],
)
@pytest.mark.parametrize("guide", [None, vi.full_rank])
def test_objectives_check_data_without_a_guide_too(observed, error, guide):
    @gen
    def model(n):
        mean = normal(0.0, 1.0) @ "mean"
        normal(mean * jnp.ones(n), 1.0) @ "y"
        poisson(jnp.exp(mean)) @ "count"

    with pytest.raises(error) as found:
        vi.elbo(model, guide, observed=observed, args=(3,))
    assert found.value.address == next(iter(observed))


def test_keys_of_both_kinds():
    assert check_key(None) == jax.random.key(0)
    assert check_key(jax.random.PRNGKey(3)) == jax.random.key(3)
    with pytest.raises(TypeError, match="must be one random key"):
        check_key(jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"lok": 0.0}, AddressError, "did you mean 'loc'"),
        ({"loc": jnp.zeros(2)}, ShapeError, r"expected \(\), found \(2,\)"),
        ({"loc": [0.0]}, ShapeError, "another structure"),
        ({"scale": -1.0}, SupportError, r"outside of its support, positive"),
        ([0.0], TypeError, "a dictionary by name, not list"),
    ],
)
def test_start_values_must_fit(params, error, message):
    with pytest.raises(error, match=message):
        start_params(INIT, params, SUPPORTS)


def test_start_values_get_the_declared_types():
    params = start_params(INIT, {"scale": 2}, SUPPORTS)
    assert params["scale"].dtype == jnp.float32 and not params["scale"].weak_type
    assert params["loc"] is INIT["loc"]
