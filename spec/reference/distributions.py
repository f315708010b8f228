"""Distributions: points and weights to sum over, and log-densities."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from spec.reference.analytic import absolute, log
from spec.reference.outcomes import World

TAIL = 1e-13
"""Probability that may be cut off where a discrete support is infinite."""


@dataclass(frozen=True)
class Dist:
    """A distribution, entry by entry: `params` are arrays that broadcast together."""

    name: str
    params: dict[str, Any]

    def log_density(self, x: Any) -> complex:
        """Of all entries together."""
        if (key := self._key()) is not None and np.ndim(x) == 0:
            return _log_density_of_number(self.name, complex(x), key)
        return complex(np.sum(LOG_DENSITY[self.name](np.asarray(x), **self._ready())))

    def draw(self, world: World) -> Any:
        """A value, entry by entry."""
        if (key := self._key()) is not None:
            return world.pick(_points_of_number(self.name, key))
        params = self._ready()
        if self.name in VECTORS:
            return world.pick(VECTORS[self.name](**params))
        if self.name == "categorical":
            return world.pick(points(self.name, params))
        shape = np.broadcast_shapes(*(p.shape for p in params.values()))
        wide = {n: np.broadcast_to(p, shape) for n, p in params.items()}
        entries = [
            Dist(self.name, {n: p[index] for n, p in wide.items()}).draw(world)
            for index in np.ndindex(shape)
        ]
        return np.reshape(np.asarray(entries), shape)

    def _ready(self) -> dict[str, Any]:
        return {n: np.asarray(p) for n, p in self.params.items()}

    def _key(self) -> tuple[tuple[str, complex], ...] | None:
        """The parameters, if all are numbers: the same ones come again in many outcomes."""
        if any(np.ndim(p) for p in self.params.values()):
            return None
        return tuple((n, complex(p)) for n, p in self.params.items())


@functools.lru_cache(maxsize=100_000)
def _points_of_number(name: str, params: tuple[tuple[str, complex], ...]) -> list[Any]:
    return points(name, {n: _plain(p) for n, p in params})


@functools.lru_cache(maxsize=100_000)
def _log_density_of_number(name: str, x: complex, params: tuple[tuple[str, complex], ...]) -> Any:
    found = LOG_DENSITY[name](np.asarray(_plain(x)), **{n: _plain(p) for n, p in params})
    return complex(found)


def _plain(x: complex) -> Any:
    return np.float64(x.real) if x.imag == 0 else np.complex128(x)


def points(name: str, params: dict[str, Any]) -> list[tuple[Any, complex]]:
    """Values of one entry, with their probabilities or integration weights."""
    if name in SUPPORTS:
        values = SUPPORTS[name](params)
        return [(x, np.exp(LOG_DENSITY[name](np.asarray(x), **params))) for x in values]
    # Nodes at the real parameters; the factor moves with the parameters, as the density does.
    still = {n: np.real(p) for n, p in params.items()}
    nodes, weights = NODES[name](**still) if name in NODES else _panels(name, still)
    log_density = LOG_DENSITY[name]
    factors = np.exp(log_density(nodes, **params) - log_density(nodes, **still))
    return list(zip(nodes, weights * factors, strict=True))


def _hermite(loc: Any, scale: Any) -> tuple[Any, Any]:
    x, w = _hermegauss(HERMITE)
    return loc + scale * x, w / np.sqrt(2 * np.pi)


_hermegauss = functools.cache(np.polynomial.hermite_e.hermegauss)
HERMITE = 20
"""Nodes for a normal choice: polynomials up to degree 39 are exact."""


def _log_hermite(loc: Any, scale: Any) -> tuple[Any, Any]:
    x, w = _hermite(loc, scale)
    return np.exp(x), w


def _laguerre(concentration: Any, rate: Any = None, log_rate: Any = None) -> tuple[Any, Any]:
    x, w = special.roots_genlaguerre(HERMITE, concentration - 1)
    rate = np.exp(log_rate) if rate is None else rate
    return x / rate, w / special.gamma(concentration)


def _jacobi(concentration1: Any, concentration0: Any) -> tuple[Any, Any]:
    x, w = special.roots_sh_jacobi(HERMITE, concentration1 + concentration0 - 1, concentration1)
    return x, w / np.sum(w)


def _legendre(low: Any = 0.0, high: Any = 1.0) -> tuple[Any, Any]:
    x, w = np.polynomial.legendre.leggauss(HERMITE)
    return low + (high - low) * (x + 1) / 2, w / 2


def _panels(name: str, params: dict[str, Any]) -> tuple[Any, Any]:
    """Gauss-Legendre between quantiles, for any distribution of SciPy's."""
    law = SCIPY[name](**params)
    tails = [1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 0.1]
    edges = [*law.ppf(tails), law.ppf(0.5), *law.isf(tails[::-1])]
    x, w = np.polynomial.legendre.leggauss(8)
    parts = [((a + b) / 2 + (b - a) / 2 * x, (b - a) / 2 * w) for a, b in itertools.pairwise(edges)]
    nodes = np.concatenate([p[0] for p in parts])
    return nodes, np.concatenate([p[1] for p in parts]) * law.pdf(nodes)


NODES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "normal": _hermite,
    "log_normal": _log_hermite,
    "gamma": _laguerre,
    "exponential": lambda rate: _laguerre(1.0, rate),
    "beta": _jacobi,
    "uniform": _legendre,
    "delta": lambda loc: (np.array([loc]), np.array([1.0])),
}
SCIPY: dict[str, Callable[..., Any]] = {
    "half_normal": lambda scale: stats.halfnorm(scale=scale),
    "laplace": lambda loc, scale: stats.laplace(loc, scale),
    "logistic": lambda loc, scale: stats.logistic(loc, scale),
    "gumbel": lambda loc, scale: stats.gumbel_r(loc, scale),
    "inverse_gamma": lambda concentration, scale: stats.invgamma(concentration, scale=scale),
    "chi2": lambda df: stats.chi2(df),
    "student_t": lambda df, loc=0.0, scale=1.0: stats.t(df, loc, scale),
    "weibull": lambda concentration, scale: stats.weibull_min(concentration, scale=scale),
    "cauchy": lambda loc, scale: stats.cauchy(loc, scale),
    "half_cauchy": lambda loc, scale: stats.halfcauchy(loc, scale),
}


def _count(law: Any) -> list[int]:
    return list(range(int(law.isf(TAIL)) + 1))


def _rate(p: Mapping[str, Any]) -> Any:
    return p["rate"] if "rate" in p else np.exp(p["log_rate"])


def _prob(p: Mapping[str, Any]) -> Any:
    return p["probs"] if "probs" in p else 1 / (1 + np.exp(-p["logits"]))


SUPPORTS: dict[str, Callable[[Mapping[str, Any]], list[Any]]] = {
    "flip": lambda p: [False, True],
    "bernoulli": lambda p: [0, 1],
    "categorical": lambda p: list(range(np.shape(next(iter(p.values())))[-1])),
    "binomial": lambda p: list(range(int(np.real(p["total_count"])) + 1)),
    "poisson": lambda p: _count(stats.poisson(np.real(_rate(p)))),
    "geometric": lambda p: _count(stats.geom(np.real(_prob(p)))),
    "negative_binomial": lambda p: _count(
        stats.nbinom(np.real(p["total_count"]), 1 - np.real(_prob(p)))
    ),
}


def _one_hots(**p: Any) -> list[tuple[Any, complex]]:
    size = np.shape(next(iter(p.values())))[-1]
    return [(x, np.exp(_categorical(np.argmax(x), **p))) for x in np.eye(size, dtype=int)]


VECTORS: dict[str, Callable[..., list[tuple[Any, complex]]]] = {"one_hot_categorical": _one_hots}


def _normal(x: Any, loc: Any, scale: Any) -> Any:
    return -0.5 * ((x - loc) / scale) ** 2 - log(scale) - 0.5 * np.log(2 * np.pi)


def _bernoulli(x: Any, p: Any) -> Any:
    return np.where(np.asarray(x, bool), log(p), log(1 - p))


def _weights(logits: Any = 0.0, probs: Any = None) -> Any:
    if probs is not None:
        return log(probs / np.sum(probs, -1, keepdims=True))
    return logits - log(np.sum(np.exp(logits), -1, keepdims=True))


def _categorical(x: Any, logits: Any = None, probs: Any = None) -> Any:
    table = _weights(logits, probs)
    x = np.asarray(x, int)
    table = np.broadcast_to(
        table, (*np.broadcast_shapes(x.shape, table.shape[:-1]), table.shape[-1])
    )
    return np.take_along_axis(table, x[..., None], -1)[..., 0]


def _choose(n: Any, k: Any) -> Any:
    return special.loggamma(n + 1) - special.loggamma(k + 1) - special.loggamma(n - k + 1)


def _gamma(x: Any, concentration: Any, rate: Any = None, log_rate: Any = None) -> Any:
    log_rate = log(rate) if log_rate is None else log_rate
    a, x = concentration, np.asarray(x)
    return a * log_rate - special.loggamma(a) + (a - 1) * log(x) - np.exp(log_rate) * x


def _beta(x: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    scale = special.loggamma(a + b) - special.loggamma(a) - special.loggamma(b)
    return scale + (a - 1) * log(x) + (b - 1) * log(1 - x)


def _student_t(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
    z = (x - loc) / scale
    top = special.loggamma((df + 1) / 2) - special.loggamma(df / 2)
    return top - 0.5 * log(df * np.pi) - log(scale) - (df + 1) / 2 * np.log1p(z**2 / df)


def _dirichlet(x: Any, concentration: Any) -> Any:
    a = concentration
    scale = special.loggamma(np.sum(a, -1)) - np.sum(special.loggamma(a), -1)
    return scale + np.sum((a - 1) * log(x), -1)


def _binomial(x: Any, total_count: Any, **p: Any) -> Any:
    p1 = _prob(p)
    return _choose(total_count, x) + special.xlogy(x, p1) + special.xlogy(total_count - x, 1 - p1)


def _multivariate(x: Any, loc: Any, covariance: Any) -> Any:
    z = x - loc
    sign_and_log = np.linalg.slogdet(covariance)
    inner = np.sum(z * np.linalg.solve(covariance, z[..., None])[..., 0], -1)
    return -0.5 * (inner + sign_and_log[1] + np.shape(z)[-1] * np.log(2 * np.pi))


LOG_DENSITY: dict[str, Callable[..., Any]] = {
    "normal": _normal,
    "log_normal": lambda x, loc, scale: _normal(log(x), loc, scale) - log(x),
    "half_normal": lambda x, scale: _normal(x, 0.0, scale) + np.log(2),
    "laplace": lambda x, loc, scale: -absolute(x - loc) / scale - log(2 * scale),
    "cauchy": lambda x, loc, scale: -log(np.pi * scale) - log(1 + ((x - loc) / scale) ** 2),
    "half_cauchy": lambda x, loc, scale: (
        np.log(2) - log(np.pi * scale) - log(1 + ((x - loc) / scale) ** 2)
    ),
    "logistic": lambda x, loc, scale: (
        -(x - loc) / scale - log(scale) - 2 * log(1 + np.exp(-(x - loc) / scale))
    ),
    "gumbel": lambda x, loc, scale: -(x - loc) / scale - np.exp(-(x - loc) / scale) - log(scale),
    "student_t": _student_t,
    "uniform": lambda x, low=0.0, high=1.0: -log(high - low) + 0 * x,
    "beta": _beta,
    "gamma": _gamma,
    "inverse_gamma": lambda x, concentration, scale: (
        concentration * log(scale)
        - special.loggamma(concentration)
        - (concentration + 1) * log(x)
        - scale / x
    ),
    "chi2": lambda x, df: _gamma(x, df / 2, 0.5),
    "exponential": lambda x, rate: log(rate) - rate * x,
    "weibull": lambda x, concentration, scale: (
        log(concentration / scale)
        + (concentration - 1) * log(x / scale)
        - (x / scale) ** concentration
    ),
    "dirichlet": _dirichlet,
    "multivariate_normal": lambda x, loc, covariance_matrix: _multivariate(
        x, loc, covariance_matrix
    ),
    "multivariate_normal_diag": lambda x, loc, scale_diag: np.sum(_normal(x, loc, scale_diag), -1),
    "multivariate_normal_tri": lambda x, loc, scale_tril: _multivariate(
        x, loc, scale_tril @ np.swapaxes(scale_tril, -1, -2)
    ),
    "delta": lambda x, loc: np.where(np.real(x) == np.real(loc), 0.0, -np.inf),
    "flip": _bernoulli,
    "bernoulli": lambda x, **p: _bernoulli(x, _prob(p)),
    "categorical": _categorical,
    "one_hot_categorical": lambda x, **p: np.sum(x * _weights(**p), -1),
    "binomial": _binomial,
    "poisson": lambda x, **p: (
        special.xlogy(x, _rate(p)) - _rate(p) - special.loggamma(np.asarray(x) + 1.0)
    ),
    "geometric": lambda x, **p: x * log(1 - _prob(p)) + log(_prob(p)),
    "negative_binomial": lambda x, total_count, **p: (
        _choose(x + total_count - 1, np.asarray(x, float))
        + total_count * log(1 - _prob(p))
        + x * log(_prob(p))
    ),
}
"""Natural logarithms of the densities, entry by entry."""


PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("normal", "log_normal", "laplace", "cauchy", "half_cauchy", "logistic", "gumbel"),
        ("loc", "scale"),
    ),
    "half_normal": ("scale",),
    "student_t": ("df", "loc", "scale"),
    "uniform": ("low", "high"),
    "beta": ("concentration1", "concentration0"),
    "gamma": ("concentration", "rate", "log_rate"),
    "inverse_gamma": ("concentration", "scale"),
    "chi2": ("df",),
    "exponential": ("rate",),
    "weibull": ("concentration", "scale"),
    "dirichlet": ("concentration",),
    "multivariate_normal": ("loc", "covariance_matrix"),
    "multivariate_normal_diag": ("loc", "scale_diag"),
    "multivariate_normal_tri": ("loc", "scale_tril"),
    "delta": ("loc",),
    "flip": ("p",),
    "bernoulli": ("logits", "probs"),
    "categorical": ("logits", "probs"),
    "one_hot_categorical": ("logits", "probs"),
    "binomial": ("total_count", "logits", "probs"),
    "poisson": ("rate", "log_rate"),
    "geometric": ("logits", "probs"),
    "negative_binomial": ("total_count", "logits", "probs"),
}
