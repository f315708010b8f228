"""Exact references for programs of flips, and the z-test that estimators must pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl._compat import sub_jaxprs
from ppl.compiler import compile

Z_BOUND = 5.5
"""|z| beyond which a test fails: false-alarm rate 4e-8 per test."""

POWER = 2.33
"""Enough draws that a bias of the stated size fails with a probability of 99 %."""


QUICK = {"xla_backend_optimization_level": 0}
"""For `jax.jit`: compiling takes longer than running, and unoptimised code compiles three times
faster."""


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
    objective: Any,
    exact_grad: Any,
    *,
    exact_value: float | None = None,
    data: tuple[Any, ...] = (),
    samples: int = 20_000,
    bias: float = 0.03,
    **options: Any,
) -> float:
    """z-test of a compiled objective's gradient; returns the gradient's largest sd.

    Args:
        exact_grad: with respect to the parameter `theta`, or a dictionary by parameter.
        exact_value: of the objective; tested if given.
        options: of `compile`.
    """
    est = compile(objective, **options)
    params = est.init(jax.random.key(0), *data)
    draw = jax.vmap(lambda key: est.value_and_grad(key, params, *data))
    return check_draws(draw, exact_grad, exact_value=exact_value, samples=samples, bias=bias)


def check_draws(
    draw: Callable[[jax.Array], tuple[jax.Array, dict[str, Any]]],
    exact_grad: Any,
    *,
    exact_value: float | None = None,
    samples: int = 20_000,
    bias: float = 0.03,
) -> float:
    """z-test of an estimator; returns the gradient's largest sd.

    At least `samples` gradients are drawn, and then as many as it takes for a relative bias
    `bias` to be seen with a probability of 99 %. An entry without variance must be exact to
    float32.

    Args:
        draw: from keys to values and gradients, one of each per key.
    """
    exact = exact_grad if isinstance(exact_grad, dict) else {"theta": exact_grad}
    wanted = np.concatenate([np.ravel(exact[n]) for n in sorted(exact)]).astype(np.float64)
    size = max(1.0, np.max(np.abs(wanted)))
    run = jax.jit(draw, compiler_options=QUICK)
    values, grads = [], []
    while True:
        value, grad = run(jax.random.split(jax.random.key(len(grads)), samples))
        values.append(np.asarray(value, np.float64))
        entries = [np.reshape(grad[n], (samples, -1)) for n in sorted(exact)]
        grads.append(np.concatenate(entries, -1).astype(np.float64))
        n = len(grads) * samples
        mean, sd = np.mean(np.concatenate(grads), 0), np.std(np.concatenate(grads), 0)
        stderr = sd / np.sqrt(n)
        constant = sd < 1e-5 * size
        if np.all(constant | ((Z_BOUND + POWER) * stderr < bias * np.max(np.abs(wanted)))):
            break
        assert n < 10_000_000, ("too few samples", stderr, wanted)
    allowed = np.where(constant, 2e-4 * size, Z_BOUND * stderr)
    assert np.all(np.abs(mean - wanted) < allowed), (mean, wanted, stderr)
    if exact_value is not None:
        stderr = np.std(values) / np.sqrt(n) + 1e-4 * max(1.0, abs(exact_value))
        assert abs(np.mean(values) - exact_value) < Z_BOUND * stderr, (
            np.mean(values),
            exact_value,
            stderr,
        )
    return float(np.max(sd))


def count_equations(fun: Callable, *args: Any) -> int:
    """How many equations a function stages to, those of inner functions included."""

    def count(jaxpr: Any) -> int:
        return sum(1 + sum(map(count, sub_jaxprs(e.params))) for e in jaxpr.eqns)

    return count(jax.make_jaxpr(fun)(*args).jaxpr)
