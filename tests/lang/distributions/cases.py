"""Every distribution with parameters, values and an independent reference in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special as sc
import scipy.stats as ss
from tensorflow_probability.substrates import jax as tfp

import ppl.lang.distributions as d
from ppl.lang.distribution import Distribution

Params = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """A distribution at fixed parameters, from SciPy or in closed form.

    Attributes:
        log_density: of an array of values, one number each.
        moments: E[x] and E[x**2], entry by entry; `None` where they are infinite.
        cdf: for numbers on a continuous support.
    """

    log_density: Callable[[np.ndarray], np.ndarray]
    moments: tuple[Any, Any] | None = None
    cdf: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Case:
    """A distribution and what is true of it.

    Attributes:
        params: sets of parameters, all of the same shapes.
        values: values inside of the support, stacked.
        outside: values outside of it, stacked.
        heavy: E[x**4] is infinite, so that an error of the mean of squares cannot be estimated.
    """

    dist: Distribution
    params: Sequence[Params]
    reference: Callable[..., Reference]
    values: Any
    outside: Any = ()
    heavy: bool = False
    label: str = ""

    def __str__(self) -> str:
        return self.label or self.dist.family.value.name

    @property
    def family(self) -> Any:
        return self.dist.family.value


def float32(params: Params) -> dict[str, jax.Array]:
    return {n: jnp.asarray(np.asarray(p, np.float32)) for n, p in params.items()}


# ------------------------------------------------------------------------------- references


def continuous(frozen: Any, moments: bool = True) -> Reference:
    mean = frozen.mean() if moments else 0.0
    second = frozen.var() + mean**2 if moments else 0.0
    return Reference(frozen.logpdf, (mean, second) if moments else None, frozen.cdf)


def discrete(frozen: Any, moments: bool = True) -> Reference:
    mean = frozen.mean() if moments else 0.0
    both = (mean, frozen.var() + mean**2) if moments else None
    return Reference(frozen.logpmf, both)


def bernoulli(p: float) -> Reference:
    return Reference(lambda x: np.log(np.where(x == 1, p, 1 - p)), (p, p))


def categorical(p: np.ndarray) -> Reference:
    k = np.arange(len(p))
    return Reference(lambda x: np.log(p)[x], (k @ p, k**2 @ p))


def one_hot(p: np.ndarray) -> Reference:
    return Reference(lambda x: x @ np.log(p), (p, p))


def multinomial(n: float, p: np.ndarray) -> Reference:
    frozen = ss.multinomial(int(n), p / p.sum())  # float32 rounding is an error there
    return Reference(frozen.logpmf, (n * p, n * p * (1 - p) + (n * p) ** 2))


def zipf(power: float) -> Reference:
    k = np.arange(1, 1_000_000)
    log_zeta = math.log(sc.zeta(power))
    mean = np.sum(k ** (1 - power)) / sc.zeta(power)
    second = np.sum(k ** (2.0 - power)) / sc.zeta(power)
    return Reference(lambda x: -power * np.log(x) - log_zeta, (mean, second))


def von_mises(loc: float, concentration: float) -> Reference:
    log_norm = math.log(2 * math.pi * sc.i0e(concentration)) + concentration
    return Reference(lambda x: concentration * np.cos(x - loc) - log_norm)


def dirichlet(concentration: np.ndarray) -> Reference:
    frozen = ss.dirichlet(concentration)
    log_density = lambda x: np.array([frozen.logpdf(v / v.sum()) for v in x])
    return Reference(log_density, (frozen.mean(), frozen.var() + frozen.mean() ** 2))


def mvn(loc: np.ndarray, covariance: np.ndarray) -> Reference:
    frozen = ss.multivariate_normal(loc, covariance)
    return Reference(frozen.logpdf, (loc, np.diag(covariance) + loc**2))


def outer(tril: np.ndarray) -> np.ndarray:
    return np.tril(tril) @ np.tril(tril).T


def wishart(df: float, scale_tril: np.ndarray) -> Reference:
    frozen = ss.wishart(df, outer(scale_tril))
    log_density = lambda x: np.array([frozen.logpdf(v) for v in x])
    return Reference(log_density, (frozen.mean(), frozen.var() + frozen.mean() ** 2))


def inverse_wishart(df: float, scale_tril: np.ndarray) -> Reference:
    frozen = ss.invwishart(df, outer(scale_tril))
    log_density = lambda x: np.array([frozen.logpdf(v) for v in x])
    return Reference(log_density, (frozen.mean(), frozen.var() + frozen.mean() ** 2))


def lkj(concentration: float) -> Reference:
    # For 3 x 3: E[L] from the Beta law of each row's squared length, E[L**2] likewise.
    c = concentration
    b1, b2 = ss.beta(0.5, c + 0.5), ss.beta(1, c)
    below1, below2 = b1.mean(), b2.mean()
    root = lambda a, b: math.exp(sc.betaln(a, b + 0.5) - sc.betaln(a, b))
    mean = np.diag([1, root(0.5, c + 0.5), root(1, c)])
    second = np.array([[1, 0, 0], [below1, 1 - below1, 0], [below2 / 2, below2 / 2, 1 - below2]])

    def log_density(x: np.ndarray) -> np.ndarray:
        rows = [sc.betaln(0.5, c + 0.5), math.log(math.pi) + sc.betaln(1, c)]
        return 2 * (c - 0.5) * np.log(x[:, 1, 1]) + 2 * (c - 1) * np.log(x[:, 2, 2]) - sum(rows)

    return Reference(log_density, (mean, second))


def mixture(weights: np.ndarray, parts: Sequence[Any]) -> Reference:
    """A mixture of SciPy distributions of numbers."""
    log_of = lambda f: f.logpdf if hasattr(f.dist, "logpdf") else f.logpmf

    def log_density(x: np.ndarray) -> np.ndarray:
        terms = [np.log(w) + log_of(f)(x) for w, f in zip(weights, parts, strict=True)]
        return np.logaddexp.reduce(terms, axis=0)

    mean = sum(w * f.mean() for w, f in zip(weights, parts, strict=True))
    second = sum(w * (f.var() + f.mean() ** 2) for w, f in zip(weights, parts, strict=True))
    cdf = lambda x: sum(w * f.cdf(x) for w, f in zip(weights, parts, strict=True))
    is_continuous = hasattr(parts[0].dist, "logpdf")
    return Reference(log_density, (mean, second), cdf if is_continuous else None)


# ------------------------------------------------------------------------------------ cases

REALS = [-3.0, -0.5, 0.0, 0.4, 2.5]
POSITIVES = [0.05, 0.4, 1.0, 2.5, 6.0]
NEGATIVES = [-2.0, -1e-3]
NOT_COUNTS = [-1.0, 0.5, -np.inf]
VECTORS = np.array([[0.0, 0.0, 0.0], [0.5, -1.0, 2.0], [-1.5, 0.3, 0.2]])
ON_SIMPLEX = np.array([[0.2, 0.3, 0.5], [0.01, 0.89, 0.1], [0.6, 0.15, 0.25]])
OFF_SIMPLEX = np.array([[0.2, 0.3, 0.6], [-0.2, 0.7, 0.5]])
TRIL = np.array([[1.2, 0.0, 0.0], [0.3, 0.8, 0.0], [-0.4, 0.5, 1.1]])
MATRICES = np.stack([np.eye(3), outer(TRIL), outer(TRIL + np.eye(3))])
NOT_COVARIANCES = np.stack([-np.eye(3), np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1.0]])])
CORRELATIONS = np.linalg.cholesky(
    np.array([[[1, 0.3, -0.2], [0.3, 1, 0.4], [-0.2, 0.4, 1]], np.eye(3)])
)
LOGITS = np.array([0.3, -0.7, 1.1])

LOC_SCALE = [dict(loc=0.3, scale=1.2), dict(loc=-2.0, scale=0.4)]
RATES = [dict(rate=1.3), dict(rate=0.2)]
sigmoid, softmax = sc.expit, sc.softmax


def _both(dist: Distribution, logits: Any, reference: Callable, to_probs: Any, **kwargs: Any):
    """A case by logits and one by probabilities."""
    fixed = kwargs.pop("fixed", {})
    name = dist.family.value.name
    return [
        Case(
            dist,
            [{**fixed, "logits": l} for l in logits],
            lambda logits, **other: reference(**other, p=to_probs(logits)),
            label=f"{name} by logits",
            **kwargs,
        ),
        Case(
            dist,
            [{**fixed, "probs": to_probs(l)} for l in logits],
            lambda probs, **other: reference(**other, p=probs),
            label=f"{name} by probs",
            **kwargs,
        ),
    ]


NUMBERS = [
    Case(d.normal, LOC_SCALE, lambda loc, scale: continuous(ss.norm(loc, scale)), REALS),
    Case(
        d.log_normal,
        [dict(loc=0.3, scale=0.5), dict(loc=-1.0, scale=0.3)],
        lambda loc, scale: continuous(ss.lognorm(scale, scale=np.exp(loc))),
        POSITIVES,
        [-1.0, 0.0, np.inf],
    ),
    Case(
        d.half_normal,
        [dict(scale=1.2), dict(scale=0.4)],
        lambda scale: continuous(ss.halfnorm(scale=scale)),
        POSITIVES,
        NEGATIVES,
    ),
    Case(
        d.student_t,
        [dict(df=7.0, loc=0.3, scale=1.2), dict(df=30.0, loc=-1.0, scale=0.4)],
        lambda df, loc, scale: continuous(ss.t(df, loc, scale)),
        REALS,
    ),
    Case(d.laplace, LOC_SCALE, lambda loc, scale: continuous(ss.laplace(loc, scale)), REALS),
    Case(
        d.cauchy,
        LOC_SCALE,
        lambda loc, scale: continuous(ss.cauchy(loc, scale), moments=False),
        REALS,
        heavy=True,
    ),
    Case(
        d.half_cauchy,
        [dict(loc=0.3, scale=1.2), dict(loc=-2.0, scale=0.4)],
        lambda loc, scale: continuous(ss.halfcauchy(loc, scale), moments=False),
        [0.4, 1.0, 5.0],
        [-3.0, -2.5],
        heavy=True,
    ),
    Case(d.logistic, LOC_SCALE, lambda loc, scale: continuous(ss.logistic(loc, scale)), REALS),
    Case(d.gumbel, LOC_SCALE, lambda loc, scale: continuous(ss.gumbel_r(loc, scale)), REALS),
    Case(
        d.uniform,
        [dict(low=-1.0, high=2.0), dict(low=0.2, high=0.9)],
        lambda low, high: continuous(ss.uniform(low, high - low)),
        [0.25, 0.5, 0.8],
        [-1.5, 2.5],
    ),
    Case(
        d.beta,
        [
            dict(concentration1=2.0, concentration0=3.5),
            dict(concentration1=0.7, concentration0=1.0),
        ],
        lambda concentration1, concentration0: continuous(ss.beta(concentration1, concentration0)),
        [0.01, 0.3, 0.5, 0.95],
        [-0.1, 1.1],
    ),
    Case(
        d.gamma,
        [dict(concentration=2.5, rate=1.3), dict(concentration=0.6, rate=4.0)],
        lambda concentration, rate: continuous(ss.gamma(concentration, scale=1 / rate)),
        POSITIVES,
        [*NEGATIVES, np.inf],
    ),
    Case(
        d.gamma,
        [dict(concentration=2.5, log_rate=0.3), dict(concentration=0.6, log_rate=1.2)],
        lambda concentration, log_rate: continuous(
            ss.gamma(concentration, scale=np.exp(-log_rate))
        ),
        POSITIVES,
        [*NEGATIVES, np.inf],
        label="gamma by log_rate",
    ),
    Case(
        d.inverse_gamma,
        [dict(concentration=6.5, scale=2.0), dict(concentration=9.0, scale=4.0)],
        lambda concentration, scale: continuous(ss.invgamma(concentration, scale=scale)),
        POSITIVES,
        [*NEGATIVES, 0.0, np.inf],
    ),
    Case(
        d.chi2,
        [dict(df=3.0), dict(df=1.2)],
        lambda df: continuous(ss.chi2(df)),
        POSITIVES,
        NEGATIVES,
    ),
    Case(
        d.exponential,
        RATES,
        lambda rate: continuous(ss.expon(scale=1 / rate)),
        POSITIVES,
        NEGATIVES,
    ),
    Case(
        d.weibull,
        [dict(concentration=1.7, scale=2.0), dict(concentration=0.9, scale=0.5)],
        lambda concentration, scale: continuous(ss.weibull_min(concentration, scale=scale)),
        POSITIVES,
        [*NEGATIVES, np.inf],
    ),
    Case(
        d.von_mises,
        [dict(loc=0.3, concentration=2.0), dict(loc=2.5, concentration=0.4)],
        von_mises,
        [-3.0, -1.0, 0.3, 3.1],
        [-3.5, 4.0],
    ),
    Case(
        d.mixture_same_family(d.normal),
        [
            dict(logits=LOGITS, loc=np.array([-1.0, 0.5, 2.0]), scale=np.array([0.5, 1.0, 0.7])),
            dict(logits=-LOGITS, loc=np.array([0.0, 0.0, 1.0]), scale=np.array([0.5, 2.0, 0.7])),
        ],
        lambda logits, loc, scale: mixture(
            softmax(logits), [ss.norm(m, s) for m, s in zip(loc, scale, strict=True)]
        ),
        REALS,
    ),
    Case(
        d.mixture_same_family(d.gamma),
        [
            dict(
                probs=softmax(LOGITS),
                concentration=np.array([1.5, 3.0, 8.0]),
                rate=np.array([1.0, 1.5, 2.0]),
            )
        ],
        lambda probs, concentration, rate: mixture(
            probs, [ss.gamma(c, scale=1 / r) for c, r in zip(concentration, rate, strict=True)]
        ),
        POSITIVES,
        [*NEGATIVES, np.inf],
    ),
    Case(
        d.mixture_same_family(d.uniform),
        [dict(logits=LOGITS[:2], low=np.array([0.0, 2.0]), high=np.array([1.0, 3.0]))],
        lambda logits, low, high: mixture(
            softmax(logits), [ss.uniform(a, b - a) for a, b in zip(low, high, strict=True)]
        ),
        [0.2, 0.9, 2.5],
        [-0.5, 1.5, 4.0],
    ),
    Case(
        d.from_tfp(tfp.distributions.Kumaraswamy),
        [dict(concentration1=2.0, concentration0=1.5)],
        lambda concentration1, concentration0: Reference(
            lambda x: (
                np.log(concentration1 * concentration0)
                + (concentration1 - 1) * np.log(x)
                + (concentration0 - 1) * np.log1p(-(x**concentration1))
            ),
            tuple(concentration0 * sc.beta(1 + n / concentration1, concentration0) for n in (1, 2)),
            lambda x: 1 - (1 - x**concentration1) ** concentration0,
        ),
        [0.1, 0.5, 0.9],
        [-0.5, 1.5],
    ),
]

VECTOR_CASES = [
    Case(
        d.multivariate_normal,
        [dict(loc=np.array([0.3, -1.0, 0.2]), covariance_matrix=outer(TRIL))],
        lambda loc, covariance_matrix: mvn(loc, (covariance_matrix + covariance_matrix.T) / 2),
        VECTORS,
    ),
    Case(
        d.multivariate_normal_diag,
        [dict(loc=np.array([0.3, -1.0, 0.2]), scale_diag=np.array([0.5, 1.2, 2.0]))],
        lambda loc, scale_diag: mvn(loc, np.diag(scale_diag**2)),
        VECTORS,
    ),
    Case(
        d.multivariate_normal_tri,
        [dict(loc=np.array([0.3, -1.0, 0.2]), scale_tril=TRIL)],
        lambda loc, scale_tril: mvn(loc, outer(scale_tril)),
        VECTORS,
    ),
    Case(
        d.dirichlet,
        [dict(concentration=np.array([1.5, 0.8, 3.0])), dict(concentration=np.ones(3))],
        dirichlet,
        ON_SIMPLEX,
        OFF_SIMPLEX,
    ),
    Case(
        d.wishart,
        [dict(df=5.5, scale_tril=TRIL), dict(df=4.2, scale_tril=TRIL / 2)],
        wishart,
        MATRICES,
        NOT_COVARIANCES,
    ),
    Case(
        d.inverse_wishart,
        [dict(df=16.0, scale_tril=TRIL)],
        inverse_wishart,
        MATRICES,
        NOT_COVARIANCES,
    ),
    Case(
        d.lkj_cholesky(3),
        [dict(concentration=1.0), dict(concentration=2.5)],
        lkj,
        CORRELATIONS,
        np.stack([2 * np.eye(3), -np.eye(3)]),
    ),
]

DISCRETE = [
    Case(d.flip, [dict(p=0.3), dict(p=0.9)], bernoulli, [0, 1], [2, -1]),
    *_both(d.bernoulli, [0.0, 1.5], bernoulli, sigmoid, values=[0, 1], outside=[2.0, -1.0, 0.5]),
    *_both(
        d.categorical,
        [LOGITS, np.zeros(3)],
        categorical,
        softmax,
        values=[0, 1, 2],
        outside=[-1.0, 3.0, 0.5],
    ),
    *_both(
        d.one_hot_categorical,
        [LOGITS, np.zeros(3)],
        one_hot,
        softmax,
        values=np.eye(3, dtype=int),
        outside=np.array([[0.0, 0, 0], [1, 1, 0], [2, -1, 0]]),
    ),
    *_both(
        d.binomial,
        [0.0, 1.5],
        lambda total_count, p: discrete(ss.binom(total_count, p)),
        sigmoid,
        fixed=dict(total_count=7.0),
        values=[0, 1, 4, 7],
        outside=[*NOT_COUNTS, 8.0],
    ),
    *_both(
        d.multinomial,
        [LOGITS, np.zeros(3)],
        lambda total_count, p: multinomial(total_count, p),
        softmax,
        fixed=dict(total_count=4.0),
        values=np.array([[0, 0, 4], [1, 2, 1], [4, 0, 0]]),
        outside=np.array([[0.0, 0, 5], [-1, 3, 2], [0.5, 1.5, 2]]),
    ),
    Case(
        d.poisson,
        [dict(rate=1.3), dict(rate=25.0)],
        lambda rate: discrete(ss.poisson(rate)),
        [0, 1, 4, 20],
        [*NOT_COUNTS, np.inf],
    ),
    Case(
        d.poisson,
        [dict(log_rate=0.3), dict(log_rate=3.0)],
        lambda log_rate: discrete(ss.poisson(np.exp(log_rate))),
        [0, 1, 4, 20],
        [*NOT_COUNTS, np.inf],
        label="poisson by log_rate",
    ),
    *_both(
        d.geometric,
        [0.0, -1.5],
        lambda p: discrete(ss.geom(p, loc=-1)),
        sigmoid,
        values=[0, 1, 4],
        outside=[*NOT_COUNTS, np.inf],
    ),
    *_both(
        d.negative_binomial,
        [0.0, 1.5],
        lambda total_count, p: discrete(ss.nbinom(total_count, 1 - p)),
        sigmoid,
        fixed=dict(total_count=2.5),
        values=[0, 1, 4, 20],
        outside=[*NOT_COUNTS, np.inf],
    ),
    Case(
        d.zipf,
        [dict(power=6.5), dict(power=7.0)],
        zipf,
        [1, 2, 7],
        [*NOT_COUNTS, 0.0],
    ),
    Case(
        d.mixture_same_family(d.poisson),
        [dict(logits=LOGITS[:2], rate=np.array([0.5, 6.0]))],
        lambda logits, rate: mixture(softmax(logits), [ss.poisson(r) for r in rate]),
        [0, 1, 5],
        NOT_COUNTS,
    ),
]

POINTS = [
    Case(
        d.delta,
        [dict(loc=0.5), dict(loc=0.5)],
        lambda loc: Reference(lambda x: np.zeros(np.shape(x)), (loc, loc**2)),
        [0.5],
        [0.4, 0.6],
    )
]

CASES = [*NUMBERS, *VECTOR_CASES, *DISCRETE, *POINTS]
