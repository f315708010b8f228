"""The benchmarks' sides are fits of the same objective, and their measures tell if one is not."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import estimates, growth, training
from benchmarks.loop import BLOCK, attempt, compiled, start
from benchmarks.models import (
    deep,
    eight_schools,
    flip_chain,
    hierarchical,
    hmm,
    logistic_regression,
    mean_field,
    mixture,
    score_sites,
    state_space,
    vae,
)
from benchmarks.task import BY_HAND, OURS, PLANNED, Task, by_hand

EXACT = {
    "HMM, bound": lambda: hmm.bound(5),
    "HMM, likelihood": lambda: hmm.likelihood(5),
    "flips": lambda: flip_chain.task(3),
}
SAMPLED = {  # and how many draws
    "autoencoder": (lambda: vae.task(4), 100),
    "logistic regression": (logistic_regression.task, 10_000),
    "eight schools": (lambda: eight_schools.task(False), 40_000),
    "hierarchical": (hierarchical.task, 100),
    "plate": (lambda: score_sites.task(8, in_plate=True), 20_000),
    "scan": (lambda: state_space.task(4), 40_000),
    "mean field": (lambda: mean_field.task(10), 40_000),
    "mixture": (lambda: mixture.task(10), 2_000),
    "choices in a row": (lambda: deep.task(3), 40_000),
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_exact_sides_are_equal(make):
    task = make()
    key, params = jax.random.key(0), start(task).params
    (value, grad), (expected, expected_grad) = (
        jax.jit(task.sides[name](task.data))(key, params, task.data) for name in (OURS, BY_HAND)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grad, expected_grad
    )


@pytest.mark.parametrize("make, draws", SAMPLED.values(), ids=SAMPLED)
def test_sampled_sides_have_the_same_mean(make, draws):
    """Of loss and every gradient entry.

    |z| < 5.5: false alarms below 4e-8 an entry (of the autoencoder's 3.2e5 together: 0.013; the
    keys are fixed). The standard error is below 1.6 % of the largest entry of the gradient, 4 % in
    the hierarchical model and 8 % in the autoencoder: errors above 9, 20 and 45 % of it would show.
    """
    task = make()
    params = start(task).params
    found, expected = (
        estimates.moments(task, name, params, seed=seed, draws=draws, seconds=np.inf)
        for seed, name in enumerate((OURS, BY_HAND))
    )
    assert found.draws == draws
    assert estimates.bias(found, expected).z < estimates.BOUND


def shifted(task: Task, factor: float) -> Task:
    """The task with a side by hand whose gradient is this factor too large."""

    def side(data):
        gradient = task.sides[BY_HAND](data)

        def wrong(key, params, data):
            loss, grad = gradient(key, params, data)
            return loss, jax.tree.map(lambda g: factor * g, grad)

        return wrong

    return Task("shifted", {**task.sides, "wrong": side}, task.start, task.data)


def test_a_biased_side_is_found():
    """A gradient 10 % too large, in the plate by hand: the standard error is 1 % of it."""
    task = shifted(score_sites.task(50), 1.1)
    params = start(task).params
    found, expected = (
        estimates.moments(task, name, params, seed=seed, draws=4_000)
        for seed, name in enumerate(("wrong", BY_HAND))
    )
    assert estimates.bias(found, expected).found


def test_moments_are_those_of_numpy():
    task = Task(
        "normal",
        {BY_HAND: lambda data: lambda key, params, data: (jnp.zeros(()), jax.random.normal(key))},
        jnp.zeros(()),
        None,
    )
    found = estimates.moments(task, BY_HAND, task.start, seed=0, draws=300)
    keys = [
        jax.random.split(jax.random.fold_in(jax.random.key(0), i), estimates.CHUNK)
        for i in range(15)
    ]
    draws = np.array([jax.vmap(jax.random.normal)(k) for k in keys]).ravel()
    np.testing.assert_allclose(found.mean[1], draws.mean(), atol=1e-6)
    np.testing.assert_allclose(found.variance[1], draws.var(ddof=1), rtol=1e-4)


def test_the_loop_takes_adams_steps():
    """Of a quadratic: the first of Adam's steps is the learning rate, wherever the start."""
    task = Task("quadratic", {BY_HAND: by_hand(lambda key, p, d: (p - d) ** 2)}, 3.0, 1.0, 0.01)
    side = compiled(task, BY_HAND)
    state = side.run(start(task), 0, 1)
    assert 3 - 0.01 * BLOCK <= float(state.params) < 3 - 0.009 * BLOCK
    np.testing.assert_allclose(side.run(state, BLOCK, 100).params, 1.0, atol=0.01)


def test_a_peer_that_fails_is_reported():
    def not_there(data):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    def wrong(data):
        raise TypeError("no\nreason")

    task = Task("none", {"a": not_there, "b": wrong, OURS: wrong}, 0.0, None)
    assert attempt(task, "a") == "nowhere is not installed"
    assert attempt(task, "b") == "TypeError: no"
    with pytest.raises(TypeError):
        attempt(task, OURS)


def test_suites_make_tables_and_figures(tmp_path):
    """On one model without peers; its sides are measured, and reach the same objective."""
    effort = training.Effort(2, 0.01, 1, 0.0, 100, 0.1, 20)
    task = logistic_regression.task().only(OURS, BY_HAND)
    task = replace(task, learning_rate=0.05, fit_steps=480, matrix_work=None)
    result = training.measure(task, effort)
    mine, hand = result["sides"][:2]
    assert (mine["side"], hand["side"]) == (OURS, BY_HAND)
    assert hand["step"]["ratio"] > 0 and mine["bytes"] > 0
    assert abs(mine["objective"] - hand["objective"]) < 10.0  # from -1,200 to -70 nats
    assert training.table(result).row_count == 2
    training.figure([result], tmp_path / "training.png")

    family = growth.Family(lambda n: flip_chain.task(n).only(OURS), "choices", (2, 4))
    grown = growth.measure_family("flips", family, family.sizes)
    assert 0 < grown["exponents"][OURS]["equations"] < 1.2
    assert growth.table(grown).row_count == 3
    growth.figure([grown], tmp_path / "growth.png")


def test_the_planned_side_is_exact_where_the_scored_one_is_not():
    task = score_sites.task(8, in_plate=True)
    params = start(task).params
    variance = lambda name: estimates.moments(task, name, params, seed=0, draws=200).total_variance
    assert variance(PLANNED) < 1e-10 < variance(OURS)
