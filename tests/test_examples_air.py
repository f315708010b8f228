"""Attend, infer, repeat, and the cost of a gradient: `examples/programmable_vi`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.programmable_vi import air, overhead, scenes
from ppl import vi

# ------------------------------------------------------------------------------------ scenes


def test_cutting_undoes_pasting():
    """Up to what bilinear interpolation blurs, for a smooth image."""
    at = jnp.arange(scenes.DIGIT) - 3.5
    image = jnp.exp(-(at[:, None] ** 2 + (at - 1) ** 2) / 8)
    where = jnp.array([8.0, 6.5, 9.5])  # a whole pixel of the canvas per pixel of the window
    canvas = scenes.paste(image, where)
    np.testing.assert_allclose(scenes.cut(canvas, where), image, atol=1e-6)
    np.testing.assert_allclose(canvas[3:11, 6:14], image, atol=1e-6)
    off = scenes.cut(scenes.paste(image, where + 0.3), where + 0.3)
    np.testing.assert_allclose(off, image, atol=0.12)


@pytest.mark.parametrize("size", [6.0, 7.3, 8.0])
def test_a_window_of_ones_covers_its_area(size):
    canvas = scenes.paste(jnp.ones((8, 8)), jnp.array([size, 7.2, 7.9]))
    assert abs(float(canvas.sum()) / size**2 - 1) < 0.04
    assert abs(float(canvas[7, 8]) - 1) < 0.05


def test_scenes_have_as_many_digits_as_they_say():
    made = scenes.make(300)
    ink = made.images.sum((1, 2))
    assert np.all((ink > 0) == (made.counts > 0))
    assert 1.7 < ink[made.counts == 2].mean() / ink[made.counts == 1].mean() < 2.3
    assert np.all(np.bincount(made.counts, minlength=3) > 60)
    assert made.images.min() >= 0 and made.images.max() <= 1
    assert not np.array_equal(made.images[:50], scenes.make(50, held_out=True).images)


# -------------------------------------------------------------------------------------- AIR


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    result = air.main(quick=True, folder=folder)
    assert (folder / "air.png").stat().st_size > 10_000
    assert (folder / "air_scenes.png").stat().st_size > 5_000
    return result


def test_it_learns_to_count(result):
    (run,) = result.runs
    assert run.accuracy[-1] > 0.9
    assert run.elbo[-1] > run.elbo[0] + 5
    assert np.all(np.diff(run.seconds) > 0) and run.seconds[0] > 0


def test_the_windows_hold_the_ink(result):
    """Erasing the windows that the guide found leaves little of held-out scenes."""
    (run,) = result.runs
    images = result.held_out.images
    reading = air.read_canvases(run.fit.params, jax.random.key(7), images)
    covered = jax.vmap(jax.vmap(lambda w: scenes.paste(jnp.ones((8, 8)), w)))(reading.windows)
    left = images * np.prod(1 - np.asarray(covered) * np.asarray(reading.there)[..., None, None], 1)
    assert left.sum() < 0.15 * images.sum()


@pytest.mark.parametrize("method", air.METHODS, ids=lambda method: method.name)
def test_every_method_has_the_strategies_it_says(method):
    estimator = vi.compile(
        method.objective, strategies=method.strategies, num_samples=method.samples
    )
    choices = estimator.explain(jnp.zeros((2, scenes.CANVAS, scenes.CANVAS))).choices
    found = {c.address.removeprefix("guide/"): c.strategy for c in choices}
    expected = {
        "enum": ["enum"] * 3,
        "mvd": ["mvd"] * 3,
        "mvd, mvd, enum": ["mvd", "mvd", "enum"],
    }
    flips = expected.get(method.name.partition(", ")[2], ["score"] * 3)
    assert [found.pop(f"more{i}") for i in range(air.LOOKS)] == flips
    frozen = method.name.startswith("RWS")  # the guide's draws are then only looked at
    assert set(found.values()) == {"drawn" if frozen else "reparam"}


# --------------------------------------------------------------------------------- overhead


def test_the_overhead_is_measured():
    result = overhead.main(quick=True)
    assert list(result.times) == [64] and 0 < result.ratio(64) < np.inf
