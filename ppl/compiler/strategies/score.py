"""The score-function estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import jax.numpy as jnp
from jax import lax

from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val
from ppl.errors import StrategyError, suggestion
from ppl.lang.staged import Eqn

Baseline = Literal["leave_one_out", "running_mean", "none"]


@register
@dataclass(frozen=True)
class Score:
    """Score function (REINFORCE, Williams 1992), charged only to costs that the draw influences.

    Args:
        baseline: what is subtracted from a cost before it is charged:
            `"leave_one_out"`: the mean cost of the other samples (Kool et al. 2019); with one
            sample there are no others and nothing is subtracted.
            `"running_mean"`: the cost's mean over the earlier steps of an optimisation, which
            the estimator's state remembers.
            `"none"`: nothing.
    """

    baseline: Baseline = "leave_one_out"
    name: ClassVar[str] = "score"
    kind: ClassVar[Kind] = "score"

    def __post_init__(self) -> None:
        if self.baseline not in get_args(Baseline):
            raise StrategyError(
                f"there is no baseline {self.baseline!r}",
                because=suggestion(str(self.baseline), get_args(Baseline)),
            )

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        return "its draws have no density" if family.name == "delta" else None

    def lower(self, choice: Choice) -> Val:
        value = choice.draw()
        value = Val(lax.stop_gradient(value.array), value.axes)
        logp = choice.log_density(value)
        choice.logp(logp)
        choice.own_log_density(logp)
        # A draw of probability zero cannot happen; keep the log-probability's shape honest.
        assert jnp.shape(logp.array)[len(logp.axes) :] == tuple(choice.eqn.params["shape"])
        return value
