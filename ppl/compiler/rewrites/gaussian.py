"""Gaussian log-densities averaged over all of their draws at once: value, mean and scale.

In log N(x; m, S) the value x and the mean m may be affine functions of Gaussian draws, and S a
multiple c T of a draw T that has a conjugate law:

    E log N = -1/2 [ k log 2 pi + E log|c T| + E (x - m)' (c T)^-1 (x - m) ],

where the square needs only the means of x and m, the columns of factors of their covariances, and
E[T^-1]. A draw whose own covariance is a multiple b T of the same T adds tr((c T)^-1 b T) = k b/c,
so normal-inverse-Wishart and normal-(inverse-)gamma laws are covered, and what depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array

from ppl.compiler.influence import Alignment, Along, Order, Site
from ppl.compiler.region import linear_rules
from ppl.compiler.rewrites.base import Program
from ppl.lang.distributions._linalg import log_diagonal, solve_lower, transpose
from ppl.lang.staged import Atom, Eqn, Lit, Var

Params = dict[str, Array]
Env = Mapping[Atom, Any]

_SCALES = {
    "normal": "scale",
    "multivariate_normal": "covariance_matrix",
    "multivariate_normal_diag": "scale_diag",
    "multivariate_normal_tri": "scale_tril",
}
"""The Gaussian families, and what each calls its scale; their mean is `loc`."""

_CONJUGATE = {
    ("normal", "inverse_gamma"): 0.5,
    ("normal", "gamma"): -0.5,
    ("multivariate_normal", "inverse_wishart"): 1.0,
}
"""By the families of a Gaussian and of a draw T: the power of T that its scale must be."""


class _Not(Exception):
    """The log-density has no such expectation."""


@dataclass(frozen=True, eq=False)
class Path:
    """A value as the program computes it from one draw (or from none: then it is known).

    Attributes:
        end: the value.
        site: the choice.
        eqns: the equations between, in order.
        given: what else they read.
    """

    end: Atom
    site: Eqn | None = None
    eqns: tuple[Eqn, ...] = ()

    @property
    def given(self) -> list[Atom]:
        if self.site is None:
            return [self.end]
        made = {v for e in self.eqns for v in e.outs} | {self.site.outs[0]}
        return [a for e in self.eqns for a in e.ins if isinstance(a, Var) and a not in made]

    def at(self, draw: Array, env: Env) -> Array:
        """The value if the draw is `draw`."""
        if self.site is None:
            return env[self.end]
        values = {**env, self.site.outs[0]: draw}
        for eqn in self.eqns:
            read = [a.val if isinstance(a, Lit) else values[a] for a in eqn.ins]
            values.update(zip(eqn.outs, eqn.run(read), strict=True))
        return jnp.asarray(values[self.end])


@dataclass(frozen=True, eq=False)
class Scale:
    """The scale of a Gaussian: known, or `c * T**power` of a draw T.

    Attributes:
        path: of the parameter; its choice is T.
        event: the rank of one parameter.
    """

    path: Path
    event: int
    power: float = 1.0

    @property
    def atoms(self) -> list[Atom]:
        own = [] if self.path.site is None else self.path.site.ins
        return [*self.path.given, *own]

    def factor(self, env: Env) -> Array:
        """c, without event axes."""
        assert self.path.site is not None
        c = self.path.at(jnp.ones(self.path.site.outs[0].aval.shape), env)
        return c[(..., *(0,) * self.event)]

    def carried(self, positive: Array, env: Env) -> Array:
        """What has the shape of T, in the shape of the scale."""
        assert self.path.site is not None
        shape = self.path.site.outs[0].aval.shape
        moved = self.path.at(jnp.broadcast_to(positive, shape), env)
        if self.event:  # power 1
            return moved / self.factor(env)[(..., *(None,) * self.event)]
        return (moved / self.factor(env)) ** (1 / self.power)


@dataclass(frozen=True, eq=False)
class Term:
    """The value or the mean of a Gaussian log-density, as a function of a Gaussian draw.

    Attributes:
        scale: that of the draw.
        shared: whether it is a multiple of the same T as the log-density's.
    """

    path: Path
    scale: Scale | None = None
    shared: bool = False

    @property
    def atoms(self) -> list[Atom]:
        if self.path.site is None or self.scale is None:
            return self.path.given
        return [*self.path.given, self.path.site.ins[0], *self.scale.path.given]

    def moments(self, env: Env) -> tuple[Array, Array | None, Array | float]:
        """Mean; the columns of a factor of the known covariance, along a leading axis; and the
        variance in units of T."""
        site = self.path.site
        if site is None or self.scale is None:
            return jnp.asarray(env[self.path.end]), None, 0.0
        shape = site.outs[0].aval.shape
        loc = jnp.broadcast_to(env[site.ins[0]], shape)
        mean, origin = self.path.at(loc, env), self.path.at(jnp.zeros(shape), env)
        if self.shared:
            c = self.scale.factor(env)
            deviation = jnp.sqrt(c)[..., None] if self.scale.event else jnp.abs(c)
            moved = self.path.at(jnp.broadcast_to(deviation, shape), env) - origin
            return mean, None, moved[..., 0] ** 2 if self.scale.event else moved**2
        columns = _columns(site, env[self.scale.path.end])
        if site.params["family"].name == "normal":
            columns = jnp.broadcast_to(columns, shape)[None]
        else:
            columns = jnp.moveaxis(jnp.broadcast_to(columns, (*shape, shape[-1])), -1, 0)
        return mean, jax.vmap(lambda column: self.path.at(column, env) - origin)(columns), 0.0


def _columns(site: Eqn, scale: Array) -> Array:
    """A factor of a Gaussian's covariance: a number per lane, or a matrix."""
    match site.params["family"].name:
        case "normal":
            return scale
        case "multivariate_normal":
            return jnp.linalg.cholesky(scale)
        case "multivariate_normal_diag":
            return scale[..., None] * jnp.eye(scale.shape[-1], dtype=scale.dtype)
        case _:
            return jnp.tril(scale)


@dataclass(frozen=True, eq=False)
class ExpectedGaussian:
    """The expectation of a Gaussian log-density over some choices.

    Attributes:
        sites: the choices.
        ins: what it is computed from.
    """

    family: str
    value: Term
    loc: Term
    scale: Scale
    sites: list[Eqn]
    ins: list[Atom] = field(default_factory=list)

    def __call__(self, *values: Array) -> Array:
        env = dict(zip(self.ins, values, strict=True))
        (x, mine, share), (m, other, more) = self.value.moments(env), self.loc.moments(env)
        mean_log, square, of_share = _scale_moments(self.family, self.scale, env)
        total = square(x - m) + of_share * (share + more)
        for columns in (mine, other):
            if columns is not None:
                total = total + jnp.sum(square(columns), 0)
        k = 1 if self.family == "normal" else x.shape[-1]
        return -0.5 * (k * math.log(2 * math.pi) + mean_log + total)


def _scale_moments(
    family: str, scale: Scale, env: Env
) -> tuple[Array, Callable[[Array], Array], Array | float]:
    """E log|S|, the function y -> E[y' S^-1 y], and E tr(S^-1 T), for a Gaussian's covariance S."""
    site = scale.path.site
    if site is None:
        known = env[scale.path.end]
        if family == "normal":
            return 2 * jnp.log(known), lambda y: (y / known) ** 2, 0.0
        factor = _factor(family, known)
        return 2 * log_diagonal(factor), lambda y: jnp.sum(solve_lower(factor, y) ** 2, -1), 0.0
    params = dict(zip(site.params["names"], (env[a] for a in site.ins), strict=True))
    c = scale.factor(env)
    if site.params["family"].name == "inverse_wishart":
        size = params["scale_tril"].shape[-1]
        tril = jnp.tril(params["scale_tril"])
        v = scale.carried(tril @ transpose(tril), env)
        df = scale.carried(params["df"][..., None, None], env)[..., 0, 0]
        factor = jnp.linalg.cholesky(v)
        halves = (df[..., None] - jnp.arange(size)) / 2
        mean_log = 2 * log_diagonal(factor) - jnp.sum(digamma(halves), -1) - size * math.log(2)
        square = lambda y: df / c * jnp.sum(solve_lower(factor, y) ** 2, -1)
        return size * jnp.log(c) + mean_log, square, size / c
    # The variance is c^2 times an inverse gamma draw of this concentration and scale.
    rate = params.get("scale", params.get("rate"))
    rate = jnp.exp(params["log_rate"]) if rate is None else rate
    a, b = scale.carried(params["concentration"], env), scale.carried(rate, env)
    square = lambda y: a / (b * c**2) * y**2
    return jnp.log(c**2) + jnp.log(b) - digamma(a), square, 1 / c**2


def _factor(family: str, scale: Array) -> Array:
    if family == "multivariate_normal":
        return jnp.linalg.cholesky(scale)
    if family == "multivariate_normal_tri":
        return jnp.tril(scale)
    return jnp.abs(scale)[..., None] * jnp.eye(scale.shape[-1], dtype=scale.dtype)


# ----------------------------------------------------------------------------------- matching


def expected_gaussian(program: Program, eqn: Eqn) -> ExpectedGaussian | None:
    """The expectation of a log-density over the draws that it is a function of, or `None` if it
    is no such Gaussian, or if fewer than all of them could be averaged over."""
    try:
        return _match(program, eqn)
    except _Not:
        return None


def _match(program: Program, eqn: Eqn) -> ExpectedGaussian:
    family, names = eqn.params["family"].name, eqn.params["names"]
    if family not in _SCALES:
        raise _Not
    operand = dict(zip(("value", *names), eqn.ins, strict=True))
    event = eqn.params["family"].parameters[_SCALES[family]]
    scale = _scale_of(program, family, operand[_SCALES[family]], event)
    value = _term_of(program, operand["value"], scale)
    loc = _term_of(program, operand["loc"], scale)
    found = [value.path.site, loc.path.site, scale.path.site]
    sites = [s for s in found if s is not None]
    if not sites or len(set(sites)) < len(sites):
        raise _Not
    ins = list(dict.fromkeys([*value.atoms, *loc.atoms, *scale.atoms]))
    if any(program.depends(ins, site) for site in sites):
        raise _Not
    return ExpectedGaussian(family, value, loc, scale, sites, ins)


def _scale_of(program: Program, family: str, atom: Atom, event: int) -> Scale:
    """A Gaussian's scale, as a monomial in a draw with a conjugate law if it is one."""
    eqns: list[Eqn] = []
    at, power = atom, 1.0
    while isinstance(at, Var) and at.eqn is not None and at.eqn.kind != "site":
        step = _monomial(program, at.eqn, event)
        if step is None:
            return Scale(Path(atom), event)
        eqns.append(at.eqn)
        at, power = step[0], power * step[1]
    site = at.eqn if isinstance(at, Var) else None
    if site is None or _CONJUGATE.get((family, site.params["family"].name)) != power:
        return Scale(Path(atom), event)
    _alignment(program, atom, site)  # refuses mixed lanes
    return Scale(Path(atom, site, tuple(reversed(eqns))), event, power)


_MOVES = ("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "copy", "convert_element_type")
_POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2.0}


def _monomial(program: Program, eqn: Eqn, event: int) -> tuple[Atom, float] | None:
    """(operand, power) if an equation is a number per lane times a power of an operand."""
    if eqn.kind in _MOVES:
        # Event axes stay the last ones.
        own, out = eqn.ins[0].aval.shape, eqn.outs[0].aval.shape
        kept = own[len(own) - event :] == out[len(out) - event :] and len(own) >= event
        return (eqn.ins[0], 1.0) if kept else None
    if eqn.kind in ("mul", "div"):
        first, second = eqn.ins
        if _is_uniform(second, event) and _random(program, first):
            return first, 1.0
        if _is_uniform(first, event) and _random(program, second):
            if eqn.kind == "mul":
                return second, 1.0
            return (second, -1.0) if event == 0 else None
    if event == 0 and eqn.kind in _POWERS:
        return eqn.ins[0], _POWERS[eqn.kind]
    if event == 0 and eqn.kind == "integer_pow":
        return eqn.ins[0], float(eqn.params["y"])
    return None


def _random(program: Program, atom: Atom) -> bool:
    return bool(program.analysis.of(atom).score)


def _is_uniform(atom: Atom, event: int) -> bool:
    """Whether all entries along the event axes are the same."""
    if event == 0 or not atom.aval.shape:
        return True
    tail = atom.aval.shape[-event:]
    if all(n == 1 for n in tail):
        return True
    if isinstance(atom, Var) and atom.eqn is not None and atom.eqn.kind == "broadcast_in_dim":
        where = atom.eqn.params["broadcast_dimensions"]
        first = len(atom.aval.shape) - event
        own = atom.eqn.ins[0].aval.shape
        return all(d < first or own[i] == 1 for i, d in enumerate(where))
    return False


def _term_of(program: Program, atom: Atom, scale: Scale) -> Term:
    """A value or mean, as an affine function of a Gaussian draw if it is one."""
    path = _affine_path(program, atom)
    if path is None or path.site is None:
        return Term(Path(atom))
    site, family = path.site, path.site.params["family"]
    names = site.params["names"]
    if family.name not in _SCALES or names[0] != "loc":
        return Term(Path(atom))
    own = _scale_of(program, family.name, site.ins[1], family.parameters[_SCALES[family.name]])
    _alignment(program, atom, site)  # refuses mixed lanes
    if own.path.site is None:
        return Term(path, own)
    if own.path.site is not scale.path.site or not _keeps_event(program, path, own):
        raise _Not
    if _from_right(program, atom, own.path.site, min(own.event, 1)) != _from_right(
        program, scale.path.end, own.path.site, own.event
    ):
        raise _Not
    return Term(path, own, shared=True)


def _keeps_event(program: Program, path: Path, own: Scale) -> bool:
    """Whether all that happens to a vector is that numbers multiply it."""
    steps = [_monomial(program, e, min(own.event, 1)) for e in path.eqns]
    return all(s is not None and s[1] == 1 for s in steps)


def _affine_path(program: Program, atom: Atom) -> Path | None:
    """How a value is computed from the last draws that it depends on, if that is one draw and
    the way is affine."""
    found: set[Eqn] = set()
    eqns: dict[Eqn, None] = {}
    todo: list[tuple[Atom, bool]] = [(atom, False)]
    while todo:
        at, left = todo.pop()
        if isinstance(at, Lit) or not _random(program, at) or at.eqn in eqns:
            continue
        eqn = at.eqn
        if eqn is None or eqn.blocks:
            return None
        if eqn.kind == "site":
            found.add(eqn)
            continue
        if left:
            eqns[eqn] = None
            continue
        rule = linear_rules.get(eqn.kind)
        linear = None if rule is None else rule(eqn, lambda a: _random(program, a))
        random = {i for i, a in enumerate(eqn.ins) if _random(program, a)}
        if linear is None or not random <= set(linear):
            return None
        todo.append((at, True))
        todo += [(a, False) for a in eqn.ins]
    return Path(atom, found.pop(), tuple(eqns)) if len(found) == 1 else None


def _alignment(program: Program, atom: Atom, site: Eqn) -> Alignment:
    """Where the lanes of a choice run in a value.

    Raises:
        _Not: they are mixed in it.
    """
    alignment = program.analysis.of(atom).score.get(Site(site))
    if alignment is None or any(e is None or e.order is not Order.EXACT for e in alignment):
        raise _Not
    return alignment


def _from_right(program: Program, atom: Atom, site: Eqn, event: int) -> Sequence[int]:
    """The axes along which a choice's lanes run, counted from the last batch axis."""
    lanes = [e for e in _alignment(program, atom, site) if isinstance(e, Along)]
    return [len(atom.aval.shape) - event - e.axis for e in lanes]
