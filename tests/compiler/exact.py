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
from ppl.testing import assert_unbiased_draws

Z_BOUND = 5.5
"""|z| beyond which a test fails: false-alarm rate 4e-8 per test."""

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
    bias: float = 0.03,
    **options: Any,
) -> float:
    """`assert_unbiased` with a bias relative to the whole gradient; returns its largest sd.

    Args:
        exact_grad: with respect to the parameter `theta`, or a dictionary by parameter.
        options: of `compile`.
    """
    est = compile(objective, **options)
    params = est.init(jax.random.key(0), *data)
    draw = lambda key: est.value_and_grad(key, params, *data)
    return check_draws(draw, exact_grad, exact_value=exact_value, bias=bias)


def check_draws(
    draw: Callable[[jax.Array], tuple[jax.Array, dict[str, Any]]],
    exact_grad: Any,
    *,
    exact_value: float | None = None,
    bias: float = 0.03,
) -> float:
    """The same for a function that draws a value and a gradient."""
    exact = exact_grad if isinstance(exact_grad, dict) else {"theta": exact_grad}

    def only_tested(key: jax.Array) -> Any:
        value, grad = draw(key)
        return value, {n: grad[n] for n in exact}

    report = assert_unbiased_draws(
        only_tested, exact, exact_value=exact_value, bias=bias, whole_gradient=True
    )
    return float(np.max([s for n, s in zip(report.names, report.sd, strict=True) if n != "value"]))


def count_equations(fun: Callable, *args: Any) -> int:
    """How many equations a function stages to, those of inner functions included."""

    def count(jaxpr: Any) -> int:
        return sum(1 + sum(map(count, sub_jaxprs(e.params))) for e in jaxpr.eqns)

    return count(jax.make_jaxpr(fun)(*args).jaxpr)
