"""`enumeration`: exact inference over discrete choices."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler import axis_rules  # noqa: F401  (fills the table of rules)
from ppl.compiler.enumeration.draw import draw_values, replay
from ppl.compiler.enumeration.eliminate import Elimination
from ppl.compiler.enumeration.tabulate import axis_size, tabulate
from ppl.compiler.influence import Analysis, Past, site_of, source_lanes
from ppl.compiler.plan import MAX_STATES, live_sites
from ppl.compiler.region import Region
from ppl.compiler.strategies.enumerate import joint_size, support_size
from ppl.compiler.tables import Conflict
from ppl.errors import UnsupportedError
from ppl.lang.inference.base import Inference, Target
from ppl.lang.observed import Choices, flat_choices
from ppl.lang.scope import address_of_choice
from ppl.lang.staged import Block, Eqn, Staged, stage


def enumeration() -> Enumeration:
    """Sum over all values of the choices; exact.

    Choices may have lanes (plates, vectors), depend on each other, and stand in `scan`, where a
    Markov chain takes time linear in its length (the forward algorithm). The code is linear in the
    number of choices, the cost exponential only in how many of them one term links.

    Raises (when run):
        UnsupportedError: a choice to be summed out is not discrete with a finite list of values, or
            the sum over its values would be too large.

    >>> mixture = marginal(model, keep="y", by=enumeration())  # doctest: +SKIP
    """
    return Enumeration()


class Enumeration(Inference):
    """Exact inference over discrete choices; made by `enumeration`."""

    def log_evidence(self, target: Target) -> Array:
        free: set[str] = set()

        def log_weight() -> Array:
            run = target.propose(None)
            free.update(map(address_of_choice, flat_choices(run.choices)))
            return _real(run.log_weight)

        return _solve(stage(log_weight), free).log_z

    def log_density(self, target: Target, choices: Choices) -> Array:
        return target.log_density(choices) - self.log_evidence(target)

    def sample(self, target: Target) -> tuple[Choices, Array]:
        free: set[str] = set()

        def forward() -> tuple[Array, Choices]:
            run = target.propose(None)
            free.update(map(address_of_choice, flat_choices(run.choices)))
            return _real(run.log_weight), run.choices

        staged = stage(forward)
        solution = _solve(staged, free)
        values = draw_values(solution.elimination, solution.joint)
        flat = replay(staged, values)
        _, choices = jax.tree.unflatten(staged.out_tree, flat)
        return choices, target.log_density(choices) - solution.log_z


def _real(weight: Array) -> Array:
    return jnp.asarray(weight, jnp.result_type(float))


@dataclass(frozen=True, eq=False)
class _Solution:
    """log E[exp(weight)] over the choices of a staged program, and how it was summed.

    Attributes:
        joint: choices whose lanes were tabulated together.
    """

    log_z: Array
    elimination: Elimination
    joint: set[Eqn]


def _solve(staged: Staged, free: set[str]) -> _Solution:
    """Sum out the choices of a staged log-weight (its first result); exact over those in `free`."""
    sites = list(live_sites(staged.block))
    summed = {e for e in sites if e.kind == "site" and support_size(e) is not None}
    for eqn in sites:
        if eqn not in summed and eqn.params.get("address") in free:
            raise _refusal(eqn, "enumeration needs a finite list of values")
    joint: set[Eqn] = set()
    while True:
        try:
            return _sum(staged, summed, joint)
        except Conflict as conflict:
            eqn = site_of(conflict.source)
            if eqn not in joint and joint_size(eqn) <= MAX_STATES:
                joint.add(eqn)  # one table over all combinations of its lanes
            elif eqn.params["address"] not in free:
                summed.discard(eqn)  # a draw inside of an estimate may stay one
                joint.discard(eqn)
            else:
                raise _refusal(eqn, conflict.because) from conflict


def _sum(staged: Staged, summed: set[Eqn], joint: set[Eqn]) -> _Solution:
    weight = Block(staged.block.ins, staged.block.outs[:1], staged.block.eqns)
    analysis = Analysis(
        weight,
        lambda e: "enum" if e in summed else "draw",
        lambda e: 0 if e in joint else len(e.params["shape"]),
    )
    _check_loops(analysis)
    region = Region(weight, analysis)
    constant, tables, starts = tabulate(staged, analysis, region, joint)

    def lanes(eqn: Eqn) -> tuple[int, ...]:
        return () if eqn in joint else tuple(eqn.params["shape"])

    elimination = Elimination(
        tables,
        starts,
        lambda source: axis_size(source, joint),
        lambda source: source_lanes(source, lanes),
    )
    return _Solution(constant + elimination.total, elimination, joint)


def _check_loops(analysis: Analysis) -> None:
    for loop, leaving in analysis.states.items():
        for influence in leaving:
            for source in influence.axes:
                if isinstance(source, Past) and source.loop is loop:
                    raise _refusal(
                        site_of(source),
                        f"the loop at {loop.where} remembers it over many steps, so its state "
                        "would grow with each step",
                    )


def _refusal(eqn: Eqn, because: str) -> UnsupportedError:
    return UnsupportedError(
        "this choice cannot be summed out exactly",
        address=eqn.params["address"],
        where=eqn.where,
        because=because,
        fix="keep it, or use an estimate: by=importance(proposal, particles)",
    )
