"""What an inference algorithm is: a sampler whose density is known through unbiased estimates.

It gets a *target*, an unnormalised density gamma(u) over the free choices u of a program, with
total mass Z. It draws u from a law q(u) of its own, which should be near gamma(u) / Z, and knows
q through two estimates (`sample`, `log_density`); Lew et al. (PLDI 2023, "Probabilistic
programming with stochastic probabilities"). From these, E[gamma(u) / s] = Z for a draw u with the
estimate s, and E[d / gamma(u)] = 1 / Z for u from gamma / Z with the estimate d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genjax.core import GFI
from jaxtyping import Array

from ppl.lang.observed import Choices, merge_observed, retained, without_observed


@dataclass(frozen=True, eq=False)
class Target:
    """An unnormalised density over the choices of a program that are not fixed.

    Attributes:
        program: the program.
        args, kwargs: its arguments.
        fixed: choices with given values; nested dictionaries from address to value.
        proposal_args: arguments for a program that proposes the free choices.
    """

    program: GFI
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    fixed: Choices
    proposal_args: tuple[Any, ...]

    def log_density(self, choices: Choices) -> Array:
        """log gamma of the free choices, in nats (or an unbiased estimate of gamma, in logs)."""
        return self.program.assess(self.full(choices), *self.args, **self.kwargs)[0]

    def full(self, choices: Choices) -> Choices:
        """The free choices together with the fixed ones."""
        return merge_observed(choices, self.fixed) if self.fixed else choices

    def forward(self, choices: Choices = None) -> tuple[Choices, Array, Array]:
        """Run the program forward, with the free choices drawn from their own distributions.

        Args:
            choices: the free choices, if they are to be as given, as if they had been drawn.

        Returns:
            the free choices, log gamma of them, and the log of gamma over the density with which
            a forward run draws them.
        """
        again = None if choices is None else retained(choices)
        tr, log_weight = self.program.generate(self.full(again), *self.args, **self.kwargs)
        if choices is None:
            choices = without_observed(tr.get_choices(), self.fixed)
        return choices, -tr.get_score(), log_weight


class Inference:
    """An inference algorithm; subclass it for one of your own.

    `sample` and `log_density` are the two guarantees. Whatever they draw are choices of the
    language, so that gradients through them are unbiased.
    """

    @property
    def name(self) -> str:
        """Its part in the addresses of the choices that it makes."""
        return type(self).__name__.lower()

    def sample(self, target: Target) -> tuple[Choices, Array]:
        """Draw the free choices u, with the log of an estimate s: E[1 / s | u] = 1 / q(u)."""
        raise NotImplementedError

    def log_density(self, target: Target, choices: Choices) -> Array:
        """The log of an estimate d of the law's density at u: E[d] = q(u)."""
        raise NotImplementedError

    def log_evidence(self, target: Target) -> Array:
        """The log of an unbiased estimate of the target's total mass Z."""
        choices, log_s = self.sample(target)
        return target.log_density(choices) - log_s
