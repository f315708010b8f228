"""The prior and the features of the sensor task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ppl import seed, sim
from stdlib.distribution_transformer import tasks
from stdlib.distribution_transformer.mixture import Mixture, moments
from stdlib.distribution_transformer.programs import network


def test_the_first_prior_has_the_moments_of_the_normal_law():
    loc, covariance = moments(tasks.start_prior())
    np.testing.assert_allclose(loc, tasks.START_LOC, atol=1e-6)
    np.testing.assert_allclose(covariance, np.eye(4), atol=1e-6)
    assert len(np.unique(tasks.start_prior().loc, axis=0)) == 4  # no two tokens alike


def prior() -> Mixture:
    """Four components, none at the sensor."""
    loc, tril = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    return Mixture(
        jnp.zeros(4), loc[:, 0] + np.float32(2.0), np.tril(tril, -1) / 5 + 0.3 * np.eye(4)
    )


def test_a_forecast_is_the_sensors_linearised():
    """The readings of a state near a component's mean differ from those at the mean by the
    slopes; small numbers are not squashed."""
    mixture = prior()
    both = lambda x: jnp.stack([tasks.range_of(x), tasks.bearing_of(x)])
    for k in range(4):
        loc, tril = mixture.loc[k], mixture.scale_tril[k]
        reading, angle = both(loc)
        found = tasks.sensor_forecast(mixture, *tasks.sensor_features(reading, angle))[k]
        np.testing.assert_allclose(found[:2], 0.0, atol=1e-4)
        sd = jnp.array([0.1 * (reading + 1), tasks.BEARING_SD])
        slopes = (jax.jacobian(both)(loc) @ tril / sd[:, None]).ravel()
        np.testing.assert_allclose(found[4:], slopes / (1 + jnp.abs(slopes) / 10), rtol=1e-4)
        away = tasks.sensor_features(reading + 0.01, angle - 0.02)
        found = tasks.sensor_forecast(mixture, *away)[k]
        np.testing.assert_allclose(found[0] * sd[0], 0.01, rtol=0.02)
        np.testing.assert_allclose(found[1] * sd[1], -0.02, rtol=0.05)


def test_forecasts_reach_the_posterior_and_stay_finite_at_the_sensor():
    net = network(tasks.fusion, 4, relative=True)(jax.random.key(0))
    data = tasks.sensor_features(2.0, 0.3)
    here = net(prior(), *data)
    told = net.forecast(net.prior(prior()), prior(), *data)
    assert jnp.abs(told - net.prior(prior())).max() > 1e-3
    at_sensor = prior()._replace(loc=jnp.zeros((4, 4)))
    for mixture in (here, net(at_sensor, *data)):
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(mixture))


def test_readings_belong_to_the_states_that_they_are_beside(key):
    """In 300 journeys, moves and bearings have the noise that they should have: mean 0 and
    variance 1, within 5.5 standard errors (false alarms below 1e-6 in all)."""
    steps = 6
    draw = seed(lambda: tasks.seen_on_journey(sim(tasks.journey(steps))()[0]))
    x, (reading, angle) = jax.jit(jax.vmap(draw))(jax.random.split(key, 300))
    assert x.shape == (300, steps, 4) and reading.shape == angle.shape == (300, steps)
    moves = (x[:, 1:] - x[:, :-1] @ tasks.TRANSITION.T) / tasks.TRANSITION_SD
    turns = (angle - tasks.bearing_of(x)) / tasks.BEARING_SD
    for noise in (moves, turns, x[:, 0] - tasks.START_LOC):
        assert abs(jnp.mean(noise)) < 5.5 / np.sqrt(noise.size)
        assert abs(jnp.mean(noise**2) - 1) < 5.5 * np.sqrt(2 / noise.size)
    assert jnp.all((reading >= 0) & (reading <= tasks.FARTHEST))
