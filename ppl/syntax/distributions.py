"""What the checker knows of the distributions; a test compares it with `ppl.lang`'s families.

It repeats what the families say so that checking a text does not need JAX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ppl.syntax.types import (
    INF,
    NONNEGATIVE,
    POSITIVE,
    REAL,
    UNIT,
    Interval,
    Num,
)


@dataclass(frozen=True)
class Parameter:
    """One parameter: its rank, where its entries lie, its structure."""

    rank: int = 0
    within: Interval = REAL
    event: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """A kind of distribution, as the checker sees it.

    Attributes:
        parameters: by name, in the order in which they may be given.
        draw: kind, interval, structure of a draw.
        support: the interval of a draw from the parameters' types, where it depends on them.
        like: the parameter whose last axes are those of a draw.
        either: parameters of which exactly one is given.
    """

    parameters: Mapping[str, Parameter]
    draw: Num = field(default_factory=Num)
    support: Callable[[Mapping[str, Num]], Interval] | None = None
    like: str | None = None
    event_rank: int = 0
    reparam: bool = False
    enum: bool = False
    either: frozenset[str] = frozenset()


_real, _positive, _unit = Parameter(), Parameter(within=POSITIVE), Parameter(within=UNIT)
_location_scale = {"loc": _real, "scale": _positive}
_count = Parameter(within=NONNEGATIVE)
_logits, _probs = Parameter(rank=1), Parameter(rank=1, within=UNIT, event="simplex")
_BY_PROBS, _BY_RATE = frozenset({"logits", "probs"}), frozenset({"rate", "log_rate"})


def _real_line() -> Family:
    return Family(_location_scale, reparam=True)


def _on(within: Interval, **parameters: Parameter) -> Family:
    return Family(parameters, Num("real", within), reparam=True)


def _counts(either: frozenset[str] = frozenset(), **parameters: Parameter) -> Family:
    return Family(parameters, Num("int", NONNEGATIVE), either=either)


def _uniform_support(p: Mapping[str, Num]) -> Interval:
    low = p["low"].within if "low" in p else UNIT
    return Interval(low.low, p["high"].within.high if "high" in p else 1.0)


def _above_loc(p: Mapping[str, Num]) -> Interval:
    return Interval(p["loc"].within.low, INF, True)


def _vector(name: str, parameter: Parameter) -> Family:
    return Family(
        {"loc": Parameter(rank=1), name: parameter}, like=name, event_rank=1, reparam=True
    )


def _matrix(reparam: bool) -> Family:
    return Family(
        {"df": _positive, "scale_tril": Parameter(rank=2, event="lower_cholesky")},
        Num(event="positive_definite"),
        like="scale_tril",
        event_rank=2,
        reparam=reparam,
    )


FAMILIES: dict[str, Family] = {
    **{name: _real_line() for name in ("normal", "laplace", "cauchy", "logistic", "gumbel")},
    "log_normal": _on(POSITIVE, **_location_scale),
    "half_normal": _on(NONNEGATIVE, scale=_positive),
    "half_cauchy": Family(_location_scale, support=_above_loc, reparam=True),
    "student_t": _on(
        REAL,
        df=_positive,
        loc=Parameter(optional=True),
        scale=Parameter(within=POSITIVE, optional=True),
    ),
    "uniform": Family(
        {"low": Parameter(optional=True), "high": Parameter(optional=True)},
        support=_uniform_support,
        reparam=True,
    ),
    "beta": _on(UNIT, concentration1=_positive, concentration0=_positive),
    "gamma": Family(
        {"concentration": _positive, "rate": _positive, "log_rate": _real},
        Num("real", POSITIVE),
        reparam=True,
        either=_BY_RATE,
    ),
    "inverse_gamma": _on(POSITIVE, concentration=_positive, scale=_positive),
    "chi2": _on(POSITIVE, df=_positive),
    "exponential": _on(NONNEGATIVE, rate=_positive),
    "weibull": _on(NONNEGATIVE, concentration=_positive, scale=_positive),
    "von_mises": _on(Interval(-math.pi, math.pi), loc=_real, concentration=_positive),
    "dirichlet": Family(
        {"concentration": Parameter(rank=1, within=POSITIVE)},
        Num("real", UNIT, event="simplex"),
        like="concentration",
        event_rank=1,
        reparam=True,
    ),
    "multivariate_normal": _vector(
        "covariance_matrix", Parameter(rank=2, event="positive_definite")
    ),
    "multivariate_normal_diag": _vector("scale_diag", Parameter(rank=1, within=POSITIVE)),
    "multivariate_normal_tri": _vector("scale_tril", Parameter(rank=2, event="lower_cholesky")),
    "wishart": _matrix(reparam=True),
    "inverse_wishart": _matrix(reparam=True),
    "delta": Family({"loc": _real}, support=lambda p: p["loc"].within, reparam=True),
    "flip": Family({"p": _unit}, Num("bool", UNIT), enum=True),
    "bernoulli": Family(
        {"logits": _real, "probs": _unit}, Num("int", UNIT), enum=True, either=_BY_PROBS
    ),
    "categorical": Family(
        {"logits": _logits, "probs": _probs}, Num("int", NONNEGATIVE), enum=True, either=_BY_PROBS
    ),
    "one_hot_categorical": Family(
        {"logits": _logits, "probs": _probs},
        Num("int", UNIT),
        like="logits",
        event_rank=1,
        enum=True,
        either=_BY_PROBS,
    ),
    "binomial": Family(
        {"total_count": _count, "logits": _real, "probs": _unit},
        Num("int", NONNEGATIVE),
        enum=True,
        either=_BY_PROBS,
    ),
    "multinomial": Family(
        {"total_count": _count, "logits": _logits, "probs": _probs},
        Num("int", NONNEGATIVE),
        like="logits",
        event_rank=1,
        either=_BY_PROBS,
    ),
    "poisson": _counts(_BY_RATE, rate=_positive, log_rate=_real),
    "geometric": _counts(_BY_PROBS, logits=_real, probs=_unit),
    "negative_binomial": _counts(_BY_PROBS, total_count=_count, logits=_real, probs=_unit),
    "zipf": Family(
        {"power": Parameter(within=Interval(1.0, INF, True))}, Num("int", Interval(1.0))
    ),
}
"""Every distribution of the language with a fixed family."""

STRATEGIES: dict[str, str | None] = {
    "reparam": "a distribution whose draws are differentiable in its parameters",
    "enum": "a distribution with a finite list of values",
    **dict.fromkeys(
        (
            *("score", "mvd", "local", "rejection", "rebar", "relax", "lax"),
            *("arm", "arms", "disarm", "unordered_set", "sum_and_sample"),
            *("gumbel_softmax", "straight_through", "spa", "dropped"),
        )
    ),
}
"""Gradient strategies, and what a distribution must be for them.

`None`: the compiler says which choices can have it.
"""
