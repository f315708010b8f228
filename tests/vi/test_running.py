"""How `vi.fit` runs: compiled once, restarts, precision, snapshots, and its data's precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppl import param, vi
from ppl.compiler.estimator import Estimator, compile
from ppl.errors import NonFiniteError
from tests.vi.programs import POSTERIOR, YS, bound, conjugate


def test_a_second_fit_compiles_nothing(monkeypatch):
    traces = []
    traced = Estimator.surrogate_and_state
    spy = lambda *args: traces.append(1) or traced(*args)
    monkeypatch.setattr(Estimator, "surrogate_and_state", spy)
    est, optimizer = compile(bound), optax.adam(0.05)
    first = vi.fit(est, YS, steps=50)
    assert len(traces) == 1
    second = vi.fit(est, YS + 1, steps=50, key=jax.random.key(4))
    assert len(traces) == 1 and not np.allclose(first.losses, second.losses)
    vi.fit(est, YS, steps=50, optimizer=optimizer)
    vi.fit(est, YS + 1, steps=50, optimizer=optimizer)
    assert len(traces) == 2
    again = vi.fit(est, YS, steps=50)
    assert len(traces) == 2
    np.testing.assert_array_equal(first.losses, again.losses)


def hills():
    """Two maxima: a low one near -2, a high one near 2; a gradient leads to the nearer one."""
    x = param("x", lambda key: jax.random.uniform(key, minval=-3.0, maxval=3.0))
    return -((x**2 - 4) ** 2) / 10 + 0.3 * x


def test_the_best_restart_is_kept():
    fit = vi.fit(hills, steps=100, restarts=8, optimizer=optax.adam(0.1))
    assert fit.restarts.shape == (8,) and fit.losses.shape == (100,)
    assert np.ptp(fit.restarts) > 0.5  # some went to the low one
    np.testing.assert_allclose(fit.restarts.min(), fit.losses[-10:].mean(), rtol=1e-5)
    np.testing.assert_allclose(fit.params["x"], 2.04, atol=0.05)


def test_a_restart_that_goes_wrong_is_left_behind():
    def objective():
        x = param("x", lambda key: jax.random.uniform(key, minval=-3.0, maxval=3.0))
        return jnp.where(x < 0, jnp.nan, -((x - 1) ** 2))

    fit = vi.fit(objective, steps=60, restarts=6, key=jax.random.key(1), optimizer=optax.adam(0.1))
    assert 0 < np.isnan(fit.restarts).sum() < 6
    np.testing.assert_allclose(fit.params["x"], 1.0, atol=0.1)
    with pytest.raises(NonFiniteError, match="none of the 3 restarts is finite"):
        vi.fit(lambda: param("x", 0.0) * jnp.nan, steps=10, restarts=3)


def test_restarts_draw_differently():
    fit = vi.fit(conjugate, steps=20, restarts=3)
    assert len(set(fit.restarts.tolist())) == 3
    single = vi.fit(conjugate, steps=20)
    assert not np.allclose(single.losses, fit.losses)


def test_double_precision():
    fit = vi.fit(conjugate, steps=1_200, float64=True, optimizer=optax.adam(0.02), num_samples=8)
    assert fit.params["loc"].dtype == np.float64
    assert fit.sample(10)["z"].dtype == np.float64
    np.testing.assert_allclose(fit.params["loc"], POSTERIOR[0], atol=0.1)
    assert vi.fit(conjugate, steps=2).params["loc"].dtype == np.float32


def test_snapshots():
    fit = vi.fit(conjugate, steps=40, snapshots=4)
    assert [step for step, _ in fit.history] == [10, 20, 30, 40]
    np.testing.assert_array_equal(fit.history[-1][1]["loc"], fit.params["loc"])


def test_gradient_clipping_and_schedules_are_optax():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 50)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule))
    assert vi.fit(conjugate, steps=50, optimizer=optimizer).steps == 50
