"""`check_guide`: a guide must fit its model, and the error must say where it does not."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ppl.errors import AddressError, DataError, ShapeError, SupportError
from ppl.lang.check_guide import check_guide
from ppl.lang.distributions.categorical import categorical
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.gamma import gamma
from ppl.lang.distributions.normal import normal
from ppl.lang.distributions.uniform import uniform
from ppl.lang.observed import masked
from ppl.lang.plate import plate
from ppl.lang.program import gen

XS = jnp.zeros(3)


@gen
def group(x):
    scale = gamma(2.0, 1.0) @ "scale"
    normal(x, scale) @ "y"


@gen
def model(xs):
    slope = normal(0.0, 1.0) @ "slope"
    k = categorical(jnp.zeros(4)) @ "k"
    plate(group)(slope * xs + k) @ "groups"


@gen
def lane(x):
    gamma(1.0, 1.0) @ "scale"


def guide_of(slope=normal, scale=gamma, k=lambda: categorical(jnp.zeros(4)), size=3, extra=None):
    """A guide for `model`, with one thing changed."""

    @gen
    def inner(x):
        scale(1.0, 1.0) @ "scale"

    @gen
    def guide(xs):
        if slope is not None:
            slope(0.0, 1.0) @ "slope"
        k() @ "k"
        plate(inner)(jnp.zeros(size)) @ "groups"
        if extra is not None:
            normal(0.0, 1.0) @ extra

    return guide


OBSERVED = {"groups": {"y": np.array([0.1, 0.2, 0.3], np.float32)}}


def test_a_guide_that_fits():
    model_type, guide_type = check_guide(model, guide_of(), OBSERVED, (XS,))
    assert set(model_type) - set(guide_type) == {"groups/y"}


def test_a_narrower_support_fits():
    check_guide(model, guide_of(slope=lambda a, b: uniform(a, b)), OBSERVED, (XS,))
    check_guide(model, guide_of(k=lambda: categorical(jnp.zeros(3))), OBSERVED, (XS,))


def test_data_observed_in_part_stays_a_choice():
    mask = np.array([True, False, True])
    partly = {"groups": {"y": masked(np.array([0.1, np.nan, 0.3]), mask)}}
    with pytest.raises(AddressError, match="misses a choice") as e:
        check_guide(model, guide_of(), partly, (XS,))
    assert e.value.address == "groups/y"


# what is wrong -> (guide, observed, error, address, in the message)
WRONG = {
    "guide misses a choice": (
        guide_of(slope=None), OBSERVED, AddressError, "slope", "model 'model' has normal",
    ),
    "guide has an unknown choice": (
        guide_of(extra="slop"), OBSERVED, AddressError, "slop", "did you mean 'slope'",
    ),
    "guide has an observed choice": (
        guide_of(), OBSERVED | {"slope": 0.0}, AddressError, "slope", "that is observed",
    ),
    "shape differs": (
        guide_of(size=2), OBSERVED, ShapeError, "groups/scale", r"gamma \(float\[3\]\).*\[2\]",
    ),
    "kind differs": (
        guide_of(slope=lambda *_: flip(0.5)), OBSERVED, ShapeError, "slope", r"flip \(bool\)",
    ),
    "support is wider": (
        guide_of(scale=normal), OBSERVED, SupportError, "groups/scale",
        "normal draws from real, but the model's gamma .* allows positive",
    ),
    "more categories": (
        guide_of(k=lambda: categorical(jnp.zeros(5))), OBSERVED, SupportError, "k",
        r"integer_interval\(0, 4\)",
    ),
    "observed address is unknown": (
        guide_of(), {"groups": {"yy": XS}}, AddressError, "groups/yy", "did you mean 'groups/y'",
    ),
    "observed shape differs": (
        guide_of(), {"groups": {"y": np.zeros(2)}}, ShapeError, "groups/y",
        r"expected \(3,\), found \(2,\)",
    ),
    "data is outside of the support": (
        guide_of(), OBSERVED | {"k": 4}, SupportError, "k", "1 of 1 values are not in it",
    ),
    "data is NaN": (
        guide_of(), {"groups": {"y": np.array([0.1, np.nan, 0.3])}}, DataError, "groups/y",
        r"the first at index \(1,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_a_guide_that_does_not_fit(name):
    guide, observed, kind, address, message = WRONG[name]
    with pytest.raises(kind, match=f"(?s){message}") as e:
        check_guide(model, guide, observed, (XS,))
    assert e.value.address == address and e.value.because and e.value.fix
    if kind is not DataError and "unknown" not in name:
        assert "test_check_guide.py" in (e.value.where or "test_check_guide.py")


def test_errors_point_at_the_users_line():
    with pytest.raises(SupportError) as e:
        check_guide(model, guide_of(scale=normal), OBSERVED, (XS,))
    assert "test_check_guide.py" in e.value.where and "test_check_guide.py" in e.value.because
