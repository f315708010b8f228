"""What a `Fit` answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.compiler.estimator import compile
from ppl.compiler.objective import Objective
from ppl.errors import UnsupportedError
from ppl.lang.distributions.normal import normal
from ppl.lang.param import param
from ppl.lang.program import gen
from ppl.vi.fit import fit
from ppl.vi.result import Estimate, Fit
from tests.vi.programs import LOG_EVIDENCE, POSTERIOR, YS, bound, conjugate


@pytest.fixture(scope="module")
def result():
    """As if fitted: the exact posterior."""
    loc, scale = map(jnp.array, POSTERIOR)
    params = {"loc": loc, "scale": scale}
    losses = np.array([5.0, 4.0, 4.1], np.float32)
    return Fit(params, losses, compile(conjugate), conjugate, (YS,), jax.random.key(1))


def test_sample_draws_from_the_fitted_guide(result):
    draws = result.sample(20_000)["z"]
    assert draws.shape == (20_000,)
    np.testing.assert_allclose([draws.mean(), draws.std()], POSTERIOR, atol=0.02)
    np.testing.assert_array_equal(draws, result.sample(20_000)["z"])
    other = result.sample(20_000, jax.random.key(5))["z"]
    assert not np.any(draws == other)


def test_guides_with_arguments_and_nested_programs():
    @gen
    def inner(x):
        return normal(param("shift", jnp.zeros(2)) + x, 1e-3) @ "w"

    @gen
    def outer(x):
        inner(x) @ "inner"

    objective = Objective(
        lambda: -jnp.sum(param("shift", jnp.zeros(2)) ** 2), "o", (), outer, (3.0,)
    )
    fitted = fit(objective, steps=1, params={"shift": jnp.array([0.0, 4.0])})
    draws = fitted.sample(10)["inner"]["w"]
    np.testing.assert_allclose(draws, np.broadcast_to([3.0, 7.0], (10, 2)), atol=0.05)
    names = [row.address for row in fitted.summary(10).rows]
    assert names == ["inner/w[0]", "inner/w[1]"]


def test_summary_has_the_posterior(result):
    (row,) = result.summary(20_000).rows
    np.testing.assert_allclose([row.mean, row.sd], POSTERIOR, atol=0.02)
    assert row.address == "z" and "z" in str(result.summary(10))


def test_the_bound_is_tight_at_the_posterior(result):
    estimate = result.elbo(100)
    np.testing.assert_allclose(estimate.mean, LOG_EVIDENCE, atol=1e-4)
    assert estimate.standard_error < 1e-5
    assert str(Estimate(-3.9655, 0.0123)) == "-3.9655 ± 0.012"
    with pytest.raises(ValueError, match="needs n >= 2"):
        result.elbo(1)


def test_the_bound_of_other_data(result):
    other = np.array([2.0, 0.0, 1.0], np.float32)
    loc, scale = POSTERIOR
    squares = loc**2 + np.sum((other - loc) ** 2) + 4 * scale**2
    entropy = 0.5 * np.log(2 * np.pi * np.e * scale**2)
    exact = -0.5 * squares - 2 * np.log(2 * np.pi) + entropy
    estimate = result.elbo(1_001, data=other)
    assert 0 < estimate.standard_error < 0.05
    assert abs(estimate.mean - exact) < 5 * estimate.standard_error


@pytest.mark.parametrize("n", [2, 64, 65])
def test_every_number_of_estimates(result, n):
    np.testing.assert_allclose(result.elbo(n).mean, LOG_EVIDENCE, atol=1e-4)


def test_it_says_what_it_is(result):
    assert repr(result) == "<Fit: 3 steps, loss 4.1, params loc, scale>"
    assert result.steps == 3
    assert "guide/z" in str(result.explain())


def test_losses_are_plotted(result):
    figure = pytest.importorskip("matplotlib.figure")
    ax = result.plot_loss(figure.Figure().add_subplot())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), result.losses)


def test_without_a_guide_there_is_nothing_to_draw(result):
    without = Fit(result.params, result.losses, result.estimator, Objective(bound, "my bound"))
    with pytest.raises(UnsupportedError, match="my bound has no guide to draw from"):
        without.sample(3)
