"""`plate`: lanes, sizes, shared arguments, subsampling."""

from __future__ import annotations

import equinox as eqx
import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import ShapeError
from ppl.lang.density import density, sim
from ppl.lang.distributions.normal import normal
from ppl.lang.observed import masked
from ppl.lang.plate import Plate, plate
from ppl.lang.program import gen
from ppl.lang.seed import seed
from ppl.lang.trace_type import trace_type

from .programs import point, step, xs


def test_lanes_draw_independently(key):
    draws = seed(lambda: sim(plate(normal, size=2000, in_axes=None))(1.0, 2.0)[0])(key)
    assert draws.shape == (2000,)
    assert abs(np.mean(draws) - 1.0) < 5.5 * 2 / np.sqrt(2000)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5.5 / np.sqrt(2000)


def test_log_density_is_the_sum_over_lanes():
    choices = {"z": xs, "y": xs**2}
    lanes = [density(point)({"z": z, "y": z**2}, 2 * z, 1.5) for z in xs]
    total = density(plate(point, in_axes=(0, None)))(choices, 2 * xs, 1.5)
    np.testing.assert_allclose(total, sum(lanes), rtol=1e-5)


def test_any_axis_and_nested_axes():
    @gen
    def row(args, offset):
        return normal(jnp.sum(args["a"]) + args["b"] + offset, 1.0) @ "y"

    rows = plate(row, in_axes=({"a": 1, "b": None}, 0))
    args = {"a": jnp.ones((2, 3)), "b": 1.0}
    assert trace_type(rows, args, jnp.zeros(3))["y"].shape == (3,)
    with pytest.raises(ShapeError, match=r"argument 0\['a'\] has 2 lanes, argument 1 has 3 lanes"):
        trace_type(plate(row, in_axes=({"a": 0, "b": None}, 0)), args, jnp.zeros(3))


def test_addresses_have_no_index():
    @gen
    def outer(xs):
        plate(plate(point, size=2, in_axes=None), in_axes=(0, None))(xs, 1.0) @ "rows"

    types = trace_type(outer, xs)
    assert {a: c.shape for a, c in types.items()} == {"rows/z": (3, 2), "rows/y": (3, 2)}


def test_total_scales_the_log_density(key):
    part, whole = plate(normal, total=30), plate(normal)
    np.testing.assert_allclose(
        density(part)(xs, 0 * xs, 1 + xs**2), 10 * density(whole)(xs, 0 * xs, 1 + xs**2), rtol=1e-5
    )
    x, log_q = seed(lambda: sim(part)(0 * xs, 1 + xs**2))(key)
    np.testing.assert_allclose(log_q, density(part)(x, 0 * xs, 1 + xs**2), rtol=1e-5)


def test_total_is_unbiased_over_uniform_subsamples():
    data = jnp.arange(6.0)
    whole = density(plate(normal, in_axes=(None, None), size=6))(data, 0.0, 1.0)
    part = plate(normal, in_axes=(None, None), size=2, total=6)
    pairs = [data[jnp.array([i, j])] for i in range(6) for j in range(i)]
    mean = np.mean([density(part)(pair, 0.0, 1.0) for pair in pairs])
    np.testing.assert_allclose(mean, whole, rtol=1e-5)


def test_a_network_as_shared_argument(key):
    net = eqx.nn.MLP(2, 1, 4, 1, key=key)  # has functions among its leaves

    @gen
    def decoder(x, net):
        @gen
        def head(net):
            return normal(net(x)[0], 1.0) @ "y"

        return head(net) @ "head"

    rows = plate(decoder, in_axes=(0, None))
    tr = seed(rows.simulate)(key, jnp.ones((5, 2)), net)
    assert tr.get_choices()["head"]["y"].shape == (5,)
    updated, weight, _ = seed(rows.update)(
        key, tr, {"head": {"y": jnp.zeros(5)}}, jnp.ones((5, 2)), net
    )
    np.testing.assert_allclose(weight, tr.get_score() - updated.get_score(), rtol=1e-5)


def test_data_observed_in_part_runs_along_the_lanes(key):
    data = jnp.array([0.5, jnp.nan, 2.0])
    rows = plate(normal, size=3, in_axes=None)
    tr, weight = seed(rows.generate)(key, masked(data, ~jnp.isnan(data)), 0.0, 1.0)
    np.testing.assert_allclose(tr.get_choices()[jnp.array([0, 2])], data[jnp.array([0, 2])])
    expected = density(plate(normal, size=2, in_axes=None))(jnp.array([0.5, 2.0]), 0.0, 1.0)
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_methods_of_programs_make_plates():
    assert isinstance(point.vmap(in_axes=(0, None)), Plate)
    assert trace_type(normal.repeat(4), 0.0, 1.0)[""].shape == (4,)


ERRORS = {
    "sizes of arguments differ": (
        lambda: plate(normal).simulate(jnp.zeros(3), jnp.ones(2)),
        "argument 0 has 3 lanes, argument 1 has 2 lanes",
    ),
    "size disagrees with an argument": (
        lambda: plate(normal, size=4, in_axes=(0, None)).simulate(jnp.zeros(3), 1.0),
        "size says 4 lanes, argument 0 has 3 lanes",
    ),
    "nothing is mapped": (
        lambda: plate(normal, in_axes=None).simulate(0.0, 1.0),
        "no argument is mapped and no size was given",
    ),
    "a number is mapped": (
        lambda: plate(normal).simulate(jnp.zeros(3), 1.0),
        "argument 1 has no axis 0 to map over",
    ),
    "too few axes": (
        lambda: plate(normal, in_axes=(0,)).simulate(jnp.zeros(3), 1.0),
        "in_axes must have one entry per positional argument",
    ),
    "a choice of another length": (
        lambda: plate(normal).assess(jnp.zeros(2), jnp.zeros(3), jnp.ones(3)),
        r"expected 3 entries in front, found shape \(2,\)",
    ),
    "a choice without lanes": (
        lambda: plate(point).assess({"z": jnp.zeros(3), "y": 0.0}, jnp.zeros(3), jnp.ones(3)),
        r"(?s)at address: y.*found shape \(\)",
    ),
    "a vector per lane": (
        lambda: plate(normal).assess(jnp.zeros((3, 2)), jnp.zeros(3), jnp.ones(3)),
        r"expected \(\), found \(2,\)",
    ),
}


@pytest.mark.parametrize("name", list(ERRORS))
def test_wrong_sizes_are_refused(name):
    run, message = ERRORS[name]
    with pytest.raises(ShapeError, match=message):
        jax.eval_shape(lambda: run() and None)


def test_errors_name_the_full_address():
    @gen
    def model(xs):
        plate(point)(xs, jnp.ones(2)) @ "rows"

    with pytest.raises(ShapeError) as e:
        sim(model)(xs)
    assert e.value.address == "model/rows"


def test_merge_and_filter_run_along_the_lanes():
    rows = plate(point)
    old, new = {"z": xs, "y": xs}, {"z": 2 * xs}
    merged, discarded = rows.merge(old, new)
    np.testing.assert_allclose(merged["z"], 2 * xs)
    np.testing.assert_allclose(discarded["z"], xs)
    merged, _ = rows.merge(old, {"z": 2 * xs, "y": -xs}, jnp.array([True, False, True]))
    np.testing.assert_allclose(merged["y"], xs * jnp.array([1, -1, 1]))
    selected, rest = rows.filter(old, genjax.sel("z"))
    assert set(selected) == {"z"} and set(rest) == {"y"}


def test_a_scan_in_a_plate_has_lanes_before_steps():
    from ppl.lang.loop import scan

    @gen
    def chain(x):
        return scan(step, length=2)(x, jnp.zeros(2)) @ "steps"

    assert trace_type(plate(chain), xs)["steps/z"].shape == (3, 2)
