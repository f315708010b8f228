"""Expectations of log-densities in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, multigammaln
from jaxtyping import Array

from ppl.compiler.axis_rules import rule_for
from ppl.compiler.rewrites.base import Program, Rewritten, at_itself, choice_of, rewrite
from ppl.compiler.rewrites.gaussian import expected_gaussian
from ppl.lang.distributions._linalg import log_diagonal, solve_lower, transpose
from ppl.lang.distributions._safe import log_beta, safe_log, softplus
from ppl.lang.distributions.categorical import log_probs_of
from ppl.lang.staged import Atom, Eqn

Params = dict[str, Array]
Rule = Callable[[Params, Params], Array]

expected_log_density: dict[tuple[str, str], Rule] = {}
"""By the families of q and p: E_q[log p(x)] per lane, as a function of both's parameters."""


@rewrite
def closed_form(program: Program) -> list[Rewritten]:
    """Replace log p(z; w) at a draw z of q(v) by its expectation given v and w, where the table
    has it and w does not depend on z; so log q becomes minus the entropy, and their difference
    the Kullback-Leibler divergence. If p is Gaussian, w may be drawn too (`gaussian`).

    The means of value and gradient stay. Their variances shrink for scored choices, but need not
    for reparameterised ones: close to the optimum the draw's parts in log q and in the rest
    cancel, and `stl` is better.
    """
    done = []
    for eqn in program.linear_terms():
        at = eqn.where.rsplit("/", 1)[-1]
        p = eqn.params["family"].name
        site = choice_of(eqn.ins[0])
        rule = None if site is None else expected_log_density.get((site.params["family"].name, p))
        known = rule is not None and not any(program.analysis.of(a).score for a in eqn.ins[1:])
        gaussian = None if known else expected_gaussian(program, eqn)
        if gaussian is not None:
            what = f"E[log {p}] in closed form at {at}"
            for s in gaussian.sites:
                done.append(Rewritten("closed_form", s.params["address"], s.where, what))
            _compute(eqn, gaussian.ins, gaussian)
        elif site is not None and rule is not None and not program.depends(eqn.ins[1:], site):
            what = f"{'its entropy' if at_itself(eqn) else f'E[log {p}]'} in closed form at {at}"
            done.append(Rewritten("closed_form", site.params["address"], site.where, what))
            _replace(eqn, site, rule)
    return done


def _compute(eqn: Eqn, ins: list[Atom], function: Callable[..., Array]) -> None:
    """Make an equation another function of other things."""
    aval = eqn.outs[0].aval
    eqn.kind, eqn.ins, eqn.params = "expectation", ins, {}
    eqn.impl = lambda *xs: [jnp.broadcast_to(function(*xs), aval.shape).astype(aval.dtype)]


def _replace(eqn: Eqn, site: Eqn, rule: Rule) -> None:
    """Make the log-density a function of both distributions' parameters."""
    q_names, p_names = site.params["names"], eqn.params["names"]
    shape, dtype = eqn.outs[0].aval.shape, eqn.outs[0].aval.dtype
    ranks = [
        f.parameters[n]
        for f, names in ((site.params["family"], q_names), (eqn.params["family"], p_names))
        for n in names
    ]

    def expectation(*params: Array) -> list[Array]:
        arrays = [jnp.asarray(x) for x in params]
        q = dict(zip(q_names, arrays[: len(q_names)], strict=True))
        p = dict(zip(p_names, arrays[len(q_names) :], strict=True))
        return [jnp.broadcast_to(rule(q, p), shape).astype(dtype)]

    eqn.kind, eqn.ins, eqn.impl = "closed_form", [*site.ins, *eqn.ins[1:]], expectation
    eqn.params = {"ranks": ranks}


@rule_for("closed_form")
def _axes(eqn: Eqn, operand: int) -> list[int | None]:
    """Parameters broadcast from the right; event axes are combined."""
    own, out = eqn.ins[operand].aval.shape, eqn.outs[0].aval.shape
    event = eqn.params["ranks"][operand]
    batch = len(own) - event
    shift = len(out) - batch
    kept = (i + shift if own[i] == out[i + shift] else None for i in range(batch))
    return [*kept, *(None,) * event]


# ------------------------------------------------------------------------------------- rules


def rule_of(q: str, p: str) -> Callable[[Rule], Rule]:
    """Add E_q[log p] to the table (decorator)."""

    def register(rule: Rule) -> Rule:
        expected_log_density[q, p] = rule
        return rule

    return register


@rule_of("normal", "normal")
def _normal(q: Params, p: Params) -> Array:
    square = (q["loc"] - p["loc"]) ** 2 + q["scale"] ** 2
    return -0.5 * square / p["scale"] ** 2 - jnp.log(p["scale"]) - 0.5 * math.log(2 * math.pi)


@rule_of("multivariate_normal_diag", "multivariate_normal_diag")
def _diagonal(q: Params, p: Params) -> Array:
    one = {"loc": q["loc"], "scale": q["scale_diag"]}
    return jnp.sum(_normal(one, {"loc": p["loc"], "scale": jnp.abs(p["scale_diag"])}), -1)


def _factor(params: Params) -> Array:
    """The Cholesky factor of the covariance."""
    if "scale_diag" in params:
        return params["scale_diag"][..., None] * jnp.eye(params["scale_diag"].shape[-1])
    if "scale_tril" in params:
        return jnp.tril(params["scale_tril"])
    return jnp.linalg.cholesky(params["covariance_matrix"])


def _multivariate(q: Params, p: Params) -> Array:
    mine, other = _factor(q), _factor(p)
    n = mine.shape[-1]
    apart = q["loc"] - p["loc"]
    columns = jnp.concatenate(_beside(apart, mine), -1)
    # Column by column: the trace of p's inverse covariance times q's, and the distance of means.
    z = solve_lower(other[..., None, :, :], jnp.moveaxis(columns, -1, -2))
    square = jnp.sum(z**2, (-2, -1))
    return -0.5 * square - log_diagonal(other) - 0.5 * n * math.log(2 * math.pi)


def _beside(vector: Array, matrix: Array) -> list[Array]:
    batch = jnp.broadcast_shapes(vector.shape[:-1], matrix.shape[:-2])
    return [
        jnp.broadcast_to(vector[..., None], (*batch, vector.shape[-1], 1)),
        jnp.broadcast_to(matrix, (*batch, *matrix.shape[-2:])),
    ]


_MULTIVARIATE = ("multivariate_normal", "multivariate_normal_diag", "multivariate_normal_tri")
for _q in _MULTIVARIATE:
    for _p in _MULTIVARIATE:
        expected_log_density.setdefault((_q, _p), _multivariate)


def _binary(q: Params, p: Params) -> Array:
    if "logits" in q:
        one, zero = jax.nn.sigmoid(q["logits"]), jax.nn.sigmoid(-q["logits"])
    else:
        one = q["p"] if "p" in q else q["probs"]
        zero = 1 - one
    if "logits" in p:
        return -one * softplus(-p["logits"]) - zero * softplus(p["logits"])
    other = p["p"] if "p" in p else p["probs"]
    return _times(one, safe_log(other)) + _times(zero, safe_log(1 - other))


def _times(p: Array, log: Array) -> Array:
    """`p log`, which is 0 for `p = 0`."""
    return jnp.where(p > 0, p * jnp.where(p > 0, log, 0), 0)


for _q in ("flip", "bernoulli"):
    for _p in ("flip", "bernoulli"):
        expected_log_density[_q, _p] = _binary


@rule_of("categorical", "categorical")
@rule_of("one_hot_categorical", "one_hot_categorical")
def _categorical(q: Params, p: Params) -> Array:
    probs = jnp.exp(log_probs_of(q.get("logits"), q.get("probs")))
    return jnp.sum(_times(probs, log_probs_of(p.get("logits"), p.get("probs"))), -1)


def _log_rate(params: Params) -> Array:
    return params["log_rate"] if "log_rate" in params else jnp.log(params["rate"])


@rule_of("gamma", "gamma")
def _gamma(q: Params, p: Params) -> Array:
    a, log_rate, b = q["concentration"], _log_rate(q), p["concentration"]
    mean, mean_log = a * jnp.exp(-log_rate), digamma(a) - log_rate
    other = _log_rate(p)
    return (b - 1) * mean_log - jnp.exp(other) * mean + b * other - gammaln(b)


@rule_of("inverse_gamma", "inverse_gamma")
def _inverse_gamma(q: Params, p: Params) -> Array:
    a, scale, b, other = q["concentration"], q["scale"], p["concentration"], p["scale"]
    mean_log = jnp.log(scale) - digamma(a)
    return b * jnp.log(other) - gammaln(b) - (b + 1) * mean_log - other * a / scale


@rule_of("inverse_wishart", "inverse_wishart")
def _inverse_wishart(q: Params, p: Params) -> Array:
    """With scale matrices V of q and W of p, and n = q's df: E[T^-1] = n V^-1."""
    mine, other = jnp.tril(q["scale_tril"]), jnp.tril(p["scale_tril"])
    n, m, size = q["df"], p["df"], mine.shape[-1]
    psi = jnp.sum(digamma((n[..., None] - jnp.arange(size)) / 2), -1)
    mean_log = 2 * log_diagonal(mine) - psi - size * math.log(2)
    # The trace of V^-1 W, from the columns of W's factor.
    trace = jnp.sum(solve_lower(mine[..., None, :, :], transpose(other)) ** 2, (-2, -1))
    log_constant = m * log_diagonal(other) - m * size / 2 * math.log(2) - multigammaln(m / 2, size)
    return log_constant - 0.5 * (m + size + 1) * mean_log - 0.5 * n * trace


@rule_of("exponential", "exponential")
def _exponential(q: Params, p: Params) -> Array:
    return jnp.log(p["rate"]) - p["rate"] / q["rate"]


@rule_of("gamma", "exponential")
def _gamma_exponential(q: Params, p: Params) -> Array:
    return jnp.log(p["rate"]) - p["rate"] * q["concentration"] * jnp.exp(-_log_rate(q))


@rule_of("beta", "beta")
def _beta(q: Params, p: Params) -> Array:
    a, b = q["concentration1"], q["concentration0"]
    total = digamma(a + b)
    return (
        (p["concentration1"] - 1) * (digamma(a) - total)
        + (p["concentration0"] - 1) * (digamma(b) - total)
        - log_beta(p["concentration1"], p["concentration0"])
    )


@rule_of("dirichlet", "dirichlet")
def _dirichlet(q: Params, p: Params) -> Array:
    a, b = q["concentration"], p["concentration"]
    mean_log = digamma(a) - digamma(jnp.sum(a, -1, keepdims=True))
    return jnp.sum((b - 1) * mean_log, -1) + gammaln(jnp.sum(b, -1)) - jnp.sum(gammaln(b), -1)
