"""`check_distribution`: what a new distribution must keep, for users who add one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ppl.compiler.strategies.base import strategies as all_strategies
from ppl.errors import PplError
from ppl.lang.distribution import Distribution
from ppl.lang.family import Family
from ppl.lang.param import param
from ppl.lang.staged import stage
from ppl.lang.supports import Support
from ppl.testing.outcomes import exact_expectation
from ppl.testing.unbiased import FALSE_ALARM, assert_unbiased, z_bound

_GRID = 4001
_REACH = 20.0
"""The grid runs to sinh(20) = 2e8 times the spread, which holds all but 1e-9 of a Cauchy law."""

_MAX_DRAWS = 2_000_000
"""Gradients of one strategy, at most."""

Params = dict[str, Array]


class DistributionError(PplError, AssertionError):
    """A distribution's sampler, density, support and strategies do not fit together."""


@dataclass
class Checked:
    """What `check_distribution` looked at: `check -> result`, in words."""

    distribution: str
    results: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"  {name}: {result}" for name, result in self.results.items()]
        return "\n".join([self.distribution, *rows])


def check_distribution(
    dist: Distribution,
    *args: Any,
    strategies: list[str] | None = None,
    draws: int = 100_000,
    bias: float = 0.03,
    false_alarm: float = FALSE_ALARM,
    key: Key[Array, ""] | None = None,
    **params: Any,
) -> Checked:
    """Test that a distribution's parts fit together, at one setting of its parameters.

    Draws have the declared shape and dtype, lie in the support, and have finite log-density; the
    density integrates to one (by quadrature for numbers, by importance sampling for vectors, by
    the mass of the values drawn, with Good and Turing's estimate of the rest, for discrete ones);
    draws follow it (Kolmogorov and Smirnov's test, importance weights, frequencies); and the
    gradient by each strategy that it offers, and that is not marked biased, is unbiased, for a
    smooth bounded function of the draw.

    Args:
        dist: a distribution of `ppl`; `args` and `params` are its parameters, without batch axes.
            Whole numbers (a number of trials) are kept fixed, other parameters differentiated.
        strategies: names of those to test; all that the distribution offers if `None`.
        draws: of the sampler. A cumulative probability that is off by 5 / sqrt(draws) (1.6 %) is
            seen with a probability of 99 %.
        bias: of a gradient that must be caught, relative to its largest entry.
        false_alarm: probability that a right distribution fails one of these checks.
        key: random key; `jax.random.key(0)` if `None`.

    Returns:
        what was looked at.

    Raises:
        DistributionError: something does not fit.
        BiasError, InconclusiveError: a strategy's gradient is biased, or this cannot be seen.
    """
    family = dist.family.value
    fixed = {n for n, x in _by_name(family, args, params).items() if _is_whole(x)}
    values = {n: jnp.asarray(x) for n, x in family.bind(args, params).items()}
    key = jax.random.key(0) if key is None else key
    check = _Check(family, values, draws, false_alarm, key)
    check.draws_fit()
    if family.kind == "float":
        support = family.support_of(values)
        if support.bijector is None:
            raise DistributionError(
                f"{family.name}: its support {support} has no map from unconstrained reals",
                fix="give the support a bijector (ppl.lang.supports)",
            )
        check.numbers(support) if support.event_ndims == 0 else check.vectors(support)
    else:
        check.discrete()
    check.strategies(dist, fixed, strategies, bias)
    return check.seen


def _by_name(family: Family, args: Any, params: Any) -> dict[str, Any]:
    return {**dict(zip(family.parameters, args, strict=False)), **params}


def _is_whole(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.integer)


def _normalised(name: str, value: Array) -> Array:
    """Probabilities keep their sum: off the simplex no derivative is the right one."""
    return value / jnp.sum(value) if name == "probs" and value.ndim else value


class _Check:
    """One run of `check_distribution`."""

    def __init__(self, family: Family, params: Params, draws: int, alarm: float, key: Any):
        self.family, self.params, self.alarm, self.key = family, params, alarm, key
        shapes = {n: p.shape for n, p in params.items()}
        self.event = tuple(family.event_shape(shapes))
        if family.batch_shape(shapes) != ():
            self.fail("its parameters have batch axes", f"shapes are {shapes}")
        self.x = family.sample(key, (draws,), **params)
        self.logp = family.log_density(self.x, **params)
        self.seen = Checked(f"{family.name}({', '.join(f'{n}={p}' for n, p in params.items())})")
        self.exact: Callable[[Callable, Params], Array] | None = None
        """`(f, params) -> E f(x)`, differentiable"""

    def fail(self, what: str, because: str) -> None:
        raise DistributionError(f"{self.family.name}: {what}", because=because)

    def draws_fit(self) -> None:
        n, family = len(self.x), self.family
        if self.x.shape != (n, *self.event):
            self.fail(
                "draws have the wrong shape",
                f"expected {(n, *self.event)}, found {self.x.shape}",
            )
        dtype = family.dtype(self.params)
        if self.x.dtype != dtype:
            self.fail("draws have the wrong dtype", f"expected {dtype}, found {self.x.dtype}")
        inside = np.asarray(family.support_of(self.params).check(self.x))
        if not inside.all():
            first = np.asarray(self.x)[~inside][0]
            self.fail("draws lie outside of the support", f"{(~inside).sum()} of {n}, e.g. {first}")
        logp = np.asarray(self.logp)
        if logp.shape != (n,):
            self.fail("log-densities have the wrong shape", f"expected {(n,)}, found {logp.shape}")
        if not np.isfinite(logp).all():
            at = np.asarray(self.x)[~np.isfinite(logp)][0]
            self.fail("the log-density of a draw is not finite", f"at {at}")
        self.seen.results["draws"] = f"{n} of shape {self.event} in the support, density finite"

    # ------------------------------------------------------------------------------ discrete

    def discrete(self) -> None:
        n = len(self.x)
        rows = np.asarray(self.x).reshape(n, -1)
        values, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
        p = np.exp(np.asarray(self.logp, float)[first])
        listed = self.family.enumerate and self.family.enumerate(self.params)
        if listed is not None and listed is not False:
            total = np.exp(np.asarray(self.family.log_density(listed, **self.params), float)).sum()
            unseen, slack = 0.0, 1e-4
        else:
            ones, twos = (counts == 1).sum(), (counts == 2).sum()
            total = p.sum()
            unseen, slack = ones / n, 1e-4 + 6 * math.sqrt(ones + 2 * twos + 1) / n
        if not abs(total + unseen - 1) < slack:
            self.fail(
                "its probabilities do not sum to one",
                f"those of the values sum to {total:.6g}, and about {unseen:.2g} was not seen",
            )
        often = p * n >= 25
        if p[often].size:
            z = (counts[often] - n * p[often]) / np.sqrt(n * p[often] * (1 - p[often]) + 1e-6 * n)
            bound = z_bound(int(often.sum()), self.alarm) + 0.5  # a binomial is a little skewed
            if np.max(np.abs(z)) > bound:
                i = int(np.argmax(np.abs(z)))
                self.fail(
                    "draws do not follow the probabilities",
                    f"value {values[often][i].squeeze()} has probability {p[often][i]:.4g} and "
                    f"came {counts[often][i]} times in {n} (z = {z[i]:.1f})",
                )
        self.seen.results["probabilities"] = f"sum to {total + unseen:.5f}, and draws follow them"

    # ------------------------------------------------------------------------------- numbers

    def numbers(self, support: Support) -> None:
        u = np.asarray(support.unconstrain(self.x), float)
        low, centre, high = np.quantile(u[np.isfinite(u)], [0.25, 0.5, 0.75])
        grid = np.linspace(-_REACH, _REACH, _GRID)
        spread = max(high - low, 1e-6)
        points = jnp.asarray(centre + spread * np.sinh(grid))
        steps = jnp.asarray(spread * np.cosh(grid) * (grid[1] - grid[0]))

        def masses(params: Params) -> tuple[Array, Array]:
            """Probability of each grid cell, and the values; both move with the parameters."""

            def density(u: Array) -> tuple[Array, Array]:
                moved = self.family.support_of(params)
                x, slope = jax.jvp(moved.constrain, (u,), (jnp.ones_like(u),))
                slope = jnp.abs(slope)  # the map may be decreasing
                safe = jnp.where(slope > 0, slope, 1)
                logp = self.family.log_density(x, **params) + jnp.log(safe)
                return jnp.where(slope > 0, logp, -jnp.inf), x

            every = jax.vmap(density)
            # Where nothing is to be found, formulas may be infinite: the middle stands in.
            matters = jax.lax.stop_gradient(every(points)[0])
            matters = jnp.isfinite(matters) & (matters > -80)
            logp, x = every(jnp.where(matters, points, centre))
            return jnp.where(matters, jnp.exp(logp) * steps, 0), x

        mass, at = (np.asarray(a, float) for a in jax.jit(masses)(self.params))
        if not abs(mass.sum() - 1) < 2e-3:
            self.fail("its density does not integrate to one", f"but to {mass.sum():.6g}")
        order = np.argsort(at, kind="stable")
        cdf = np.cumsum(mass[order]) - mass[order] / 2
        x = np.sort(np.asarray(self.x, float))
        n = len(x)
        expected = np.interp(x, at[order], cdf)
        distance = np.max(np.abs(expected - (np.arange(n) + 0.5) / n)) - 0.5 / n
        bound = math.sqrt(-0.5 * math.log(self.alarm / 2) / n) + 5e-4  # 5e-4: quadrature
        if distance > bound:
            self.fail(
                "draws do not follow the density",
                f"the distribution functions differ by {distance:.4f}, more than {bound:.4f}",
            )

        def exact(f: Callable, params: Params) -> Array:
            mass, x = masses(params)
            return jnp.sum(mass * jax.vmap(f)(x))

        self.exact = exact
        self.seen.results["density"] = f"integrates to {mass.sum():.5f}, and draws follow it"

    # ------------------------------------------------------------------------------- vectors

    def vectors(self, support: Support) -> None:
        """Importance sampling between the draws and a Student law fitted to them."""
        n, bijector = len(self.x), support.bijector()
        inner = np.asarray(support.unconstrain(self.x), float)
        u = inner.reshape(n, -1)
        if not np.isfinite(u).all():
            self.fail("draws cannot be unconstrained", f"the support is {support}")
        mean, d = u.mean(0), u.shape[1]
        root = np.linalg.cholesky(np.cov(u.T).reshape(d, d) + 1e-9 * np.eye(d))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(self.key)))
        df = 5.0
        normal = rng.normal(size=(n, d)) / np.sqrt(rng.chisquare(df, size=(n, 1)) / df)
        proposals = mean + 1.3 * normal @ root.T

        def log_q(u: np.ndarray, scale: float) -> np.ndarray:
            z = np.linalg.solve(root, (u - mean).T).T / scale
            norm = math.lgamma((df + d) / 2) - math.lgamma(df / 2) - d / 2 * math.log(df * math.pi)
            log_det = np.log(np.diag(root)).sum() + d * math.log(scale)
            return norm - log_det - (df + d) / 2 * np.log1p((z**2).sum(1) / df)

        def log_p(u: np.ndarray) -> np.ndarray:
            at = jnp.asarray(u.reshape(n, *inner.shape[1:]), self.x.dtype)
            x, det = bijector.forward(at), bijector.forward_log_det_jacobian(at)
            return np.asarray(self.family.log_density(x, **self.params) + det, float)

        weight = np.exp(log_p(proposals) - log_q(proposals, 1.3))
        weight = np.where(np.isfinite(weight), weight, 0)
        statistics = {"its density": (np.ones(n), np.ones(n))}
        for i in range(d):
            s = lambda v, i=i: np.tanh((v[:, i] - mean[i]) / np.linalg.norm(root[i]))
            statistics[f"E tanh of coordinate {i}"] = s(proposals), s(u)
            statistics[f"E tanh^2 of coordinate {i}"] = s(proposals) ** 2, s(u) ** 2
        bound = z_bound(len(statistics), self.alarm)
        for name, (theirs, ours) in statistics.items():
            by_density = weight * theirs
            error = by_density.mean() - ours.mean()
            stderr = math.hypot(by_density.std(), ours.std()) / math.sqrt(n)
            if abs(error) > bound * stderr + 1e-3:
                what = "does not integrate to one, or draws do not follow it"
                self.fail(
                    "its density " + what,
                    f"{name} is {by_density.mean():.4f} by the density and {ours.mean():.4f} "
                    f"by draws (z = {error / stderr:.1f})",
                )
        self.seen.results["density"] = f"integrates to {weight.mean():.3f}, and draws follow it"

    # ---------------------------------------------------------------------------- strategies

    def _expected(self, cost: Callable, params: Params) -> Array:
        assert self.exact is not None
        given = {n: _normalised(n, x) for n, x in params.items()}
        return self.exact(cost, {**self.params, **given})

    def strategies(
        self, dist: Distribution, fixed: set[str], names: list[str] | None, bias: float
    ) -> None:
        low, middle, high = np.quantile(np.asarray(self.x, float), [0.1, 0.5, 0.9], axis=0)
        scale = np.where(high > low, high - low, 1.0) / 2
        centre, width = (jnp.asarray(v, jnp.result_type(float)) for v in (middle, scale))
        # Bounded, so that heavy tails have moments; different speeds, so that no entry cancels.
        speeds = 0.5 + jnp.arange(math.prod(self.event) or 1).reshape(self.event) / 3

        def cost(x: Array) -> Array:
            return jnp.sum(jnp.sin(speeds * jnp.tanh((x - centre) / width) + 0.5))

        def objective(site: Distribution) -> Callable[[], Array]:
            def value() -> Array:
                given = {
                    n: np.asarray(p) if n in fixed else _normalised(n, param(n, p))
                    for n, p in self.params.items()
                }
                return cost(jnp.asarray(site(**given)).astype(float))

            return value

        moving = {n: p for n, p in self.params.items() if n not in fixed}
        (site,) = stage(lambda: objective(dist)()).sites
        offered = [n for n, s in all_strategies.items() if s.refusal(site) is None]
        for name in offered if names is None else names:
            if getattr(all_strategies.get(name), "biased", False):
                self.seen.results[f"strategy {name!r}"] = "marked as biased"
                continue
            how: dict[str, Any] = {"reference": {"*": "score"}} if name != "score" else {}
            if self.exact is not None:
                how = {"exact": partial(self._expected, cost)}
            elif self.family.enumerate and self.family.enumerate(self.params) is not None:
                how = {"exact": exact_expectation(objective(dist))[1]}
            try:
                report = assert_unbiased(
                    objective(dist.via(name)),
                    params=dict(moving),
                    bias=bias,
                    false_alarm=self.alarm,
                    whole_gradient=True,
                    max_draws=_MAX_DRAWS,
                    key=self.key,
                    **how,
                )
            except PplError as error:
                if "support of" in error.what and "moves" in error.what and names is None:
                    self.seen.results[f"strategy {name!r}"] = "not here: the support moves"
                    continue
                raise
            self.seen.results[f"strategy {name!r}"] = (
                f"unbiased, by {report.draws} draws; a bias of {bias:.0%} would be caught"
            )
