"""`vi.fit` against hand-written loops, and what it does when things go wrong."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppl.compiler.estimator import Estimator, compile
from ppl.compiler.strategies.score import Score
from ppl.errors import NonFiniteError, PplError, StrategyError
from ppl.lang.param import param
from ppl.vi.fit import fit
from tests.vi.programs import POSTERIOR, YS, bound, conjugate

COUNTS = [1, 17, 100]  # one, a prime, a round one: they take other ways through the loop


def by_hand(estimator, steps, key, optimizer):
    """Losses and parameters of an ordinary `lax.scan` loop."""
    init_key, step_key, _ = jax.random.split(key, 3)
    init = estimator.init(init_key)
    start = estimator.unconstrain(init)

    def step(state, i):
        def loss(params):
            key = jax.random.fold_in(step_key, i)
            return -estimator.surrogate(key, estimator.constrain(params, init))

        value, grad = jax.value_and_grad(loss)(state[0])
        updates, opt_state = optimizer.update(grad, state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt_state), value

    run = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps)))
    (params, _), losses = run((start, optimizer.init(start)))
    return estimator.constrain(params, init), losses


@pytest.mark.parametrize("steps", COUNTS)
def test_it_makes_the_steps_of_a_hand_written_loop(steps):
    key, optimizer = jax.random.key(3), optax.adam(0.05)
    result = fit(conjugate, steps=steps, key=key, optimizer=optimizer)
    params, losses = by_hand(compile(conjugate), steps, key, optimizer)
    assert result.steps == steps
    assert result.losses.dtype == np.float32
    np.testing.assert_allclose(result.losses, losses, rtol=1e-4, atol=1e-4)
    for name, value in params.items():
        np.testing.assert_allclose(result.params[name], value, rtol=1e-4)


def test_rewrites_are_those_of_compile():
    """The objective is Gaussian throughout, so that nothing is left to draw."""
    fits = [fit(conjugate, steps=30, rewrites="closed_form", key=jax.random.key(k)) for k in (0, 1)]
    np.testing.assert_array_equal(fits[0].losses, fits[1].losses)
    assert "closed_form" in str(fits[0].explain())


def test_it_finds_the_posterior():
    result = fit(
        conjugate,
        steps=3_000,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 3_000)),
        num_samples=16,
    )
    found = result.params["loc"], result.params["scale"]
    np.testing.assert_allclose(found, POSTERIOR, atol=0.03)  # over keys, sd 0.005
    assert not result.interrupted
    assert result.seconds > 0 and result.compile_seconds > 0


@pytest.mark.parametrize("chunk", [7, 30, 1_000])
def test_chunks_do_not_change_the_result(chunk):
    whole, parts = fit(conjugate, steps=60), fit(conjugate, steps=60, chunk=chunk)
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-5)
    np.testing.assert_allclose(parts.params["scale"], whole.params["scale"], rtol=1e-5)


def test_equal_keys_give_equal_results():
    first, second = (fit(conjugate, steps=50, key=jax.random.key(1)) for _ in range(2))
    other = fit(conjugate, steps=50, key=jax.random.key(2))
    np.testing.assert_array_equal(first.losses, second.losses)
    assert not np.any(first.losses == other.losses)


@pytest.mark.parametrize("steps, chunk", [(1, None), (17, 10), (1_000, 300)])
def test_one_compilation_whatever_the_steps(steps, chunk, monkeypatch):
    traces = []
    traced = Estimator.surrogate_and_state

    def spy(*args):
        traces.append(1)
        return traced(*args)

    monkeypatch.setattr(Estimator, "surrogate_and_state", spy)
    fit(conjugate, steps=steps, chunk=chunk)
    assert len(traces) == 1


# ---- data and parameters


def test_data_given_replaces_the_objectives_own():
    own, given = fit(conjugate, steps=5), fit(bound, YS, steps=5)
    np.testing.assert_array_equal(own.losses, given.losses)
    as_tuple = fit(bound, (np.asarray(YS),), steps=5)
    np.testing.assert_array_equal(own.losses, as_tuple.losses)


def test_start_values():
    result = fit(conjugate, steps=1, params={"scale": 3}, optimizer=optax.sgd(0.0))
    np.testing.assert_allclose(result.params["scale"], 3.0, rtol=1e-6)
    np.testing.assert_allclose(result.params["loc"], 0.0)


class Net(eqx.Module):
    """A parameter with arrays that train, and other things that do not."""

    weight: jax.Array
    signs: jax.Array
    size: int
    activation: Callable

    def __call__(self):
        return self.activation(self.weight) * self.size * self.signs


def regression(ys):
    net = param("net", Net(jnp.zeros(2), jnp.array([1, -1]), 2, jnp.tanh))
    return -jnp.sum((net() - ys) ** 2)


def test_modules_are_parameters():
    result = fit(regression, jnp.array([0.5, 1.0]), steps=1_000, optimizer=optax.adam(0.02))
    net = result.params["net"]
    assert net.size == 2 and net.activation is jnp.tanh
    np.testing.assert_array_equal(net.signs, [1, -1])
    np.testing.assert_allclose(net(), [0.5, 1.0], atol=1e-2)


def test_optimisers_may_ask_for_the_loss():
    plateau = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=5))
    assert fit(conjugate, steps=20, optimizer=plateau).steps == 20
    result = fit(regression, jnp.array([0.5, 1.0]), steps=20, optimizer=optax.lbfgs())
    assert result.losses[-1] < 1e-6


def test_running_means_are_carried_from_step_to_step():
    def scale(baseline, steps):
        strategies = {"guide/z": Score(baseline)}
        result = fit(conjugate, steps=steps, num_samples=1, strategies=strategies)
        return result.params["scale"]

    np.testing.assert_allclose(scale("running_mean", 1), scale("none", 1), rtol=1e-6)
    assert abs(scale("running_mean", 10) - scale("none", 10)) > 1e-4


# ---- between the runs


def test_callbacks_see_the_progress_and_can_stop():
    seen = []

    def watch(report):
        seen.append((report.step, report.steps, len(report.losses), float(report.params["scale"])))

    fit(conjugate, steps=40, chunk=15, callbacks=[watch])
    assert [s[:3] for s in seen] == [(15, 40, 15), (30, 40, 30), (40, 40, 40)]
    expected = fit(conjugate, steps=15).params["scale"]
    np.testing.assert_allclose(seen[0][3], expected, rtol=1e-5)

    result = fit(conjugate, steps=400, callbacks=lambda report: report.step >= 60)
    assert result.steps == 60 and result.interrupted


@pytest.mark.parametrize("interrupted_at", [20, 40])
def test_ctrl_c_returns_what_there_is(interrupted_at):
    def press(report):
        if report.step == interrupted_at:
            raise KeyboardInterrupt

    result = fit(conjugate, steps=60, chunk=20, callbacks=[press])
    assert result.interrupted and result.steps == interrupted_at
    assert "interrupted" in repr(result)
    expected = fit(conjugate, steps=interrupted_at)
    np.testing.assert_allclose(result.params["loc"], expected.params["loc"], rtol=1e-5)


# ---- when something is not finite


def rising(bad, what):
    """With `sgd(0.1)` loc is 0.1 k before step k; at step `bad` something is not finite."""

    def objective():
        loc = param("loc", 0.0)
        is_bad = loc > 0.1 * bad - 0.05
        if what == "gradient":
            # sqrt has the value 0 and an infinite slope at 0.
            return loc + jnp.sqrt(jnp.where(is_bad, 0.0 * loc, 1.0))
        return jnp.where(is_bad, {"nan": jnp.nan, "inf": -jnp.inf}[what], loc)

    return objective


@pytest.mark.parametrize("what", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("bad, chunk", [(0, None), (37, 20), (39, None)])
def test_nothing_is_lost_when_a_step_goes_wrong(bad, chunk, what):
    with pytest.raises(NonFiniteError) as error:
        fit(rising(bad, what), steps=40, chunk=chunk, optimizer=optax.sgd(0.1))
    assert error.value.step == bad and f"at step {bad}, the " in str(error.value)
    assert ("with respect to ['loc']" in str(error.value)) == (what == "gradient")
    assert ("start values" in str(error.value)) == (bad == 0)
    result = error.value.fit
    np.testing.assert_allclose(result.params["loc"], 0.1 * bad, rtol=1e-5)
    assert len(result.losses) == bad and np.isfinite(result.losses).all()


def test_the_choice_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteError) as error:
        fit(conjugate, jnp.array([1.0, jnp.inf, 2.0]), steps=40)
    assert error.value.address == "model/ys"
    assert "at address: model/ys" in str(error.value)


def test_an_update_may_be_the_culprit():
    bad = optax.stateless(lambda grads, _: jax.tree.map(lambda g: g / 0.0, grads))
    with pytest.raises(NonFiniteError, match="at step 0, the optimiser's update"):
        fit(conjugate, steps=40, optimizer=bad)


# ---- wrong arguments


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 1.5}, TypeError, "steps is a whole number, not 1.5"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1"),
        ({"optimizer": 0.1}, TypeError, r"not 0.1; for example optax.adam\(0.1\)"),
        ({"optimizer": "adam"}, TypeError, "must be an optax optimiser, not str"),
        ({"key": 7}, TypeError, "must be one random key"),
        ({"callbacks": 3}, TypeError, "callbacks is a sequence of functions"),
        (
            {"program": compile(conjugate), "num_samples": 2},
            TypeError,
            "pass strategies, num_samples and rewrites to vi.compile",
        ),
        (
            {"program": compile(conjugate), "rewrites": "stl"},
            TypeError,
            "pass strategies, num_samples and rewrites to vi.compile",
        ),
        ({"rewrites": "closed_from"}, StrategyError, "did you mean 'closed_form'"),
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1"),
        ({"program": 3}, TypeError, "expected an objective program or an estimator, not int"),
        ({"program": lambda: jnp.zeros(())}, PplError, "no parameters to fit"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    arguments = {"program": conjugate} | arguments
    with pytest.raises(error, match=message):
        fit(arguments.pop("program"), **arguments)
