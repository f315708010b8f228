"""Programs and compiled estimators summed over all outcomes of their draws: means without sampling.

`exact_expectation` sums an objective program itself, and so knows nothing of the compiler.
`exact_estimate` sums what the compiler made of it: the estimator is traced with its draws left
open, which makes it a program of choices again, and run once for each joint value that they can
take. Its mean must be the other's expectation, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, PyTree

from ppl import _compat
from ppl.compiler.estimator import Estimator, compile
from ppl.compiler.noise import Noise
from ppl.compiler.objective import as_objective
from ppl.compiler.strategies.enumerate import support_values
from ppl.errors import PplError, UnsupportedError
from ppl.lang.primitives import draw, log_density_values, open_draw_p
from ppl.lang.seed import param_leaves
from ppl.lang.staged import Atom, Block, Eqn, Lit, Var, initial_params, stage

MAX_OUTCOMES = 2**16
"""More joint values than this are refused unless asked for."""

_CHUNK = 2**22
"""Numbers of gradients held at once."""


@dataclass(frozen=True, eq=False)
class ExactMean:
    """A mean over all outcomes.

    Attributes:
        value: mean of the objective's value.
        grad: mean of the gradient, like the parameters, in float64.
        variance: of the gradient, entry by entry, like `grad`.
        size: mean of the gradient's magnitude, like `grad`; rounding errors are relative to it.
        outcomes: how many there were.
    """

    value: float
    grad: PyTree
    variance: PyTree
    size: PyTree
    outcomes: int


def exact_expectation(
    objective: Any,
    *data: Any,
    params: Mapping[str, Any] | None = None,
    max_outcomes: int = MAX_OUTCOMES,
) -> tuple[float, PyTree]:
    """An objective's expectation and its gradient, summed over all outcomes of its choices.

    Strategies play no part: this is what every estimator of the objective must have as its mean.

    Args:
        data: arguments of the objective; its own if there are none.
        params: by name, in their supports; the initial ones if `None`.
        max_outcomes: refuse beyond that many.

    Returns:
        value and gradient, in float64, the latter like the parameters (`None` for what does not
        train).

    Raises:
        UnsupportedError: a choice has no finite list of values, or there are too many outcomes.
    """
    objective = as_objective(objective)
    data = data or objective.data
    staged = stage(lambda: objective(*data))
    params = initial_params(staged, jax.random.key(0), []) if params is None else dict(params)
    params = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, params)
    dynamic, static = eqx.partition(params, eqx.is_inexact_array)

    def inputs(dynamic: Any) -> dict[Var, Any]:
        return param_leaves(staged, eqx.combine(dynamic, static))

    runs = _run_all(staged.block, inputs, dynamic, max_outcomes)
    value, grad = 0.0, 0.0
    for weight, found, gradient, slope in runs:
        value += weight @ found
        grad += weight @ (gradient + found[:, None] * slope)
    return float(value), _like(dynamic, grad)


def exact_estimate(
    estimator: Any,
    *data: Any,
    params: Mapping[str, Any] | None = None,
    strategies: Mapping[str, Any] | None = None,
    num_samples: int = 2,
    max_outcomes: int = MAX_OUTCOMES,
) -> ExactMean:
    """The mean of a compiled estimator's value and gradient, without sampling.

    The estimator is traced as it is; only its draws are replaced by given values, all of them in
    turn, each weighted with its probability. A choice that is drawn once for each value of an
    enumerated one is drawn independently for each here, and with common random numbers in a run;
    the mean is the same, as the estimator is a sum over those values.

    Args:
        estimator: what `vi.compile` made, or an objective, which is compiled with `strategies` and
            `num_samples` (two, so that a leave-one-out baseline has another sample; they square
            the number of outcomes).
        data: arguments of the objective; its own if there are none.
        params: by name, in their supports; the initial ones if `None`.
        max_outcomes: refuse beyond that many.

    Raises:
        UnsupportedError: a choice has no finite list of values, a strategy uses random numbers
            beside the choices' values, or there are too many outcomes.
    """
    if not isinstance(estimator, Estimator):
        estimator = compile(estimator, strategies=strategies, num_samples=num_samples)
    elif strategies is not None:
        raise TypeError("exact_estimate: pass strategies to vi.compile")
    data = data or estimator.objective.data
    params = estimator.init(jax.random.key(0), *data) if params is None else dict(params)
    params = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, params)
    dynamic, static = eqx.partition(params, eqx.is_inexact_array)

    def leave_open(key: Key[Array, ""], values: list[Array], **site: Any) -> Array:
        path = site["family"].reparam is not None
        return draw(key, values, **site) if path else open_draw_p.bind(key, *values, **site)

    opened = estimator.with_noise(Noise(draw=leave_open))

    def surrogate(key: Key[Array, ""], dynamic: Any) -> Array:
        return opened.surrogate(key, eqx.combine(dynamic, static), *data)

    key = jax.random.key(0)
    staged = stage(surrogate, key, dynamic)
    if any(map(_is_random, staged.block.eqns)):
        sites = [e for e in estimator.plan(*data).strategies if support_values(e) is None]
        why = ", ".join(f"{e.params['address']} ({e.params['family']})" for e in sites)
        raise UnsupportedError(
            "the estimator's draws cannot all be enumerated",
            because=f"these choices have no finite list of values: {why}"
            if sites
            else "a strategy draws random numbers beside the choices' values",
            fix="use assert_unbiased, which samples",
        )

    def inputs(dynamic: Any) -> dict[Var, Any]:
        return dict(zip(staged.block.ins, [key, *jax.tree.leaves(dynamic)], strict=True))

    runs = _run_all(staged.block, inputs, dynamic, max_outcomes)
    value = grad = square = size = outcomes = 0.0
    for weight, found, gradient, _ in runs:
        value += weight @ found
        grad += weight @ gradient
        square += weight @ gradient**2
        size += weight @ np.abs(gradient)
        outcomes += len(weight)
    variance = np.maximum(square - np.square(grad), 0)
    mean, spread, magnitude = (_like(dynamic, x) for x in (grad, variance, size))
    return ExactMean(float(value), mean, spread, magnitude, int(outcomes))


def _is_random(eqn: Eqn) -> bool:
    """Whether random numbers are made here (keys alone would be dead code)."""

    def within(name: str, subs: Any) -> bool:
        made = name in ("random_bits", "threefry2x32", "random_gamma", "rng_bit_generator")
        return made or any(within(_compat.primitive_name(e), inner(e)) for e in subs)

    def inner(e: Any) -> list[Any]:
        return [x for sub in _compat.sub_jaxprs(e.params) for x in sub.eqns]

    if eqn.blocks:
        return any(_is_random(e) for b in eqn.blocks for e in b.eqns)
    return within(eqn.kind, inner(eqn.jax_eqn) if eqn.jax_eqn is not None else [])


def _like(tree: PyTree, flat: Any) -> PyTree:
    """A vector in float64 as a tree."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([0, *(x.size for x in leaves)])
    flat = np.broadcast_to(flat, ends[-1:])
    parts = [flat[a:b].reshape(x.shape) for a, b, x in zip(ends, ends[1:], leaves, strict=False)]
    return jax.tree.unflatten(structure, parts)


# ------------------------------------------------------------------------------- all outcomes


@dataclass(frozen=True, eq=False)
class _Slot:
    """The draws of one choice: `shape` is the steps of the loops around it, then its lanes."""

    site: Eqn
    support: np.ndarray
    shape: tuple[int, ...]
    stride: int

    def digits(self, outcome: Array) -> Array:
        """Which value each draw takes in an outcome."""
        size = len(self.support)
        powers = self.stride * size ** np.arange(math.prod(self.shape))
        return (outcome // powers % size).reshape(self.shape).astype(jnp.int32)


def _slots(block: Block, max_outcomes: int) -> tuple[list[_Slot], int]:
    """The draws of a program, and the number of their joint values."""
    slots: list[_Slot] = []
    total = 1
    for site, steps in _sites(block):
        values = None if site.kind == "foreign_site" else _support(site)
        address = site.params.get("address", "genjax")
        if values is None:
            raise UnsupportedError(
                "this choice's values cannot be listed",
                address=address,
                where=_where(site),
                because="its support is not finite, or its size is not known before the run",
                fix="use assert_unbiased, which samples",
            )
        shape = (*steps, *site.params["shape"])
        slots.append(_Slot(site, values, shape, total))
        total *= len(values) ** math.prod(shape)
        if total > max_outcomes:
            raise UnsupportedError(
                "the draws have too many joint values to sum over",
                address=address,
                where=_where(site),
                because=f"up to this choice there are {total}, more than {max_outcomes}",
                fix="use fewer lanes, steps or samples (num_samples=1 has no leave-one-out "
                "baseline), a larger max_outcomes, or assert_unbiased, which samples",
            )
    return slots, total


def _support(site: Eqn) -> Any:
    params = site.ins[1:] if site.kind == "open_draw" else site.ins
    return support_values(replace(site, ins=params))


def _is_point(site: Eqn) -> bool:
    """Whether a choice has one value, which its parameters give."""
    return site.kind == "site" and site.params["family"].name == "delta"


def _where(site: Eqn) -> str:
    """The user's line, also where the compiler left the draw open."""
    return _compat.source_line(site.params["source"]) if "source" in site.params else site.where


def _sites(block: Block, steps: tuple[int, ...] = ()) -> Iterator[tuple[Eqn, tuple[int, ...]]]:
    for eqn in block.eqns:
        if eqn.kind in ("site", "foreign_site", "open_draw") and not _is_point(eqn):
            yield eqn, steps
        inside = (*steps, eqn.params["length"]) if eqn.kind == "scan" else steps
        for inner in eqn.blocks:
            yield from _sites(inner, inside)


def _has_branches(block: Block) -> bool:
    return any(e.kind == "cond" or any(map(_has_branches, e.blocks)) for e in block.eqns)


def _run_all(
    block: Block, inputs: Callable[[Any], dict[Var, Any]], dynamic: Any, max_outcomes: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Runs of a block, in chunks, without the impossible ones.

    Yields:
        of each run: its probability, the result, the result's gradient, and the gradient of the
        log-probability; `[runs]` or `[runs, numbers]`, in float64.
    """
    slots, total = _slots(block, max_outcomes)

    def once(outcome: Array, dynamic: Any) -> tuple[Array, ...]:
        def run(dynamic: Any) -> tuple[Array, Array]:
            runner = _Runner(inputs(dynamic))
            logp = runner.block(block, {s.site: s.digits(outcome) for s in slots})
            return runner.read(block.outs[0]), logp

        (value, logp), pull = jax.vjp(run, dynamic)
        one, zero = jnp.ones_like(value), jnp.zeros_like(logp)
        gradient = ravel_pytree(pull((one, zero)))[0]
        slope = ravel_pytree(pull((jnp.zeros_like(value), jnp.ones_like(logp))))[0]
        return value, logp, gradient, slope

    # With a batch axis both branches of a `cond` would run, and one's NaN could reach the other.
    batch = None if _has_branches(block) else 256
    every = jax.jit(lambda i, dynamic: lax.map(partial(once, dynamic=dynamic), i, batch_size=batch))
    numbers = max(1, sum(x.size for x in jax.tree.leaves(dynamic)))
    size = min(total, max(1, _CHUNK // numbers))
    mass = 0.0
    for start in range(0, total, size):
        outcomes = np.arange(start, start + size)
        value, logp, gradient, slope = (
            np.asarray(x, np.float64) for x in every(np.minimum(outcomes, total - 1), dynamic)
        )
        weight = np.exp(logp) * (outcomes < total)
        mass += weight.sum()
        keep = weight > 0
        yield weight[keep], value[keep], gradient[keep], slope[keep]
    if not abs(mass - 1) < 1e-3:
        raise PplError(
            "the probabilities of all outcomes do not sum to one",
            because=f"they sum to {mass:.6g}: a parameter is outside of its support, or a "
            "log-density does not normalise",
            fix="check the distributions with ppl.testing.check_distribution",
        )


class _Runner:
    """Runs a staged program with the value of each draw given."""

    def __init__(self, env: dict[Var, Any]):
        self.env = env

    def read(self, atom: Atom) -> Any:
        return atom.val if isinstance(atom, Lit) else self.env[atom]

    def block(self, block: Block, digits: dict[Eqn, Array]) -> Array:
        """Run a block; the log-probability of its draws."""
        logp = jnp.zeros(())
        for eqn in block.eqns:
            ins = [self.read(a) for a in eqn.ins]
            outs, more = _rules.get(eqn.kind, _Runner.plain)(self, eqn, ins, digits)
            self.env.update(zip(eqn.outs, outs, strict=True))
            logp = logp + more
        return logp

    def plain(self, eqn: Eqn, ins: list[Any], digits: Any) -> tuple[Any, Any]:
        return _compat.bind_eqn(eqn.jax_eqn, ins), 0.0

    def site(self, eqn: Eqn, ins: list[Any], digits: Any) -> tuple[Any, Any]:
        if _is_point(eqn):
            return [draw(jax.random.key(0), ins, **eqn.params)], 0.0
        values = _support(eqn)
        value = jnp.asarray(values)[digits[eqn]]
        family, names = eqn.params["family"], eqn.params["names"]
        logp = log_density_values(
            value, *ins, family=family, names=names, event_ndims=values.ndim - 1
        )
        return [value], jnp.sum(logp)

    def open_draw(self, eqn: Eqn, ins: list[Any], digits: Any) -> tuple[Any, Any]:
        return self.site(eqn, ins[1:], digits)

    def scan(self, eqn: Eqn, ins: list[Any], digits: dict[Eqn, Array]) -> tuple[Any, Any]:
        body, n = eqn.blocks[0], eqn.params["num_carry"]

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            slices, leaves = x
            self.env.update(zip(body.ins, [*carry, *slices], strict=True))
            logp = self.block(body, dict(zip(inner, leaves, strict=True)))
            outs = [self.read(a) for a in body.outs]
            return outs[:n], (outs[n:], logp)

        inner = [site for site, _ in _sites(body)]
        xs = list(ins[n:]), [digits[site] for site in inner]
        options = {k: eqn.params[k] for k in ("length", "reverse")}
        carry, (ys, logp) = lax.scan(step, list(ins[:n]), xs, **options)
        return [*carry, *ys], jnp.sum(logp)

    def cond(self, eqn: Eqn, ins: list[Any], digits: dict[Eqn, Array]) -> tuple[Any, Any]:
        def branch(i: int) -> Callable[[], Any]:
            def run() -> Any:
                # What is not drawn may take any value: equal shares of this outcome.
                others = [s for j, b in enumerate(eqn.blocks) if j != i for s, _ in _sites(b)]
                shares = sum(digits[s].size * math.log(len(_support(s))) for s in others)
                logp = self.block(eqn.blocks[i], digits) - shares
                return [jnp.asarray(self.read(a)) for a in eqn.blocks[i].outs], logp

            return run

        return lax.switch(ins[0], [branch(i) for i in range(len(eqn.blocks))])

    def checkpoint(self, eqn: Eqn, ins: list[Any], digits: Any) -> tuple[Any, Any]:
        logp = self.block(eqn.blocks[0], digits)
        return [self.read(a) for a in eqn.blocks[0].outs], logp


_rules: dict[str, Callable[..., tuple[Any, Any]]] = {
    "site": _Runner.site,
    "open_draw": _Runner.open_draw,
    "scan": _Runner.scan,
    "cond": _Runner.cond,
    "checkpoint": _Runner.checkpoint,
}
