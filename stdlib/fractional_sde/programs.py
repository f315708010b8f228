"""Stochastic differential equations with fractional noise, as programs.

The equation dX = b(X, t) dt + s(X, t) dB_H is a loop over choices "dW" of the shared Brownian
motion's increments. The posterior is the same loop with another law of "dW": its mean is
u(t, X, Y) dt, the control. Nothing else is needed: the ratio of the two programs' densities,
log N(dW; 0, dt) - log N(dW; u dt, dt), is Girsanov's.

Source: Daems, Opper, Crevecoeur and Birdal (arXiv 2310.12975), equations 6 to 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ppl import Program, gen, inline, normal, scan, sim
from stdlib.fractional_sde.noise import FractionalNoise, Scheme

Field = Callable[[Array, Array], Array]
"""A drift or diffusion: of the state `[dims]` and the time, to `[dims]`."""

Control = Callable[[Array, Array, Array, Any], Any]
"""Of the time, the state `[dims]`, the processes `[dims, processes]` and this step's inputs; gives
u `[dims]`, or (u, c): then dW ~ normal(u dt, c sqrt(dt))."""


Past = tuple[Any, Any]
WeighedPath = Callable[..., tuple[Array, Array]]


@dataclass(frozen=True)
class SDE:
    """dX = drift(X, t) dt + diffusion(X, t) dB_H, t in [0, duration], with diagonal noise.

    Attributes:
        noise: what drives it, one independent copy for each dimension.
        hurst: its Hurst index; a number, or the value of a parameter or choice.
        steps: how many, of equal length.
        drift, diffusion: functions that may declare parameters; 0 and 1 if `None`. The i-th entry
            of the diffusion multiplies the noise of dimension i.
        scheme: "exact" for the Ornstein-Uhlenbeck processes, with drift and diffusion constant in
            a step, or "euler".
        sense: how the stochastic integral is meant, "ito" or "stratonovich". They differ if the
            diffusion depends on the state, by the drift 1/2 (sum of weights)^2 s ds/dx.
    """

    noise: FractionalNoise
    hurst: Any
    steps: int
    duration: float
    drift: Field | None = None
    diffusion: Field | None = None
    scheme: Scheme = "exact"
    sense: Literal["ito", "stratonovich"] = "ito"

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.duration > 0:
            raise ValueError(
                f"SDE: steps must be at least 1 and the duration positive, "
                f"not {self.steps} and {self.duration}"
            )
        if self.sense not in ("ito", "stratonovich"):
            raise ValueError(f"SDE: sense must be 'ito' or 'stratonovich', not {self.sense!r}")

    @property
    def dt(self) -> float:
        return self.duration / self.steps

    @property
    def times(self) -> Float[Array, " steps"]:
        """The beginnings of the steps."""
        return jnp.arange(self.steps) * self.dt

    @property
    def directions(self) -> int:
        """How many numbers beside dW the noise of a step takes: the choice "between"."""
        return self.noise.move(self.dt, self.scheme).between.shape[1]

    def stepper(self) -> Callable[..., tuple[Array, Array]]:
        """`(t, x, y, dW, between) -> (x, y)` at the end of the step that begins at t."""
        move, weights = self.noise.move(self.dt, self.scheme), self.noise.weights(self.hurst)
        loss, gain, factor = map(jnp.asarray, (move.loss, move.gain, move.between.T))

        def step(t: Array, x: Array, y: Array, dw: Array, between: Array) -> tuple[Array, Array]:
            change = gain * dw[:, None] - loss * y + between @ factor
            scale = 1.0 if self.diffusion is None else self.diffusion(x, t)
            slope = 0.0 if self.drift is None else self.drift(x, t)
            if self.sense == "stratonovich" and self.diffusion is not None:
                own = jnp.diagonal(jax.jacfwd(self.diffusion)(x, t))
                slope += 0.5 * jnp.sum(weights) ** 2 * scale * own
            return x + slope * self.dt + scale * (change @ weights), y + change

        return step


# ---------------------------------------------------------------------------------- the programs


def path(sde: SDE, control: Control | None = None, past: Past = (0.0, 1.0)) -> Program:
    """The path of an equation, `path(sde)(x0, inputs) -> (xs, us)`, at the ends of the steps.

    Its choices are "dW" `[steps, dims]`; "between" `[steps, dims, directions]`, what W does
    within the steps; and for type I "past" `[dims, processes]`, what it did before time 0.

    Args:
        sde: the equation.
        control: of a posterior; the prior's is 0.
        past: mean and standard deviation of "past" (a priori standard normal), for a posterior.

    The program's arguments are the state at the start, `[dims]`, and what the control sees of each
    step: a pytree with a leading axis of steps.
    """
    step = _step(sde, control)

    @gen
    def path(x0, inputs=None):
        y0 = _start(sde, past)(x0) @ inline("past")
        result: Any = scan(step)((x0, y0), (sde.times, inputs)) @ inline("dW", "between")
        return result[1]

    return path


def weighed_path(sde: SDE, control: Control, past: Past = (0.0, 1.0)) -> WeighedPath:
    """`(x0, inputs) -> (xs, log dP/dQ)`: the posterior's path, and how much more likely the prior
    makes it, in one loop. To be called in an objective, where the mean of `log dP/dQ` is minus the
    divergence of the paths.

    It is Girsanov's -int u dW - 1/2 int u^2 dt, path by path: of little variance near the optimum.
    With `vi.compile(..., rewrites="closed_form")` it is its mean, the paper's -1/2 int u^2 dt.
    """
    prior, posterior = _step(sde, None), _step(sde, control)

    def run(x0: Array, inputs: Any = None) -> tuple[Array, Array]:
        choices, log_q = sim(_start(sde, past))(x0)
        log_p, y0 = _start(sde).assess(choices, x0)

        def step(state: Any, now: Any) -> Any:
            choices, log_q = sim(posterior)(state, now)
            log_p, (state, (x, _)) = prior.assess(choices, state, now)
            return state, (x, log_p - log_q)

        _, (xs, ratios) = lax.scan(step, (x0, y0), (sde.times, inputs))
        return xs, log_p - log_q + jnp.sum(ratios)

    return run


def _start(sde: SDE, past: Past = (0.0, 1.0)) -> Program:
    """The processes at time 0, `[dims, processes]`."""

    @gen
    def start(x0):
        shape = (len(x0), len(sde.noise.rates))
        if (factor := sde.noise.past()) is None:
            return jnp.zeros(shape)
        loc, scale = (jnp.broadcast_to(v, shape) for v in past)
        return (normal.reparam(loc, scale) @ "past") @ jnp.asarray(factor.T)

    return start


def _step(sde: SDE, control: Control | None) -> Program:
    """One step, as a program of the state (x, y) and of this step's time and inputs."""
    step, directions = sde.stepper(), sde.directions

    @gen
    def move(state, now):
        (x, y), (t, inputs) = state, now
        u, spread = jnp.zeros_like(x), 1.0
        if control is not None:
            found = control(t, x, y, inputs)
            u, spread = found if isinstance(found, tuple) else (found, 1.0)
        dw = normal.reparam(u * sde.dt, spread * sde.dt**0.5) @ "dW"
        between = normal.reparam(jnp.zeros((len(x), directions)), 1.0) @ "between"
        x, y = step(t, x, y, dw, between)
        return (x, y), (x, u)

    return move
