"""Doubly-reparameterised gradients of multi-sample bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.frontier import Frontier, find_frontier
from ppl.compiler.influence import Order, Site, Source, site_of
from ppl.compiler.rewrites.base import Program, Rewritten, at_itself, choice_of, rewrite
from ppl.compiler.rewrites.stl import without_score
from ppl.compiler.strategies.base import follows_path
from ppl.errors import StrategyError
from ppl.lang.staged import Atom, Block, Eqn, Lit, Var

_LINEAR = {
    "add": (1, 1), "add_any": (1, 1), "sub": (1, -1), "neg": (-1,), "reduce_sum": (1,),
    "reshape": (1,), "squeeze": (1,), "expand_dims": (1,), "transpose": (1,), "copy": (1,),
    "convert_element_type": (1,),
}  # fmt: skip


@rewrite
def dreg(program: Program) -> list[Rewritten]:
    """Reparameterise the score part of a multi-sample bound's gradient once more (Tucker, Lawson,
    Gu and Maddison, arXiv 1810.04152), for any smooth function h of log-weights l_1, ..., l_K.

    With l_k = log p(z_k) - log q(z_k; v) the gradient in v of E[h(l)] has the score part
    -E[h_k d log q(z_k; v)] (in v alone), which is -E[dh_k/dz_k dz_k/dv] = -E[h_kk dl_k/dz_k
    dz_k/dv]. Together with the path part: sum over k of (h_k - h_kk) dl_k/dz_k dz_k/dv; for
    log-sum-exp, the squared normalised weights. All other parameters keep h_k. If the l_k are a
    constant c times that, h_kk has the factor c.

    Raises:
        StrategyError: there is no such function in the program, or its choices follow no path,
            depend on each other, or stand in loops or branches.
    """
    # log-sum-exp is two costs: the logarithm, and the maximum, which has no derivative.
    costs = [c for c in program.region.costs if c.eqn is None or c.eqn.kind != "stop_gradient"]
    found: list[_Bound] = []
    why = "no cost depends on a choice"
    for cost in costs:
        try:
            found.append(_bound(program, cost))
        except _NotABound as reason:
            why = f"{reason}, in the cost at {cost.eqn.where if cost.eqn else '?'}"
    if not found:
        raise StrategyError(
            "there is nothing to reparameterise twice",
            because=why,
            fix="'dreg' is for functions of K log-weights of reparameterised choices (vi.iwelbo); "
            "for an ELBO use 'stl'",
        )
    return [line for bound in found for line in bound.install()]


class _NotABound(Exception):
    """Why a cost is no function of log-weights that can be reparameterised twice."""


def _bound(program: Program, cost: Var) -> _Bound:
    """The parts of a bound.

    Raises:
        _NotABound: it is none.
    """
    influence = program.analysis.of(cost).score
    frontiers = [_weights_of(program, cost, source) for source in influence]
    if not frontiers:
        raise _NotABound("it depends on no choice")
    ((weight, axis),) = frontiers[0].inputs.items()
    if any(dict(f.inputs) != {weight: axis} for f in frontiers):
        raise _NotABound("its choices meet in different places")
    shape = weight.aval.shape
    if cost.aval.shape != (*shape[:axis], *shape[axis + 1 :]):
        raise _NotABound("the log-weights have more axes than lanes and rows")
    sites = [site_of(s) for s in influence]
    inner = _between(program, weight, sites)
    scale = _scale(weight, inner, sites)
    return _Bound(program, cost, weight, axis, sites, inner, list(frontiers[0].eqns), scale)


def _weights_of(program: Program, cost: Var, source: Source) -> Frontier:
    """Where the lanes of a choice meet in the cost: in one array of log-weights."""
    if not isinstance(source, Site):
        raise _NotABound(f"{source} stands in a loop")
    if not follows_path(program.strategies[source.eqn]):
        raise _NotABound(f"{source} follows no path")
    if program.analysis.params_of[source.eqn] or program.analysis.guards[source.eqn]:
        raise _NotABound(f"{source} depends on another choice")
    try:
        frontier = find_frontier(program.analysis, cost, source, tuple(source.eqn.params["shape"]))
    except StrategyError as error:
        raise _NotABound(str(error.because)) from error
    if frontier is None or len(frontier.inputs) != 1:
        raise _NotABound(f"it is no function of log-weights, one for each lane of {source}")
    alignment = program.analysis.of(cost).score[source]
    if any(e is not None and e.order is not Order.EXACT for e in alignment):
        raise _NotABound(f"the lanes of {source} meet in part")
    return frontier


def _between(program: Program, weight: Var, sites: Sequence[Eqn]) -> list[Eqn]:
    """The equations from the choices to the log-weights, in order."""
    order: dict[Eqn, None] = {}
    todo: list[tuple[Atom, bool]] = [(weight, False)]
    while todo:
        atom, entered = todo.pop()
        if isinstance(atom, Lit) or not program.analysis.of(atom).score or atom.eqn in order:
            continue
        eqn = atom.eqn
        if eqn in sites:
            continue
        if eqn is None or eqn.blocks or eqn.kind == "site":
            where = eqn.where if eqn else "a loop's input"
            raise _NotABound(f"the log-weights come out of a loop or branch ({where})")
        if entered:
            order[eqn] = None
        else:
            todo.append((atom, True))
            todo += [(a, False) for a in eqn.ins]
    return list(order)


def _scale(weight: Var, eqns: Sequence[Eqn], sites: Sequence[Eqn]) -> float:
    """The c of log-weights c (log p - log q)."""
    coefficients: dict[Var, float] = {}
    linear: set[Eqn] = set()
    todo = [(weight, 1.0)]
    while todo:
        var, sign = todo.pop()
        coefficients[var] = coefficients.get(var, 0) + sign
        eqn = var.eqn
        factors = _factors(eqn) if eqn is not None and eqn in eqns else None
        if eqn is not None and factors is not None:
            linear.add(eqn)
            signs = zip(eqn.ins, factors, strict=False)
            todo += [(a, sign * s) for a, s in signs if isinstance(a, Var)]
    found: list[float] = []
    for site in sites:
        own = [e.outs[0] for e in eqns if e.kind == "log_density" and at_itself(e)
               and choice_of(e.ins[0]) is site]  # fmt: skip
        address = site.params["address"]
        found.append(-sum(coefficients.get(v, 0) for v in own))
        if found[-1] != found[0] or not own:
            raise _NotABound(f"log q of {address} does not enter the log-weights, or not as others")
        after = set(own)
        for eqn in eqns:
            if any(a in after for a in eqn.ins if isinstance(a, Var)):
                after.update(eqn.outs)
                if eqn not in linear:
                    raise _NotABound(f"log q of {address} enters '{eqn.kind}' at {eqn.where}")

    return found[0]


def _factors(eqn: Eqn) -> Sequence[float] | None:
    """What a linear equation multiplies its operands by, or `None`."""
    if eqn.kind == "mul":
        numbers = [float(a.val) for a in eqn.ins if isinstance(a, Lit) and a.val.size == 1]
        return [numbers[0]] * 2 if len(numbers) == 1 else None
    return _LINEAR.get(eqn.kind)


class _Bound:
    """A cost that is a function of log-weights."""

    def __init__(
        self,
        program: Program,
        cost: Var,
        weight: Var,
        axis: int,
        sites: list[Eqn],
        inner: list[Eqn],
        outer: list[Eqn],
        scale: float,
    ):
        self.program, self.cost, self.weight, self.axis = program, cost, weight, axis
        self.sites, self.inner, self.outer, self.scale = sites, inner, outer, scale
        made = {v for e in (*inner, *outer) for v in e.outs} | {s.outs[0] for s in sites}
        reads = [a for e in (*inner, *outer) for a in e.ins if isinstance(a, Var)]
        self.given = list(dict.fromkeys(a for a in reads if a not in made))

    def install(self) -> list[Rewritten]:
        """Compute the cost by one equation, whose derivative is the other one."""
        old = self.cost.eqn
        assert old is not None
        draws = [s.outs[0] for s in self.sites]
        new = Eqn(
            "dreg", {}, [*draws, *self.given], [self.cost], old.source, callers=old.callers,
            impl=lambda *xs: [self.compute(xs[: len(draws)], xs[len(draws) :])],
        )  # fmt: skip
        _replace(self.program.staged.block, old, new)
        self.cost.eqn = new
        what = f"its path counts twice in the bound at {old.where.rsplit('/', 1)[-1]}"
        return [Rewritten("dreg", s.params["address"], s.where, what) for s in self.sites]

    def compute(self, draws: Sequence[Array], given: Sequence[Array]) -> Array:
        still = lax.stop_gradient
        along_path = self._weights([*draws], [still(x) for x in given])
        in_place = self._weights([still(x) for x in draws], [*given])
        env = dict(zip(self.given, given, strict=True))

        def function(weights: Array, env: Mapping[Var, Any]) -> Array:
            return _run(self.outer, {**env, self.weight: weights})[self.cost]

        return _twice(function, self.axis, self.scale, along_path, in_place, env)

    def _weights(self, draws: list[Array], given: list[Array]) -> Array:
        env = dict(zip((s.outs[0] for s in self.sites), draws, strict=True))
        env |= dict(zip(self.given, given, strict=True))
        return _run(self.inner, env)[self.weight]


def _run(eqns: Sequence[Eqn], env: Mapping[Var, Any]) -> dict[Var, Any]:
    """Run equations; densities of a choice at itself without their score."""
    env = dict(env)
    for eqn in eqns:
        vals = [a.val if isinstance(a, Lit) else env[a] for a in eqn.ins]
        own = eqn.kind == "log_density" and at_itself(eqn)
        outs = without_score(eqn)(*vals) if own else eqn.run(vals)
        env.update(zip(eqn.outs, outs, strict=True))
    return env


def _twice(
    function: Callable[..., Array],
    axis: int,
    scale: float,
    along_path: Array,
    in_place: Array,
    env: Mapping[Var, Any],
) -> Array:
    """`h(l)`; its tangent has (h_k - scale h_kk) dl_k along the path, and h_k dl_k in place."""
    keys = list(env)

    @jax.custom_jvp
    def bound(along_path: Array, in_place: Array, values: list[Any]) -> Array:
        return function(in_place, dict(zip(keys, values, strict=True)))

    @bound.defjvp
    def bound_jvp(primals, tangents):
        _, at, values = primals
        d_path, d_place, d_values = tangents
        h = lambda x: function(x, dict(zip(keys, values, strict=True)))
        full = lambda x, values: function(x, dict(zip(keys, values, strict=True)))
        value, slope = jax.jvp(full, (at, values), (d_place, d_values))

        def curvature(k: Array) -> Array:
            mine = (lax.broadcasted_iota(jnp.int32, at.shape, axis) == k).astype(at.dtype)
            first = lambda x: jax.jvp(h, (x,), (mine,))[1]
            return jax.jvp(first, (at,), (mine * d_path,))[1]

        twice = jnp.sum(jax.vmap(curvature)(jnp.arange(at.shape[axis])), 0)
        return value, slope + jax.jvp(h, (at,), (d_path,))[1] - scale * twice

    return bound(along_path, in_place, [env[k] for k in keys])


def _replace(block: Block, old: Eqn, new: Eqn) -> None:
    if old in block.eqns:
        block.eqns[block.eqns.index(old)] = new
        return
    for eqn in block.eqns:
        for inner in eqn.blocks:
            _replace(inner, old, new)
