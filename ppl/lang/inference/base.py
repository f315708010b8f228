"""What an inference algorithm is: a sampler whose density is known through unbiased estimates.

It gets a *target*, an unnormalised density gamma(u) over the free choices u of a program, with
total mass Z. It draws u from a law q(u) of its own, which should be near gamma(u) / Z, and knows
q through two estimates (`sample`, `log_density`); Lew et al. (PLDI 2023, "Probabilistic
programming with stochastic probabilities"). From these, E[gamma(u) / s] = Z for a draw u with the
estimate s, and E[d / gamma(u)] = 1 / Z for u from gamma / Z with the estimate d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from genjax.core import GFI
from jaxtyping import Array

from ppl.lang.observed import Choices, merge_observed, retained, without_observed


class Particle(NamedTuple):
    """A value of a target's free choices.

    Attributes:
        choices: the free choices.
        log_gamma: log of the target's density there (or of an unbiased estimate of it).
        log_weight: log of that over the density with which the choices were proposed.
        retval: what the program returns.
    """

    choices: Choices
    log_gamma: Array
    log_weight: Array
    retval: Any


@dataclass(frozen=True, eq=False)
class Target:
    """An unnormalised density over the choices of a program that are not kept.

    Attributes:
        program: the program.
        args, kwargs: its arguments.
        kept: the choices that have given values (nested dictionaries), in a `marginal`; else
            `None`.
    """

    program: GFI
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kept: Choices | None = None

    def log_density(self, choices: Choices) -> Array:
        """log gamma of the free choices, in nats (or the log of an unbiased estimate of gamma)."""
        return self._assess(choices)[0]

    def propose(self, proposal: GFI | None) -> Particle:
        """Draw the free choices from a program, or, if it is `None`, by a forward run."""
        if proposal is None:
            tr, log_weight = self.program.generate(self._full(None), *self.args, **self.kwargs)
            choices = tr.get_choices()
            if self.kept is not None:
                choices = without_observed(choices, self.kept)
            return Particle(choices, -tr.get_score(), log_weight, tr.get_retval())
        tr = proposal.simulate(*self._proposal_args)
        log_gamma, retval = self._assess(tr.get_choices())
        return Particle(tr.get_choices(), log_gamma, log_gamma + tr.get_score(), retval)

    def weigh(self, proposal: GFI | None, choices: Choices) -> Particle:
        """Given choices, as if `propose` had drawn them."""
        if proposal is None:
            again = self._full(retained(choices))
            tr, log_weight = self.program.generate(again, *self.args, **self.kwargs)
            return Particle(choices, -tr.get_score(), log_weight, tr.get_retval())
        log_gamma, retval = self._assess(choices)
        log_q = proposal.assess(choices, *self._proposal_args)[0]
        return Particle(choices, log_gamma, log_gamma - log_q, retval)

    @property
    def _proposal_args(self) -> tuple[Any, ...]:
        return self.args if self.kept is None else (self.kept, *self.args)

    def _assess(self, choices: Choices) -> tuple[Array, Any]:
        return self.program.assess(self._full(choices), *self.args, **self.kwargs)

    def _full(self, choices: Choices) -> Choices:
        return merge_observed(choices, self.kept) if self.kept else choices


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
