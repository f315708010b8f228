"""Tests that a gradient estimator is unbiased, by sampling; they know which bias they would catch.

Such a test has two error rates. *False alarm*: an unbiased estimator fails. It is bounded for the
whole call: |z| of each of the m numbers tested must stay below the normal quantile of
1 - false_alarm / (2 m) (Bonferroni). *Miss*: an estimator with the stated relative bias passes. The
sample grows until that is at most `miss`; if it cannot, the test fails, for a test that cannot fail
is none. The sample size depends on the draws' spread, not on their mean, and z is looked at once,
at the end, so the growing sample costs no false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ppl.compiler.estimator import Estimator, compile
from ppl.compiler.moments import Moments, Sampler, entry_names
from ppl.compiler.strategies.base import strategies as all_strategies
from ppl.compiler.strategies.score import Score
from ppl.errors import PplError, StrategyError
from ppl.testing.outcomes import exact_estimate, exact_expectation

BIAS = 0.03
FALSE_ALARM = 1e-6
MISS = 0.01
MAX_DRAWS = 20_000_000

_MINIMUM = 8_192
"""Draws at least, so that the mean is normal where single gradients are not."""

_ROUNDING = 0.01
"""Rounding errors allowed for, in units of the bias to be caught."""

_QUICK = {"xla_backend_optimization_level": 0}
"""Compiling takes longer than running, and unoptimised code compiles three times faster."""


class BiasError(PplError, AssertionError):
    """An estimator's mean is not what it should be.

    Attributes:
        report: all numbers.
    """

    report: Any = None


class InconclusiveError(PplError, AssertionError):
    """The sample that a test may take is too small for the bias that it is to catch."""


def z_bound(checks: int, false_alarm: float = FALSE_ALARM) -> float:
    """|z| stays below this in all of `checks` tests, but for probability `false_alarm`.

    >>> round(z_bound(1), 2), round(z_bound(100), 2)
    (4.89, 5.73)
    """
    return -NormalDist().inv_cdf(false_alarm / (2 * max(1, checks)))


@dataclass(frozen=True, eq=False)
class Report:
    """What a test saw, number by number.

    Attributes:
        names: `value`, and each entry of the gradient.
        draws: gradients drawn from the estimator.
        estimate: their means.
        expected: what the means should be.
        sd: of one draw.
        standard_error: of `estimate - expected`.
        detectable: the bias that would be caught, in the number's units.
        bound: on |z|; 0 if the means were computed exactly.
        rounding: error of float arithmetic allowed for.
    """

    names: list[str]
    draws: int
    estimate: Float[np.ndarray, " numbers"]
    expected: Float[np.ndarray, " numbers"]
    sd: Float[np.ndarray, " numbers"]
    standard_error: Float[np.ndarray, " numbers"]
    detectable: Float[np.ndarray, " numbers"]
    bound: float
    rounding: Float[np.ndarray, " numbers"]

    @property
    def z(self) -> Float[np.ndarray, " numbers"]:
        """Deviations in standard errors, after what rounding may have done."""
        error = self.estimate - self.expected
        beyond = np.sign(error) * np.maximum(np.abs(error) - self.rounding, 0)
        exact = self.standard_error == 0
        noisy = beyond / np.where(exact, 1, self.standard_error)
        z = np.where(exact & (beyond != 0), np.copysign(np.inf, beyond), noisy)
        return np.where(np.isnan(error), np.inf, z)

    @property
    def passed(self) -> bool:
        return bool(np.all(np.abs(self.z) <= self.bound))

    def rows(self, most: int = 8) -> list[str]:
        """The largest deviations, as text."""
        order = np.argsort(-np.abs(self.z), kind="stable")[:most]
        width = max(len("component"), *(len(self.names[i]) for i in order))
        head = (
            f"{'component':<{width}} {'z':>8} {'estimate':>11} {'expected':>11} {'would catch':>11}"
        )
        return [head] + [
            f"{self.names[i]:<{width}} {self.z[i]:>8.3g} {self.estimate[i]:>11.5g} "
            f"{self.expected[i]:>11.5g} {self.detectable[i]:>11.2g}"
            for i in order
        ]

    def __str__(self) -> str:
        return "\n".join([self.head, *self.rows()])

    @property
    def head(self) -> str:
        what = "outcomes summed" if self.bound == 0 else f"draws, |z| < {self.bound:.2f} expected"
        return f"{self.draws} {what}"


# ------------------------------------------------------------------------------- of objectives


def assert_unbiased(
    objective: Any,
    *data: Any,
    params: Mapping[str, Any] | None = None,
    exact: Any = None,
    exact_value: float | None = None,
    reference: Mapping[str, Any] | Estimator | None = None,
    strategies: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
    bias: float = BIAS,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
    whole_gradient: bool = False,
    max_draws: int = MAX_DRAWS,
    key: Key[Array, ""] | None = None,
) -> Report:
    """Test that the compiled gradient of an objective has the right mean.

    Args:
        objective: an objective program, or what `vi.compile` made of one.
        data: its arguments; its own if there are none.
        params: by name, in their supports; the initial ones if `None`.
        exact: the gradient: a dictionary like `params`, or one array if there is one parameter; or
            a JAX function from parameters to the exact objective, which is differentiated.
        exact_value: the exact objective, which is then tested too. (The values' sample is the
            gradients'; it is not made larger for them.)
        reference: without `exact`, the plan to compare with: strategies, or an estimator. By
            default all choices by score without baseline, those that have no score as planned.
        strategies, num_samples: as for `vi.compile`.
        bias: the relative bias that must be caught: that part of a parameter's largest exact
            gradient entry, in any entry.
        false_alarm: probability that an unbiased estimator fails the call.
        miss: probability that an estimator with that bias passes it.
        whole_gradient: take `bias` relative to the largest entry of all parameters.
        max_draws: give up, with an error, where more gradients would be needed.
        key: random key; `jax.random.key(0)` if `None`, so that a test passes always or never.

    Returns:
        what was seen.

    Raises:
        BiasError: it is biased. The error names components and, choice by choice, whether the bias
            goes away with that choice by score.
        InconclusiveError: such a bias cannot be told from noise with `max_draws` draws.
    """
    estimator = _estimator(objective, strategies, num_samples)
    data = data or estimator.objective.data
    key = jax.random.key(0) if key is None else key
    params = estimator.init(key, *data) if params is None else dict(params)
    limits = _Limits(bias, false_alarm, miss, whole_gradient, max_draws)
    draw = _draws(estimator, params, data)
    if callable(exact):
        exact_value, exact = jax.value_and_grad(exact)(_trainable(params))
    name = estimator.objective.name
    if exact is not None:
        if not isinstance(exact, dict):
            (only,) = [n for n, p in _trainable(params).items() if jax.tree.leaves(p)]
            exact = {only: exact}
        report = _test(draw, exact, exact_value, None, limits, key)
    else:
        other = _reference(estimator, reference, data)
        report = _test(draw, None, None, _draws(other, params, data), limits, key)
    if not report.passed:
        hints = _hints(estimator, params, data, report, key)
        raise _bias_error(f"the estimator of {name!r} is biased", report, hints)
    return report


def assert_exactly_unbiased(
    objective: Any,
    *data: Any,
    params: Mapping[str, Any] | None = None,
    strategies: Mapping[str, Any] | None = None,
    num_samples: int = 2,
    tolerance: float = 1e-4,
    max_outcomes: int = 2**16,
) -> Report:
    """Test, without sampling, that a compiled gradient of finite choices has the right mean.

    The estimator's mean (`exact_estimate`) against the objective's derivative
    (`exact_expectation`). There is no false alarm, and what is caught is any bias beyond rounding.

    Args:
        tolerance: error allowed, relative to the mean magnitude of the gradient's entry, to its
            parameter's largest exact entry, or to the value.
        objective, data, params, strategies, num_samples, max_outcomes: as for `exact_estimate`.

    Raises:
        BiasError: it is biased.
        UnsupportedError: the draws cannot be enumerated.
    """
    estimator = _estimator(objective, strategies, num_samples)
    data = data or estimator.objective.data
    params = estimator.init(jax.random.key(0), *data) if params is None else params
    found = exact_estimate(estimator, *data, params=params, max_outcomes=max_outcomes)
    value, grad = exact_expectation(
        estimator.objective, *data, params=params, max_outcomes=max_outcomes
    )
    both = _flat({"gradient": found.grad, "value": found.value})
    expected = _flat({"gradient": grad, "value": value})
    size = _flat({"gradient": found.size, "value": abs(value)})
    scale = _scales({"gradient": grad, "value": value}, whole=False)
    rounding = tolerance * np.maximum(np.maximum(size, scale), 1e-3)
    names = [n.removeprefix("gradient.") for n in entry_names(_named(value, grad))]
    zero = np.zeros_like(both)
    sd = np.sqrt(_flat({"gradient": found.variance, "value": 0.0}))
    report = Report(names, found.outcomes, both, expected, sd, zero, rounding, 0.0, rounding)
    if not report.passed:
        hints = _choices(estimator, data)
        what = f"the mean of the estimator of {estimator.objective.name!r} is wrong"
        raise _bias_error(what, report, hints)
    return report


def assert_unbiased_draws(
    draw: Callable[[Key[Array, ""]], tuple[Array, PyTree]],
    exact: PyTree,
    *,
    exact_value: float | None = None,
    bias: float = BIAS,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
    whole_gradient: bool = False,
    max_draws: int = MAX_DRAWS,
    key: Key[Array, ""] | None = None,
    what: str = "the estimator is biased",
) -> Report:
    """`assert_unbiased` for any function that draws a value and a gradient.

    Args:
        draw: `key -> (value, gradient)`, a JAX function.
        exact: the mean of the gradient, a pytree like it.
        what: first line of the error.
        exact_value, bias, false_alarm, miss, whole_gradient, max_draws, key: as there.

    Raises:
        BiasError, InconclusiveError: as there.
    """
    report = _test(
        lambda k: _named(*draw(k)),
        exact,
        exact_value,
        None,
        _Limits(bias, false_alarm, miss, whole_gradient, max_draws),
        jax.random.key(0) if key is None else key,
    )
    if not report.passed:
        raise _bias_error(what, report, ())
    return report


def assert_mean(
    draw: Callable[[Key[Array, ""]], PyTree],
    expected: PyTree,
    *,
    what: str = "the mean is not what it should be",
    **limits: Any,
) -> Report:
    """Test the mean of any random pytree of numbers, `key -> pytree`.

    Args:
        expected: the mean, a pytree of the same structure.
        what: first line of the error.
        limits: `bias`, `false_alarm`, `miss`, ... as for `assert_unbiased_draws`.
    """
    return assert_unbiased_draws(lambda k: (jnp.zeros(()), draw(k)), expected, what=what, **limits)


# --------------------------------------------------------------------------------- the z-test


@dataclass(frozen=True)
class _Limits:
    """What a test must catch, and what it may cost; as the arguments of `assert_unbiased`."""

    bias: float
    false_alarm: float
    miss: float
    whole_gradient: bool
    max_draws: int

    def __post_init__(self) -> None:
        for name in ("bias", "false_alarm", "miss"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")


def _test(
    draw: Callable[[Any], Any],
    exact: Any,
    exact_value: Any,
    reference: Callable[[Any], Any] | None,
    limits: _Limits,
    key: Any,
) -> Report:
    """Sample until the bias would be caught; against `exact`, or against draws of another."""
    bias = limits.bias
    ours_key, their_key = jax.random.split(key)
    ours = Sampler(draw, ours_key, compiler_options=_QUICK)
    theirs = None
    if reference is not None:
        theirs = Sampler(reference, their_key, compiler_options=_QUICK)
    is_value = np.array([name == "value" for name in ours.names])
    tested = ~is_value | (exact_value is not None or theirs is not None)
    bound = z_bound(int(tested.sum()), limits.false_alarm)
    power = -NormalDist().inv_cdf(limits.miss)
    samplers = [ours] if theirs is None else [ours, theirs]
    for s in samplers:
        s.more(max(2, math.ceil(_MINIMUM / s.batch)))
    while True:
        if theirs is None:
            parts = {"gradient": exact, "value": exact_value or 0.0}
            given = {n: parts[n] for n in ours.tree}
            if entry_names(given) != ours.names:
                raise ValueError(
                    f"the exact gradient has the entries {entry_names(given)[:20]}, the "
                    f"estimate has {ours.names[:20]}"
                )
            expected = _flat(given)
        else:
            expected = theirs.seen.mean
        tree = _unflat(ours.tree, expected)
        scale = _scales(tree, limits.whole_gradient)
        target = np.where(is_value, np.inf, bias * scale)
        errors = [np.where(_constant(s.seen), 0, s.seen.standard_error) for s in samplers]
        total = np.sqrt(sum(e**2 for e in errors))
        rounding = _ROUNDING * bias * np.maximum(scale, np.abs(expected))
        detectable = (bound + power) * total + rounding
        if not all(np.isfinite(s.seen.mean[tested]).all() for s in samplers):
            break  # NaN or infinite: reported as it is
        excess = np.max((bound + power) * total / target, initial=0)
        if excess <= 1:
            break
        # The noisier side, and about as many draws as it seems to take, but at most twice as many.
        worst = int(np.argmax(total / target))
        i = int(np.argmax([e[worst] for e in errors]))
        sampler = samplers[i]
        count = sampler.seen.count
        if count * excess**2 > limits.max_draws and (
            theirs is None or count * 4 > limits.max_draws
        ):
            raise _inconclusive(ours, worst, detectable, scale, limits, excess**2 * count)
        sampler.more(math.ceil(min(excess**2 - 1, 1.0) * count / sampler.batch) or 1)
    pick = np.flatnonzero(tested)
    return Report(
        [ours.names[i].removeprefix("gradient.") for i in pick],
        ours.seen.count,
        ours.seen.mean[pick],
        expected[pick],
        np.sqrt(ours.seen.variance[pick]),
        total[pick],
        detectable[pick],
        bound,
        rounding[pick],
    )


def _constant(moments: Moments) -> np.ndarray:
    """Numbers without noise but for rounding."""
    return moments.variance <= (1e-5 * np.abs(moments.mean)) ** 2


def _scales(tree: Any, whole: bool) -> np.ndarray:
    """For each number, the magnitude that a bias of it is relative to."""
    leaves = jax.tree.leaves(tree["gradient"])
    largest = max((float(np.max(np.abs(x), initial=0)) for x in leaves), default=0.0) or 1.0
    own = [
        np.full(np.size(x), largest if whole else float(np.max(np.abs(x), initial=0)) or largest)
        for x in leaves
    ]
    return np.concatenate([*own, np.full(1 if "value" in tree else 0, abs(tree.get("value", 0)))])


def _flat(tree: Any) -> np.ndarray:
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.ravel(np.asarray(x, float)) for x in leaves] or [np.zeros(0)])


def _unflat(like: Any, flat: np.ndarray) -> Any:
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([x.size for x in leaves])
    parts = np.split(flat, ends[:-1])
    shaped = [p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def _inconclusive(
    sampler: Sampler, worst: int, detectable: Any, scale: Any, limits: _Limits, needs: float
) -> InconclusiveError:
    sd = math.sqrt(sampler.seen.variance[worst])
    return InconclusiveError(
        f"a bias of {limits.bias:.3g} would not be caught",
        because=f"after {sampler.seen.count} draws the smallest that would is "
        f"{detectable[worst] / scale[worst]:.2g} in {sampler.names[worst]}: its sd is {sd:.3g}, "
        f"the gradient is at most {scale[worst]:.3g}, and it would take some {needs:.2g} draws; "
        f"max_draws is {limits.max_draws}",
        fix="parameters where the gradient is larger, more num_samples, a larger max_draws, "
        "whole_gradient=True (relative to the largest entry of all), or a larger bias=...",
    )


def _bias_error(what: str, report: Report, hints: Any) -> BiasError:
    text = "\n    ".join([report.head, *report.rows()])
    error = BiasError(what, because=text, fix="\n    ".join(hints) or None)
    error.report = report
    return error


# ------------------------------------------------------------------------------------ helpers


def _estimator(objective: Any, strategies: Any, num_samples: int | None) -> Estimator:
    if not isinstance(objective, Estimator):
        return compile(objective, strategies=strategies, num_samples=num_samples)
    if strategies is not None:
        raise TypeError("an estimator has its strategies: pass strategies to vi.compile")
    return objective


def _trainable(params: Mapping[str, Any]) -> dict[str, Any]:
    arrays = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, dict(params))
    return eqx.filter(arrays, eqx.is_inexact_array)


def _named(value: Any, grad: PyTree) -> dict[str, Any]:
    return {"gradient": grad, "value": jnp.asarray(value)}


def _draws(estimator: Estimator, params: Mapping[str, Any], data: Any) -> Callable[[Any], Any]:
    def draw(key: Any) -> dict[str, Any]:
        value, grad = estimator.value_and_grad(key, dict(params), *data)
        return _named(value, grad)

    return draw


def _reference(estimator: Estimator, reference: Any, data: Any) -> Estimator:
    """The estimator to compare with, whose plan must be another."""
    if isinstance(reference, Estimator):
        return reference
    plan = estimator.plan(*data)
    if reference is None:
        able = [e for e in plan.strategies if all_strategies["score"].refusal(e) is None]
        reference = {_pattern(e.params["address"]): Score("none") for e in able}
        for name in list(reference):  # a support that moves with a parameter cannot be scored
            try:
                compile(estimator.objective, strategies={name: reference[name]}).plan(*data)
            except StrategyError:
                del reference[name]
    other = compile(estimator.objective, strategies=reference)
    theirs = other.plan(*data)
    if [s for s in theirs.strategies.values()] == [s for s in plan.strategies.values()]:
        raise ValueError(
            "assert_unbiased: the estimator would be compared with itself; pass exact=..., or "
            "reference={...} with other strategies"
        )
    return other


def _pattern(address: str) -> str:
    """A pattern that matches just this address."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in address)


def _choices(estimator: Estimator, data: Any) -> list[str]:
    plan = estimator.plan(*data)
    rows = [f"{e.params['address']}: {s.name} ({e.where})" for e, s in plan.strategies.items()]
    return ["choices and their strategies:", *rows]


def _hints(
    estimator: Estimator, params: Any, data: Any, report: Report, key: Any, most: int = 8
) -> list[str]:
    """Choice by choice: whether the bias goes away with that choice by score."""
    plan = estimator.plan(*data)
    hints = ["look at the choice without which the bias goes away:"]
    given = {_pattern(e.params["address"]): s for e, s in plan.strategies.items()}
    worst = int(np.argmax(np.abs(report.z)))
    for eqn, strategy in list(plan.strategies.items())[:most]:
        name, address = _pattern(eqn.params["address"]), eqn.params["address"]
        if strategy == Score("none"):
            continue
        try:
            other = compile(
                estimator.objective,
                strategies={**given, name: Score("none")},
                num_samples=estimator.num_samples(*data),
            )
            sampler = Sampler(_draws(other, params, data), key, compiler_options=_QUICK)
            found = sampler.more(math.ceil(report.draws / sampler.batch))
        except PplError:
            hints.append(f"{address}: {strategy.name}, and cannot be scored ({eqn.where})")
            continue
        i = [n.removeprefix("gradient.") for n in sampler.names].index(report.names[worst])
        error = math.hypot(float(found.standard_error[i]), report.standard_error[worst])
        z = (found.mean[i] - report.expected[worst]) / max(error, 1e-30)
        hints.append(f"{address}: {strategy.name}; by score z = {z:.3g} ({eqn.where})")
    return hints
