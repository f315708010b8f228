"""The score-function estimator, alone and with learned control variates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import actual_world, worlds_first
from ppl.compiler.baselines import baseline
from ppl.compiler.influence import WORLDS
from ppl.compiler.learned import ControlVariate, PathNetwork, tap
from ppl.compiler.learned.base import ADAM
from ppl.compiler.learned.relaxed import relaxations
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val, batched
from ppl.lang.primitives import log_density_values
from ppl.lang.staged import Eqn


def lower_score(choice: Choice, control: ControlVariate | None) -> Val:
    """Draw, cut the draw's derivative, and let costs be charged with its log-probability."""
    value = choice.draw()
    value = Val(lax.stop_gradient(value.array), value.axes)
    logp = choice.log_density(value)
    choice.own_log_density(logp)
    # A draw of probability zero cannot happen; keep the log-probability's shape honest.
    assert jnp.shape(logp.array)[len(logp.axes) :] == tuple(choice.eqn.params["shape"])
    if control is not None:
        logp = _controlled(choice, control, value, logp)
    choice.logp(logp)
    return value


def _controlled(choice: Choice, control: ControlVariate, value: Val, logp: Val) -> Val:
    """The log-probability, with a control variate beside it."""
    eqn = choice.eqn
    static = {k: eqn.params[k] for k in ("family", "names")}
    rank = len(eqn.outs[0].aval.shape) - len(eqn.params["shape"])

    def log_density(params: list[Array], noise: Any) -> Array:
        return log_density_values(noise["value"], *params, event_ndims=rank, **static)

    more = control.noise(eqn, choice.data, choice.new_key())

    def tapped(value: Array, *params: Array) -> tuple[Array, Array]:
        known = [jnp.asarray(p) for p in params]
        noise = {"value": jnp.asarray(value), **more}
        return tap(control, eqn, log_density, known, noise, choice.learned)

    # The draw of each enumerated value above has a control variate, by one network. Beside a
    # choice with alternates, only what really happened has one.
    actual, aside = batched(tapped, [actual_world(v) for v in (value, *choice.params)])
    choice.aside(jnp.sum(aside.array))
    if WORLDS not in logp.axes:
        return actual
    put = lambda all_worlds, here: [all_worlds.at[0].set(here)]
    (out,) = batched(put, [worlds_first(logp), actual])
    return Val(out.array, (*out.axes, WORLDS))


@register
@dataclass(frozen=True)
class Score:
    """Score function (REINFORCE, Williams 1992), charged only to costs that the draw influences.

    Args:
        baseline: what is subtracted from a cost before it is charged, by name or as an object:
            `"leave_one_out"`: the mean cost of the other samples; with one sample there are no
            others and nothing is subtracted.
            `"per_lane"`: for costs that combine lanes (multi-sample bounds), the cost with a
            lane replaced by the mean of the others (VIMCO).
            `"running_mean"`: the cost's mean over the earlier steps of an optimisation.
            `"nvil"`: a network of the data, trained on the costs (`NVIL(...)` has its options).
            `"none"`: nothing.

    Raises:
        StrategyError: there is no such baseline.
    """

    baseline: Any = "leave_one_out"
    name: ClassVar[str] = "score"
    kind: ClassVar[Kind] = "score"

    def __post_init__(self) -> None:
        baseline(self.baseline)

    @property
    def control(self) -> ControlVariate | None:
        found = baseline(self.baseline)
        return found if isinstance(found, ControlVariate) else None

    @property
    def draws_once(self) -> bool:
        return self.control is None

    @property
    def biased(self) -> str | None:
        return baseline(self.baseline).biased

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        return "its draws have no density" if family.name == "delta" else None

    def lower(self, choice: Choice) -> Val:
        return lower_score(choice, self.control)


@dataclass(frozen=True)
class _WithNetwork:
    """Score with a learned control variate of the path.

    Args:
        width: hidden units of the network.
        optimizer: of its weights.
    """

    width: int = 16
    optimizer: optax.GradientTransformation = ADAM
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "score"

    def lower(self, choice: Choice) -> Val:
        return lower_score(choice, self.control)

    @property
    def control(self) -> ControlVariate:
        raise NotImplementedError


@register
@dataclass(frozen=True)
class Relax(_WithNetwork):
    """RELAX (Grathwohl et al., arXiv 1711.00123): for flips and categorical choices, a network
    of the choice's continuous relaxation as control variate.

    The network's weights are part of the estimator's state, and are trained to lower the variance
    of the gradient with respect to the choice's parameters. Its first prediction is 0.
    """

    name: ClassVar[str] = "relax"

    @property
    def control(self) -> ControlVariate:
        return PathNetwork(self.width, self.optimizer, "relax")

    def refusal(self, eqn: Eqn) -> str | None:
        name = eqn.params["family"].name
        return None if name in relaxations else f"{name} has no continuous relaxation"


@register
@dataclass(frozen=True)
class Lax(_WithNetwork):
    """LAX (Grathwohl et al., arXiv 1711.00123): for reparameterisable choices whose costs are not
    smooth, or not differentiable at all, a network of the draw as control variate, trained as in
    `Relax`.
    """

    name: ClassVar[str] = "lax"

    @property
    def control(self) -> ControlVariate:
        return PathNetwork(self.width, self.optimizer, "lax")

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        return None if family.reparam else f"a draw from {family.name} cannot be reparameterised"
