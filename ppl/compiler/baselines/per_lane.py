"""Leave-one-out over the lanes of a choice, for costs that combine them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.baselines.base import Baseline, Charged, baseline, register_baseline
from ppl.compiler.frontier import Frontier, evaluate, find_frontier
from ppl.compiler.influence import Alignment, Analysis, Source
from ppl.compiler.tables import Val
from ppl.lang.staged import Atom, Var


@register_baseline
@dataclass(frozen=True)
class PerLane(Baseline):
    """For each lane, the cost with that lane's part replaced by the mean of the others' (VIMCO,
    Mnih and Rezende, arXiv 1602.06725).

    The multi-sample bound `logsumexp(log_weights)` is the example: lane k's baseline is the
    bound with `log_weights[k]` replaced by the mean of the other log-weights (the geometric mean
    of the weights). In general the part of the program is found in which the lanes are combined;
    what enters it lane by lane is replaced, and that part is evaluated once more for each lane.
    It needs no further samples, and no state.

    Args:
        otherwise: the baseline of costs that combine no lanes of the choice.
    """

    otherwise: str = "leave_one_out"
    name: ClassVar[str] = "per_lane"

    def value(self, charged: Charged) -> Array:
        return baseline(self.otherwise).value(charged)

    def frontier(
        self, analysis: Analysis, var: Var, source: Source, sizes: tuple[int, ...]
    ) -> Frontier | None:
        """Where the lanes of `source` are combined on the way to the cost `var`; `None` if none
        are. Of several lane axes, the one that is combined last (the particles of a bound).

        Raises:
            StrategyError: they are combined where the compiler cannot evaluate it again.
        """
        return find_frontier(analysis, var, source, sizes)


def charge_of_others(
    frontier: Frontier,
    logp: Val,
    alignment: Alignment,
    read: Callable[[Atom], Val],
    expected: Callable[[Val], Array],
    lay: Callable[[Array, Alignment], Array],
) -> Array:
    """`sum_k b_k log p_k`, with b_k lane k's baseline and log p_k its log-probability.

    Lane k's draw influences nothing in b_k, so that the derivative has mean zero.

    Args:
        logp: of the choice, `[*axes, *lanes]`.
        alignment: where its lanes run in the cost.
        expected: averages a cost over the enumerated choices made after the draws.
        lay: moves lanes to where they run in the cost.
    """

    def without(k: Array) -> Array:
        def replaced(var: Var, axis: int) -> Val:
            val = read(var)
            x = jnp.asarray(val.array)
            at = len(val.axes) + axis
            mine = lax.broadcasted_iota(jnp.int32, x.shape, at) == k
            mean = jnp.sum(jnp.where(mine, 0, x), at, keepdims=True) / (x.shape[at] - 1)
            return Val(jnp.where(mine, _as(mean, x.dtype), x), val.axes)

        inputs = {v: replaced(v, axis) for v, axis in frontier.inputs.items()}
        return lax.stop_gradient(expected(evaluate(frontier, inputs, read)))

    each = jnp.moveaxis(logp.array, len(logp.axes) + frontier.lane, 0)
    rest = (*alignment[: frontier.lane], *alignment[frontier.lane + 1 :])
    laid = jax.vmap(lambda x: lay(x, rest))(each)
    return jnp.sum(jax.vmap(without)(jnp.arange(each.shape[0])) * laid, 0)


def _as(mean: Array, dtype: Any) -> Array:
    """A mean as a value of a choice: whole for counts, the majority for booleans."""
    return mean >= 0.5 if jnp.issubdtype(dtype, jnp.bool_) else mean.astype(dtype)
