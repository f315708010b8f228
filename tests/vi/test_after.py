"""What can be asked of a fit: weights, predictions, signals, comparisons, other tools, files."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from ppl import exponential, flip, gen, normal, param, vi
from ppl.errors import CheckpointError, PplError, UnsupportedError
from ppl.vi.diagnostics import smooth_weights

YS = jnp.array([1.0, 2.0, 1.5])
MEAN, SD = 1.125, 0.5  # of z given YS


@gen
def model(xs):
    z = normal(0.0, 1.0) @ "z"
    normal(z * xs, 1.0) @ "ys"


ARGS = (jnp.ones(3),)


@pytest.fixture(scope="module")
def program():
    return vi.elbo(model, observed={"ys": YS}, args=ARGS)


@pytest.fixture(scope="module")
def fit(program):
    return vi.fit(program, steps=40, snapshots=4)


def at(fit, loc, scale):
    """The fit with other parameters."""
    return dataclasses.replace(fit, params={"z.loc": jnp.array(loc), "z.scale": jnp.array(scale)})


def test_weights_of_the_posterior_itself(fit):
    exact = at(fit, MEAN, SD).importance(500)
    assert exact.khat < 0.5 and exact.effective > 499
    assert "good" in str(exact)


def test_weights_correct_a_guide_that_is_off(fit):
    """Off by half a standard deviation, and too wide: the weighted moments are exact again."""
    guide = at(fit, MEAN + 0.25, 0.6)
    found = guide.importance(4_000)
    assert found.khat < 0.7
    np.testing.assert_allclose(found.weights.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.mean()["z"], MEAN, atol=0.05)
    np.testing.assert_allclose(found.sd()["z"], SD, atol=0.04)
    np.testing.assert_allclose(found.expectation(lambda z: z["z"] ** 2), MEAN**2 + SD**2, atol=0.1)
    (row,) = found.summary().rows
    np.testing.assert_allclose([row.mean, row.median], MEAN, atol=0.06)
    again = found.resample(4_000, jax.random.key(2))["z"]
    np.testing.assert_allclose(again.mean(), MEAN, atol=0.06)


def test_a_narrow_guide_is_found_out(fit):
    assert at(fit, MEAN, 0.1).khat(2_000) > 0.7


def test_smoothing():
    rng = np.random.default_rng(0)
    log_weights = rng.normal(size=2_000)
    smoothed, khat = smooth_weights(log_weights)
    assert 0 < khat < 0.7
    raw = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    np.testing.assert_allclose(np.exp(smoothed), raw, rtol=0.3)
    alike, khat = smooth_weights(np.ones(10))
    assert khat == -math.inf
    np.testing.assert_allclose(np.exp(alike), 0.1)


def test_predictive_draws(fit):
    draws = at(fit, MEAN, SD).predictive(4_000)["ys"]
    assert draws.shape == (4_000, 3)
    np.testing.assert_allclose(draws.mean(0), MEAN, atol=0.1)
    np.testing.assert_allclose(draws.var(0), SD**2 + 1, rtol=0.1)
    new = at(fit, MEAN, SD).predictive(1_000, args=(jnp.array([0.0, 2.0]),))["ys"]
    assert new.shape == (1_000, 2)
    np.testing.assert_allclose(new.mean(0), [0.0, 2 * MEAN], atol=0.25)


def test_the_signal_of_gradients(fit):
    """At the optimum the gradient is noise; away from it, in loc, its mean is known."""
    near = at(fit, MEAN, SD).gradient_signal(400)
    assert near["z.loc"].ratio < 0.2
    far = at(fit, MEAN + 1, SD).gradient_signal(400)
    np.testing.assert_allclose(far["z.loc"].mean, -4.0, rtol=0.05)
    assert far["z.loc"].ratio > 1 and "Signal(ratio=" in repr(far["z.loc"])
    with pytest.raises(ValueError, match="needs n >= 2"):
        fit.gradient_signal(1)


def test_fits_are_compared(fit):
    table = vi.compare_fits({"off": at(fit, MEAN + 0.5, SD), "right": at(fit, MEAN, SD)}, n=500)
    assert [row[0] for row in table.rows] == ["right", "off"]
    best, other = table.rows
    np.testing.assert_allclose(best[1], -4.5437, atol=1e-3)
    np.testing.assert_allclose(other[3], -0.5, atol=0.2)  # KL = 4 * 0.5^2 / 2
    assert "k-hat" in str(table)


def test_draws_in_batches(fit):
    np.testing.assert_allclose(fit.sample(10, batch_size=3)["z"], fit.sample(10)["z"], rtol=1e-6)


def test_nuts_agrees_with_the_posterior():
    @gen
    def positive():
        rate = exponential(1.0) @ "rate"
        normal(jnp.broadcast_to(rate, (3,)), 1.0) @ "ys"

    fit = vi.fit(vi.elbo(positive, observed={"ys": YS}), steps=200)
    chains = fit.refine_mcmc(num_warmup=200, num_samples=400, chains=2)
    draws = chains.merged["rate"]
    grid = np.linspace(1e-3, 6, 4_000)
    log_p = -grid - 0.5 * ((grid[:, None] - np.asarray(YS)) ** 2).sum(1)
    weights = np.exp(log_p - log_p.max())
    mean = (weights * grid).sum() / weights.sum()
    assert draws.shape == (800,) and chains.divergences == 0
    np.testing.assert_allclose(draws.mean(), mean, atol=0.15)
    assert chains.rhat["rate"] < 1.05 and chains.ess["rate"] > 50
    assert "<Chains: 2 of 400 draws" in repr(chains)


def test_arviz(fit):
    tree = fit.to_arviz(50)
    assert tree["posterior"]["z"].shape == (1, 50)
    assert tree["posterior_predictive"]["ys"].shape == (1, 50, 3)
    np.testing.assert_array_equal(tree["observed_data"]["ys"], YS)


def test_files(fit, program, tmp_path):
    path = fit.save(tmp_path / "deep" / "fit.ppl")
    again = vi.load(path, program)
    np.testing.assert_array_equal(again.losses, fit.losses)
    np.testing.assert_array_equal(again.params["z.scale"], fit.params["z.scale"])
    np.testing.assert_array_equal(again.sample(5)["z"], fit.sample(5)["z"])
    for key in (jax.random.key(3, impl="philox4x32"), None):
        keyed = dataclasses.replace(fit, key=key)
        again = vi.load(keyed.save(path), program)
        np.testing.assert_array_equal(again.sample(5)["z"], keyed.sample(5)["z"])
    other = vi.elbo(model, vi.full_rank, observed={"ys": YS}, args=ARGS)
    with pytest.raises(CheckpointError, match="fit of another program") as error:
        vi.load(path, other)
    assert "parameter 'z.loc': float32[]" in str(error.value).replace("was ", "")
    path.write_text("something else")
    with pytest.raises(CheckpointError, match="is no fit"):
        vi.load(path, program)


def test_plots(fit):
    for figure in (
        fit.plot_marginals(50),
        fit.plot_pairs(50),
        fit.plot_params(),
        fit.plot_predictive(50),
    ):
        assert isinstance(figure, Figure) and figure.axes
    data = fit.plot_predictive(50).axes[0].lines[-1].get_ydata()
    np.testing.assert_array_equal(np.sort(data), np.sort(YS))
    with pytest.raises(PplError, match="no snapshots"):
        dataclasses.replace(fit, history=()).plot_params()


def test_without_a_model():
    fit = vi.fit(lambda: -(param("x", 1.0) ** 2), steps=2)
    for ask in (fit.importance, fit.refine_mcmc, lambda: fit.predictive(2)):
        with pytest.raises(UnsupportedError):
            ask()


def test_nuts_refuses_discrete_choices():
    @gen
    def discrete():
        flip(0.5) @ "k"
        normal(0.0, 1.0) @ "y"

    fit = vi.fit(vi.elbo(discrete, observed={"y": 0.0}), steps=2)
    with pytest.raises(UnsupportedError, match="only a continuous choice"):
        fit.refine_mcmc()
