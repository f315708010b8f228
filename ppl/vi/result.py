"""`Fit`: what `vi.fit` returns."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
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
from ppl.lang.seed import seed
from ppl.vi._inputs import bind_data
from ppl.vi._precision import precision
from ppl.vi.convergence import Diagnosis
from ppl.vi.plots import plot_loss
from ppl.vi.summary import Summary, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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

    def sample(self, n: int, key: Key[Array, ""] | None = None) -> PyTree[Array]:
        """Draw from the guide with the fitted parameters.

        Args:
            n: number of draws.
            key: random key; the fit's own if `None`, so that equal calls draw the same.

        Returns:
            the guide's choices, with the draws along a new first axis.

        Raises:
            UnsupportedError: the objective says of no guide.
        """
        _, args = self._guide()
        with precision(self.float64):
            return self._draw(jax.random.split(self._key("sample", key), n), self.params, args)

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

    @property
    def biased(self) -> list[str]:
        """Addresses of the choices whose gradient was, or may have been, biased."""
        return self.estimator.biased(*self.data)

    def explain(self) -> Explanation:
        """How the objective was compiled: strategies, costs, warnings."""
        return self.estimator.explain(*self.data)

    def plot_loss(self, ax: Axes | None = None) -> Axes:
        """Draw the losses (needs the `plots` extra)."""
        return plot_loss(self.losses, ax)

    @cached_property
    def _draw(self) -> Callable[..., PyTree[Array]]:
        """Draws of the guide's choices, one for each key; compiled once."""
        guide, _ = self._guide()

        @eqx.filter_jit
        def draw(keys, params, args):
            choices = bind_params(lambda *a: guide.simulate(*a).get_choices(), params)
            return jax.vmap(lambda k: seed(choices)(k, *args))(keys)

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

    def _guide(self) -> tuple[Any, tuple]:
        guide, args = self.objective.guide, self.objective.guide_args
        if guide is None:
            raise UnsupportedError(
                f"{self.objective.name} has no guide to draw from",
                because="only vi.elbo and the other bounds of vi know their guide",
                fix="draw from a program of your own with the fitted parameters, fit.params",
            )
        return guide, tuple(args)

    def _key(self, purpose: str, key: Key[Array, ""] | None) -> Key[Array, ""]:
        base = jax.random.key(0) if self.key is None else self.key
        return jax.random.fold_in(base, zlib.crc32(purpose.encode())) if key is None else key

    def __repr__(self) -> str:
        last = f", loss {self.losses[-1]:.6g}" if self.steps else ""
        stopped = ", interrupted" if self.interrupted else ""
        biased = f", biased gradients of {', '.join(self.biased)}" if self.biased else ""
        names = ", ".join(self.params)
        return f"<Fit: {self.steps} steps{last}{stopped}, params {names}{biased}>"
