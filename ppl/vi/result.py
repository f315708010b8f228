"""`Fit`: what `vi.fit` returns."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ppl.compiler.estimator import Estimator, Params
from ppl.compiler.explain import Explanation
from ppl.compiler.objective import Objective
from ppl.errors import UnsupportedError
from ppl.lang.bind_params import bind_params
from ppl.lang.density import density, sim
from ppl.lang.observed import flat_choices, merge_observed
from ppl.lang.seed import seed
from ppl.vi import plots
from ppl.vi._inputs import bind_data
from ppl.vi._precision import precision
from ppl.vi.convergence import Diagnosis
from ppl.vi.diagnostics import Importance, Signal, smooth_weights
from ppl.vi.guides._latents import nest
from ppl.vi.summary import Summary, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ppl.vi.mcmc import Chains


_BATCH = 64  # estimates at a time, at most


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error, in the units of the objective."""

    mean: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.mean:.6g} ± {self.standard_error:.2g}"


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """Fitted parameters, and how they came about.

    Attributes:
        params: values by name, in their supports.
        losses: minus the estimated objective, at each step.
        estimator: the compiled objective.
        objective: what was maximised.
        data: the objective's arguments.
        key: random key of what is drawn from the result.
        interrupted: whether Ctrl-C or a callback stopped it early.
        seconds: time in the loop, without compilation.
        compile_seconds: time to compile it.
        convergence: the criterion's numbers at the end, if it was asked for.
        history: (steps made, parameters) of each snapshot.
        restarts: the mean loss of each restart over the last tenth of its steps, NaN where it went
            wrong; this fit is the lowest one.
        float64: whether it computes in double precision.
    """

    params: Params
    losses: Float[np.ndarray, " steps"]
    estimator: Estimator
    objective: Objective
    data: tuple[Any, ...] = field(default=())
    key: Key[Array, ""] | None = None
    interrupted: bool = False
    seconds: float = 0.0
    compile_seconds: float = 0.0
    convergence: Diagnosis | None = None
    history: tuple[tuple[int, Params], ...] = ()
    restarts: Float[np.ndarray, " restarts"] | None = None
    float64: bool = False

    @property
    def steps(self) -> int:
        """Number of steps made."""
        return len(self.losses)

    def sample(
        self, n: int, key: Key[Array, ""] | None = None, *, batch_size: int | None = None
    ) -> PyTree[Array]:
        """Draw from the guide with the fitted parameters.

        Args:
            n: number of draws.
            key: random key; the fit's own if `None`, so that equal calls draw the same.
            batch_size: how many draws are computed at a time; all if `None`.

        Returns:
            the guide's choices, with the draws along a new first axis.

        Raises:
            UnsupportedError: the objective says of no guide.
        """
        _, args = self._guide()
        with precision(self.float64):
            keys = jax.random.split(self._key("sample", key), n)
            return self._draw(keys, self.params, args, batch_size or n)

    def summary(
        self, n: int = 1_000, key: Key[Array, ""] | None = None, *, max_entries: int = 20
    ) -> Summary:
        """Mean, standard deviation and quantiles of the guide's choices.

        Args:
            n: number of draws that they are computed from.
            key: as in `sample`.
            max_entries: rows of one choice, at most.

        Returns:
            a `Summary`: prints as a table; `rows` holds its data.
        """
        return summarize(self.sample(n, key), max_entries=max_entries)

    def elbo(
        self, n: int = 1_000, key: Key[Array, ""] | None = None, *, data: Any = None
    ) -> Estimate:
        """Estimate the objective at the fitted parameters.

        Args:
            n: number of independent estimates to average; at least 2.
            key: random key; the fit's own if `None`.
            data: arguments of the objective, as for `vi.fit`, for example held-out ones; those
                of the fit if `None`.
        """
        if n < 2:
            raise ValueError(f"elbo: a standard error needs n >= 2, not {n}")

        data = self.data if data is None else bind_data(self.objective, data)
        with precision(self.float64):
            keys = jax.random.split(self._key("elbo", key), n)
            draws = np.asarray(self._values(keys, self.params, data), dtype=float)
        return Estimate(float(draws.mean()), float(draws.std(ddof=1) / np.sqrt(n)))

    def predictive(
        self, n: int, key: Key[Array, ""] | None = None, *, args: tuple[Any, ...] | None = None
    ) -> PyTree[Array]:
        """Draw new data from the posterior predictive distribution.

        Args:
            n: number of draws.
            key: as in `sample`.
            args: other arguments of the model (new inputs); those of the fit if `None`.

        Returns:
            the observed choices, drawn anew, with the draws along a new first axis.
        """
        _, observed, own_args = self._model()
        fixed = flat_choices(observed)
        with precision(self.float64):
            draws = self.sample(n, None if key is None else jax.random.fold_in(key, 1))
            given = nest({a: v for a, v in flat_choices(draws).items() if a not in fixed})
            keys = jax.random.split(self._key("predictive", key), n)
            drawn = self._predict(keys, given, self.params, own_args if args is None else args)
        return nest({a: v for a, v in flat_choices(drawn).items() if a in fixed})

    def importance(self, n: int = 1_000, key: Key[Array, ""] | None = None) -> Importance:
        """Weigh draws so that they stand for the posterior, and say how well they do (PSIS).

        Args:
            n: number of draws.
            key: random key; the fit's own if `None`.

        Raises:
            ImportError: the `arviz` extra is not installed.
            UnsupportedError: the objective knows no model.
        """
        _, args = self._guide()
        _, observed, model_args = self._model()
        with precision(self.float64):
            keys = jax.random.split(self._key("importance", key), n)
            draws, log_weights = self._weigh(keys, self.params, observed, model_args, args)
        smoothed, khat = smooth_weights(np.asarray(log_weights, float))
        effective = float(1 / np.exp(np.logaddexp.reduce(2 * smoothed)))
        return Importance(draws, smoothed, khat, effective)

    def khat(self, n: int = 1_000, key: Key[Array, ""] | None = None) -> float:
        """The Pareto tail of the importance weights: below 0.7 the fit is near the posterior."""
        return self.importance(n, key).khat

    def gradient_signal(self, n: int = 256, key: Key[Array, ""] | None = None) -> dict[str, Signal]:
        """Mean and standard deviation of the gradient at the fitted parameters, by name.

        Args:
            n: number of estimates; at least 2.
            key: random key; the fit's own if `None`.
        """
        if n < 2:
            raise ValueError(f"gradient_signal: a standard deviation needs n >= 2, not {n}")
        with precision(self.float64):
            unconstrained = self.estimator.unconstrain(self.params, *self.data)
            keys = jax.random.split(self._key("gradient", key), n)
            mean, square = self._gradients(keys, unconstrained, self.params, self.data)
        spread = lambda m, s: np.sqrt(np.maximum(s - m**2, 0) * n / (n - 1))
        flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        moments = {
            name: (flat(mean[name]), flat(square[name]))
            for name in mean
            if jax.tree.leaves(mean[name])
        }
        return {name: Signal(m, spread(m, s)) for name, (m, s) in moments.items()}

    def refine_mcmc(
        self,
        *,
        num_warmup: int = 500,
        num_samples: int = 1_000,
        chains: int = 4,
        key: Key[Array, ""] | None = None,
    ) -> Chains:
        """Run NUTS (BlackJAX) from draws of the fit, to check it or to go on from it.

        Args:
            num_warmup: steps of adaptation, of each chain.
            num_samples: draws of each chain.
            chains: number of chains, each from a draw of the guide.
            key: random key; the fit's own if `None`.

        Raises:
            ImportError: the `bench` extra is not installed.
            UnsupportedError: the objective knows no model, or a choice is discrete.
        """
        from ppl.vi.mcmc import nuts_of_model

        model, observed, args = self._model()
        with precision(self.float64):
            start_key, run_key = jax.random.split(self._key("mcmc", key))
            points = self.sample(2 * max(chains, 50), start_key)
            return nuts_of_model(
                model,
                observed,
                args,
                self.params,
                points,
                run_key,
                chains=chains,
                num_warmup=num_warmup,
                num_samples=num_samples,
            )

    def to_arviz(self, n: int = 1_000, key: Key[Array, ""] | None = None) -> Any:
        """Draws as an ArviZ `DataTree`: posterior, posterior predictive and observed data.

        Raises:
            ImportError: the `arviz` extra is not installed.
        """
        from ppl.vi.arviz import data_tree

        return data_tree(self, n, key)

    def save(self, path: str | Path) -> Path:
        """Write parameters, losses and key to a file, for `vi.load(path, program)`."""
        from ppl.vi.store import save

        return save(self, path)

    @property
    def biased(self) -> list[str]:
        """Addresses of the choices whose gradient was, or may have been, biased."""
        return self.estimator.biased(*self.data)

    def explain(self, *, variance: bool = False, draws: int = 1024) -> Explanation:
        """How the objective was compiled: strategies, costs, warnings.

        Args:
            variance: measure the gradient's variance at the fitted parameters, choice by choice.
            draws: gradients to measure with.
        """
        options = {"params": self.params, "key": self._key("explain", None), "draws": draws}
        return self.estimator.explain(*self.data, variance=variance, **options)

    def plot_loss(self, ax: Axes | None = None) -> Axes:
        """Draw the losses (needs the `plots` extra)."""
        return plots.plot_loss(self.losses, ax)

    def plot_marginals(self, n: int = 2_000, *, max_panels: int = 12) -> Figure:
        """Draw a histogram of each number of the choices."""
        return plots.plot_marginals(self.sample(n), max_panels=max_panels)

    def plot_pairs(self, n: int = 1_000, *, max_panels: int = 6) -> Figure:
        """Draw each number of the choices against each other one."""
        return plots.plot_pairs(self.sample(n), max_panels=max_panels)

    def plot_params(self, *, max_lines: int = 20) -> Figure:
        """Draw the parameters on their way, of a fit with `snapshots`."""
        return plots.plot_params(self.history, max_lines=max_lines)

    def plot_predictive(self, n: int = 500) -> Figure:
        """Draw the observed data over what the fit predicts."""
        _, observed, _ = self._model()
        return plots.plot_predictive(self.predictive(n), observed)

    @cached_property
    def _draw(self) -> Callable[..., PyTree[Array]]:
        """Draws of the guide's choices, one for each key; compiled once."""
        guide, _ = self._guide()

        @eqx.filter_jit
        def draw(keys, params, args, batch_size):
            choices = bind_params(lambda *a: guide.simulate(*a).get_choices(), params)
            return jax.lax.map(lambda k: seed(choices)(k, *args), keys, batch_size=batch_size)

        return draw

    @cached_property
    def _values(self) -> Callable[..., Float[Array, " estimates"]]:
        """An estimate of the objective for each key; compiled once."""

        @eqx.filter_jit
        def values(keys, params, data):
            # In batches, as a thousand copies of a large model would not fit; in equal ones, as
            # a smaller last batch would be compiled as a program of its own.
            n = len(keys)
            batches = math.ceil(n / _BATCH)
            indices = jnp.arange(batches * math.ceil(n / batches)) % n
            value = jax.vmap(lambda key: self.estimator.value(key, params, *data))
            return jax.lax.map(value, keys[indices.reshape(batches, -1)]).reshape(-1)[:n]

        return values

    @cached_property
    def _weigh(self) -> Callable[..., tuple[PyTree[Array], Float[Array, " draws"]]]:
        """A draw of the guide and its log-weight for each key; compiled once."""
        guide, model = self.objective.guide, self.objective.model

        @eqx.filter_jit
        def weigh(keys, params, observed, args, guide_args):
            def one(key):
                z, log_q = seed(bind_params(sim(guide), params))(key, *guide_args)
                log_p = bind_params(density(model), params)(merge_observed(z, observed), *args)
                return z, log_p - log_q

            return jax.lax.map(one, keys, batch_size=_BATCH)

        return weigh

    @cached_property
    def _predict(self) -> Callable[..., PyTree[Array]]:
        """All choices of the model, given those of the guide, for each key; compiled once."""
        model = self.objective.model

        @eqx.filter_jit
        def predict(keys, given, params, args):
            choices = lambda z: model.generate(z, *args)[0].get_choices()
            one = lambda x: seed(bind_params(choices, params))(x[0], x[1])
            return jax.lax.map(one, (keys, given), batch_size=_BATCH)

        return predict

    @cached_property
    def _gradients(self) -> Callable[..., Any]:
        """Means of the gradient, and of its square, over keys; compiled once."""

        @eqx.filter_jit
        def gradients(keys, unconstrained, like, data):
            def value(unconstrained, key):
                params = self.estimator.constrain(unconstrained, like, *data)
                return self.estimator.value(key, params, *data)

            def add(sums, key):
                grad = jax.grad(value)(unconstrained, key)
                return jax.tree.map(
                    lambda s, g: (s[0] + g, s[1] + g * g),
                    sums,
                    grad,
                    is_leaf=lambda x: isinstance(x, tuple),
                ), None

            zeros = jax.tree.map(lambda x: (jnp.zeros_like(x), jnp.zeros_like(x)), unconstrained)
            sums, _ = jax.lax.scan(add, zeros, keys)
            pick = lambda i: jax.tree.map(
                lambda s: s[i] / len(keys), sums, is_leaf=lambda x: isinstance(x, tuple)
            )
            return pick(0), pick(1)

        return gradients

    def _model(self) -> tuple[Any, Any, tuple[Any, ...]]:
        """(model, observed, args)."""
        if self.objective.model is None:
            raise UnsupportedError(
                f"{self.objective.name} knows no model",
                because="only vi.elbo and the other bounds of vi know theirs",
                fix="use one of them, or density and seed with fit.params",
            )
        return self.objective.model, self.data[0], tuple(self.data[1])

    def _guide(self) -> tuple[Any, tuple]:
        guide, args = self.objective.guide, self.objective.guide_args
        if guide is None:
            raise UnsupportedError(
                f"{self.objective.name} has no guide to draw from",
                because="only vi.elbo and the other bounds of vi know their guide",
                fix="draw from a program of your own with the fitted parameters, fit.params",
            )
        known = self.objective.model is not None and self.data
        return guide, tuple(self.data[-1] if known else args)

    def _key(self, purpose: str, key: Key[Array, ""] | None) -> Key[Array, ""]:
        base = jax.random.key(0) if self.key is None else self.key
        return jax.random.fold_in(base, zlib.crc32(purpose.encode())) if key is None else key

    def __repr__(self) -> str:
        last = f", loss {self.losses[-1]:.6g}" if self.steps else ""
        stopped = ", interrupted" if self.interrupted else ""
        biased = f", biased gradients of {', '.join(self.biased)}" if self.biased else ""
        names = ", ".join(self.params)
        return f"<Fit: {self.steps} steps{last}{stopped}, params {names}{biased}>"
