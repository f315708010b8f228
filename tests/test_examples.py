"""The examples, in few steps: they run, and find what they say."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import halfnorm, norm

from examples import classic_posteriors, eight_schools, robust_regression, vae_digits

# ------------------------------------------------------------------------- robust regression

GIANTS = [11, 20, 30, 34]


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    result = robust_regression.main(quick=True, folder=folder)
    assert (folder / "robust_regression.png").stat().st_size > 10_000
    return result


def exact_posterior_of_slope(temperature, light):
    """(log evidence, mean and sd of the slope where it is above 1.2), by quadrature."""
    slopes = np.linspace(-3, 7, 81)
    axes = slopes, np.linspace(4.3, 5.5, 41), np.linspace(-2.1, 0.1, 31), np.linspace(-5, 1.5, 27)
    slope, level, log_noise, log_odds = np.meshgrid(*axes, indexing="ij", sparse=True)
    noise = np.exp(log_noise)
    joint = norm.logpdf(slope, 0, 5) + norm.logpdf(level, 5, 1) + norm.logpdf(log_odds, -2, 1)
    joint = joint + halfnorm.logpdf(noise) + log_noise
    on, off = -np.logaddexp(0, log_odds), -np.logaddexp(0, -log_odds)
    for x, y in zip(temperature - robust_regression.CENTER, light, strict=True):
        line = norm.logpdf(y, level + slope * x, noise)
        joint = joint + np.logaddexp(on + line, off + norm.logpdf(y, 5, 1))
    evidence = logsumexp(joint) + sum(np.log(axis[1] - axis[0]) for axis in axes)
    weights = np.exp(logsumexp(joint, axis=(1, 2, 3)))[slopes > 1.2]
    mode = slopes[slopes > 1.2]
    mean = np.average(mode, weights=weights)
    return evidence, mean, np.sqrt(np.average((mode - mean) ** 2, weights=weights))


def test_least_squares_is_the_textbook_s(stars):
    np.testing.assert_allclose(stars.least_squares, [-0.413, 6.793], atol=5e-4)
    assert len(stars.light) == 47


def test_the_giants_are_off_the_main_sequence(stars):
    assert stars.draws["slope"].mean() > 2
    assert np.quantile(stars.draws["slope"], 0.01) > 0
    assert np.all(stars.off[np.array(GIANTS) - 1] > 0.99)
    assert stars.off[7 - 1] > 0.8
    assert np.sum(stars.off > 0.5) <= 8


def test_the_fit_is_near_the_exact_posterior(stars):
    evidence, mean, sd = exact_posterior_of_slope(stars.temperature, stars.light)
    slope = stars.draws["slope"]
    assert abs(slope.mean() - mean) < 0.2 * sd
    assert 0.8 < slope.std() / sd < 1.05  # independent factors: a little too narrow
    bound = stars.fit.elbo()
    assert evidence - 0.3 < bound.mean < evidence + 5 * bound.standard_error


def test_the_indicators_are_summed_out(stars):
    strategies = {row.address: row.strategy for row in stars.fit.explain().choices}
    assert strategies.pop("guide/off") == "enum"
    assert set(strategies.values()) == {"reparam"}
    assert "2 states of guide/off" in str(stars.fit.explain())


# -------------------------------------------------------------------------- autoencoder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    result = vae_digits.main(quick=True, folder=folder)
    assert (folder / "vae_digits.png").stat().st_size > 10_000
    return result


def test_the_autoencoder_beats_independent_pixels(digits):
    assert -107.5 < digits.baseline < -107.0
    assert digits.baseline + 4 < digits.test_elbo < digits.train_elbo < -80


def test_reconstructions_resemble_their_originals(digits):
    rebuilt = 16 * vae_digits.reconstruct(digits.fit, digits.test)
    variance = np.mean((digits.test - digits.train.mean(0)) ** 2)
    assert np.mean((rebuilt - digits.test) ** 2) < 0.5 * variance
    images = vae_digits.imagine(digits.fit, 200)
    assert images.shape == (200, 64)
    # Neither all alike nor noise: as far apart as digits are, nearly.
    spread = np.mean((16 * images - 16 * images.mean(0)) ** 2)
    assert 0.4 * variance < spread < 1.3 * variance


# -------------------------------------------------------------------------- eight schools

# By quadrature over the mean and the log of the spread; the effects integrated out.
LOG_EVIDENCE, MEAN, MEAN_SD = -31.3114, 4.397, 3.318


def test_eight_schools(tmp_path):
    fit = eight_schools.main(quick=True, folder=tmp_path)
    rows = {row.address: row for row in fit.summary(20_000, jax.random.key(1)).rows}
    assert abs(rows["mean"].mean - MEAN) < 0.3
    assert 0.9 < rows["mean"].sd / MEAN_SD < 1.02
    assert rows["spread"].q5 > 0
    bound = fit.elbo(4_000)
    assert LOG_EVIDENCE - 0.3 < bound.mean < LOG_EVIDENCE + 5 * bound.standard_error


# --------------------------------------------------------------------------- a custom strategy


def test_custom_strategy_is_unbiased():
    """Blended gradients agree with the path's, and their noise lies between the others'."""
    from examples import custom_strategy

    found = custom_strategy.main(quick=True)
    for steepness in (1.0, 30.0):
        path, blend, score = (found[steepness, n] for n in ("reparam", "blend", "score"))
        for other in (blend, score):
            stderr = np.hypot(path[1], other[1]) / np.sqrt(2_000)
            assert abs(path[0] - other[0]) < 5.5 * stderr
        assert min(path[1], score[1]) < blend[1] < max(path[1], score[1])


@pytest.mark.slow
def test_classic_posteriors():
    """One of the six, with short chains, whose means are known to about 0.1 sd; and the data of
    the others."""
    result = classic_posteriors.compare("Poisson regression", steps=1_500, samples=300, chains=2)
    assert result["full_rank"].error < 0.3 and result["full_rank"].khat < 0.7
    assert result["mean_field"].ratios[0] < 0.8  # its intervals are too short, as they must be
    for make in classic_posteriors.POSTERIORS.values():
        posterior = make()
        (data,) = posterior.observed.values()
        assert len(data) >= 8 and np.isfinite(np.asarray(data, float)).all()
