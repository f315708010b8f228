"""Exact references for programs of flips, and the z-test that estimators must pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.compiler import compile

Z_BOUND = 5.5
"""|z| beyond which a test fails: false-alarm rate 4e-8 per test."""


def brute(program: Callable[[Callable], Any], flips: int, theta: float) -> tuple[float, float]:
    """Expected value and its derivative, by running all outcomes of at most `flips` flips.

    `program(flip, theta)` is plain Python: it may loop and branch on `flip(p)`, a concrete bool.
    """

    def expectation(theta):
        total = 0.0
        for bits in itertools.product([False, True], repeat=flips):
            outcome, weight = iter(bits), [1.0]

            def flip(p, outcome=outcome, weight=weight):
                bit = next(outcome)
                weight[0] = weight[0] * (p if bit else 1 - p)
                return bit

            cost = program(flip, theta)
            if any(outcome):  # unused flips: count this outcome once, with all of them False
                continue
            total = total + weight[0] * cost
        return total

    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(expectation)(jnp.float64(theta))
        return float(value), float(grad)


def check_unbiased(
    objective: Callable[[], Any],
    exact_grad: float,
    *,
    exact_value: float | None = None,
    samples: int = 20_000,
    bias: float = 0.03,
    **options: Any,
) -> float:
    """z-test of the gradient with respect to `theta`; returns the gradient's sd.

    At least `samples` gradients are drawn, and then as many as it takes for a relative bias
    `bias` to exceed `Z_BOUND` standard errors. Where the estimator has no variance, the gradient
    must be exact to float32.
    """
    est = compile(objective, **options)
    params = est.init(jax.random.key(0))
    run = jax.jit(jax.vmap(lambda k: est.value_and_grad(k, params)))
    values, grads = [], []
    while True:
        value, grad = run(jax.random.split(jax.random.key(len(grads)), samples))
        values.append(np.asarray(value, np.float64))
        grads.append(np.asarray(grad["theta"], np.float64))
        n, mean, sd = len(grads) * samples, np.mean(grads), float(np.std(grads))
        stderr = sd / np.sqrt(n)
        exact = sd < 1e-5 * max(1.0, abs(exact_grad))
        if exact or Z_BOUND * stderr < bias * abs(exact_grad):
            break
        assert n < 10_000_000, ("too few samples", stderr, exact_grad)
    if exact:
        assert abs(mean - exact_grad) < 2e-4 * max(1.0, abs(exact_grad)), (mean, exact_grad)
    else:
        assert abs(mean - exact_grad) < Z_BOUND * stderr, (mean, exact_grad, stderr)
    if exact_value is not None:
        stderr = np.std(values) / np.sqrt(n) + 1e-4 * max(1.0, abs(exact_value))
        assert abs(np.mean(values) - exact_value) < Z_BOUND * stderr, (values, exact_value)
    return sd
