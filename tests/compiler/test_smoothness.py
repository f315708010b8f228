"""Jumps that a pathwise derivative would miss: found, avoided by the planner, or warned about."""

from __future__ import annotations

import inspect
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.scipy.special import logsumexp
from scipy.stats import norm
from tensorflow_probability.substrates import jax as tfp

from ppl.compiler import compile
from ppl.errors import BiasWarning, StrategyError
from ppl.lang import assume_continuous, delta, flip, normal, param, uniform
from ppl.lang.distributions import ALL
from tests.compiler.exact import check_unbiased
from tests.lang.distributions.cases import CASES, float32

JUMP = float(norm.pdf(0.3))
"""The derivative of E[1(x > 0)] for x ~ N(theta, 1), at 0.3."""


def theta(value=0.3):
    return param("theta", value)


def number(bit):
    return jnp.asarray(bit).astype(float)


def strategies_of(objective):
    return [c.strategy for c in compile(objective).explain().choices]


# --------------------------------------------------------------------- jumps that are seen


def by_where(x):
    return jnp.where(x > 0, 1.0, 0.0)


def by_cond(x):
    return lax.cond(x > 0, lambda: 1.0, lambda: 0.0)


def by_sign(x):
    return (jnp.sign(x) + 1) / 2


def by_floor(x):
    return jnp.clip(jnp.floor(x) + 1, 0, 1)


def by_cast(x):
    return jnp.clip((x + 100).astype(int) - 99, 0, 1) * 1.0


def by_argmax(x):
    return jnp.argmax(jnp.stack([0.0, x])) * 1.0


def by_index(x):
    return jnp.array([0.0, 1.0])[(x > 0).astype(int)]


def by_argsort(x):
    return jnp.argsort(jnp.stack([0.0, x]))[1] * 1.0


def in_scan(x):
    step = lambda total, c: (total + jnp.where(x > 0, c, 0.0), None)
    return lax.scan(step, 0.0, jnp.array([0.25, 0.75]))[0]


def carried_by_a_scan(x):
    """The draw enters the carry, and decides a branch one step later."""
    step = lambda carry, _: ((x, jnp.where(carry[0] > 0, 1.0, 0.0)), None)
    return lax.scan(step, (0.0, 0.0), None, length=2)[0][1]


def in_checkpoint(x):
    return jax.checkpoint(by_where)(x)


def in_jit(x):
    return jax.jit(by_where)(x)


def in_vmap(x):
    return jnp.mean(jax.vmap(by_cond)(x * jnp.ones(2)))


def in_while(x):
    return lax.while_loop(lambda i: i + x < 0, lambda i: i + 1.0, 0.0) * 0 + by_where(x)


JUMPING = [
    by_where, by_cond, by_sign, by_floor, by_cast, by_argmax, by_index, by_argsort, in_scan,
    carried_by_a_scan, in_checkpoint, in_jit, in_vmap, in_while,
]  # fmt: skip


@pytest.mark.parametrize("step", JUMPING, ids=lambda f: f.__name__)
def test_jump_is_seen(step):
    """Warned about where reparameterisation is asked for, and avoided where it is not."""
    with pytest.raises(StrategyError) as error:
        compile(lambda: step(normal.reparam(theta(), 1.0)), strict=True).plan()
    assert error.value.address == "normal" and "'score'" in error.value.fix
    assert "test_smoothness.py" in error.value.where
    assert strategies_of(lambda: step(normal(theta(), 1.0))) == ["score"]


@pytest.mark.parametrize("step", [by_where, by_index, carried_by_a_scan, in_checkpoint])
def test_jump_of_a_planned_choice_is_unbiased(step):
    check_unbiased(lambda: step(normal(theta(), 1.0)), JUMP, exact_value=norm.cdf(0.3), strict=True)


def test_only_the_choice_that_jumps_is_scored():
    """Its parent's derivative goes through the log-probability, which is smooth."""

    def objective():
        parent = normal(theta(), 1.0)
        return by_where(normal(parent, 1.0))

    assert strategies_of(objective) == ["reparam", "score"]
    check_unbiased(objective, norm.pdf(0.3 / np.sqrt(2)) / np.sqrt(2), strict=True)


def test_one_of_two_uses_jumps():
    def objective():
        x = normal(theta(), 1.0)
        return x**2 + by_where(x)

    check_unbiased(objective, 0.6 + JUMP, strict=True)


# ------------------------------------------------------------- jumps that no strategy helps

MOVING = {
    "a parameter": lambda site: site(0.0, 1.0) > theta(),
    "a function of a parameter and the draw": lambda site: theta() * site(0.0, 1.0) > 1.0,
    "a parameter in a scale": lambda site: jnp.floor(site(0.0, 1.0) / theta()) == 2,
}


@pytest.mark.parametrize("site", [normal, normal.score, normal.reparam], ids=str)
@pytest.mark.parametrize("name", MOVING)
def test_jump_that_moves_with_a_parameter_warns(name, site):
    """`x > theta` for x ~ N(0, 1): neither the draw's path nor its density sees the jump."""
    est = compile(lambda: number(MOVING[name](site)))
    with pytest.warns(BiasWarning, match="jumps") as record:
        est.plan()
    assert est.biased() == ["normal"]
    assert "moves with the parameter" in str(record[0].message)
    assert "'score'" not in str(record[0].message)  # which would not help


def test_jump_below_a_moving_support_warns():
    """A choice on [0, theta] cannot be scored, so it stays as it is."""
    est = compile(lambda: by_where(uniform(0.0, theta(1.0)) - 0.5))
    with pytest.warns(BiasWarning, match="jumps"):
        (choice,) = est.explain().choices
    assert choice.strategy == "reparam"


# ------------------------------------------------------------------------- no false alarms

QUIET = {
    "a branch on a parameter alone": lambda: jnp.where(
        theta() > 0, normal.reparam(theta(), 1.0), 0.0
    ),
    "a branch on a draw that does not move": lambda: (
        theta() * by_where(normal.reparam(0.0, 1.0))
    ),
    "a branch on a stopped draw": lambda: (
        theta() * by_where(lax.stop_gradient(normal.reparam(theta(), 1.0)))
    ),
    "a branch on a scored draw": lambda: by_where(normal.score(theta(), 1.0)) * theta(),
    "a branch on a discrete draw": lambda: jnp.where(number(flip(0.5)) > theta(), 1.0, theta()),
    "a point mass": lambda: by_where(delta(theta())) * theta(),
    "a comparison that the objective does not use": lambda: (
        normal.reparam(theta(), 1.0), normal.reparam(theta(), 1.0) > 0
    )[0],
    "vouched for": lambda: assume_continuous(lambda x: jnp.where(x > 0, x, 0.1 * x))(
        normal.reparam(theta(), 1.0)
    ),
    "library functions": lambda: sum(
        f(normal.reparam(theta(), 1.0))
        for f in (
            jax.nn.relu, jax.nn.relu6, jax.nn.leaky_relu, jax.nn.elu, jax.nn.gelu, jax.nn.softplus,
            jax.nn.hard_tanh, jnp.abs, lambda x: jnp.clip(x, 0, 1), lambda x: jnp.maximum(x, 0),
            lambda x: logsumexp(jnp.stack([x, 0.0])), lambda x: jnp.sort(jnp.stack([x, 0.0]))[0],
            lambda x: jnp.linalg.norm(jnp.stack([x, 1.0])), jax.scipy.special.log_ndtr,
            tfp.distributions.StudentT(3.0, 0.0, 1.0).log_prob, tfp.math.log1psquare,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUIET)
def test_no_false_alarm(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", BiasWarning)
        assert compile(QUIET[name], strict=True).biased() == []


MASK = np.tril(np.ones((4, 4), bool))
KEY = jax.random.key(0)
nn = eqx.nn


def attention(x):
    """With a fixed mask."""
    scores = x[:, None] * x[None, :]
    return jax.nn.softmax(jnp.where(MASK, scores, -jnp.inf), -1) @ x


def equinox_attention(x):
    rows = x[:, None] * np.ones(4, np.float32)
    return nn.MultiheadAttention(2, 4, key=KEY)(rows, rows, rows, mask=MASK)


def causal_attention(x):
    x = x.reshape(1, 4, 1, 1)
    return jax.nn.dot_product_attention(x, x, x, is_causal=True)


ACTIVATIONS = """relu relu6 leaky_relu elu selu celu gelu silu softplus mish softmax log_softmax
hard_sigmoid hard_silu hard_tanh log_sigmoid sigmoid soft_sign glu squareplus standardize logsumexp
sparse_plus sparse_sigmoid""".split()

CONTINUOUS = {name: getattr(jax.nn, name) for name in ACTIVATIONS} | {
    "gelu exact": lambda x: jax.nn.gelu(x, approximate=False),
    "abs": jnp.abs,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "max": jnp.max,
    "clip": lambda x: jnp.clip(x, -1, 1),
    "sort": jnp.sort,
    "median": jnp.median,
    "quantile": lambda x: jnp.quantile(x, 0.3),
    "top k values": lambda x: lax.top_k(x, 2)[0],
    "logsumexp": logsumexp,
    "logsumexp with weights": lambda x: logsumexp(x, b=jnp.ones(4)),
    "logaddexp": lambda x: jnp.logaddexp(x, 2 * x),
    "max pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"),
    "interp": lambda x: jnp.interp(x, jnp.arange(5.0), jnp.arange(5.0) ** 2),
    "sinc": jnp.sinc,
    "arctan2": lambda x: jnp.arctan2(x, x**2 + 3),
    "softmax over some": lambda x: jax.nn.softmax(x, where=MASK[2]),
    "layer norm by hand": lambda x: (x - x.mean()) / jnp.sqrt(x.var() + 1e-5),
    "attention": attention,
    "attention of jax": causal_attention,
    "attention of equinox": equinox_attention,
    "MLP": nn.MLP(4, 4, 8, 2, activation=jax.nn.relu, key=KEY),
    "layer norm": nn.LayerNorm(4),
    "RMS norm": nn.RMSNorm(4),
    "group norm": nn.GroupNorm(2, 4),
    "GRU": lambda x: nn.GRUCell(4, 4, key=KEY)(x, x),
    "LSTM": lambda x: nn.LSTMCell(4, 4, key=KEY)(x, (x, x))[0],
    "convolution": lambda x: nn.Conv1d(1, 2, 3, key=KEY)(x[None]),
    "max pool of equinox": lambda x: nn.MaxPool1d(2)(x[None]),
    "adaptive max pool": lambda x: nn.AdaptiveMaxPool1d(2)(x[None]),
    "PReLU": nn.PReLU(),
    "cholesky": lambda x: jnp.linalg.cholesky(jnp.eye(4) * (2 + x**2)),
    "solve": lambda x: jnp.linalg.solve(jnp.eye(4) * (2 + x**2), x),
    "slogdet": lambda x: jnp.linalg.slogdet(jnp.eye(4) * (2 + x**2))[1],
    "gammaln": lambda x: jax.scipy.special.gammaln(x**2 + 1),
    "betainc": lambda x: jax.scipy.special.betainc(2.0, 3.0, jax.nn.sigmoid(x)),
    "huber loss": lambda x: optax.losses.huber_loss(x, jnp.zeros(4)),
    "cross-entropy": lambda x: optax.losses.softmax_cross_entropy(x, jnp.ones(4) / 4),
}


def quiet(objective):
    with warnings.catch_warnings():
        warnings.simplefilter("error", BiasWarning)
        assert compile(objective, strict=True).biased() == []


@pytest.mark.parametrize("name", CONTINUOUS)
def test_ordinary_networks_raise_no_alarm(name):
    def objective():
        x = normal.reparam(theta(jnp.full(4, 0.3)), 1.0)
        return sum(jnp.sum(y) for y in jax.tree.leaves(CONTINUOUS[name](x)))

    quiet(objective)


@pytest.mark.parametrize("moving", ["the value", "the parameters"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_densities_raise_no_alarm(case, moving):
    """Of all our distributions, at values and with parameters that move with a draw."""
    discrete = case.family.kind != "float"
    if moving == "the value" and discrete:
        return

    def objective():
        near = 1 + 1e-3 * normal.reparam(theta(), 1.0)
        params = float32(case.params[0])
        values = jnp.asarray(np.asarray(case.values))
        if moving == "the value":
            values = values.astype(float) * near
        else:
            fixed = ("total_count",)  # a count, which does not move
            params = {n: p if n in fixed else p * near for n, p in params.items()}
        return jnp.sum(case.dist.log_prob(values, **params))

    quiet(objective)


def test_every_distribution_is_among_them():
    assert {d.family.value.name for d in ALL} <= {c.family.name for c in CASES}


def threshold_in_a_cost(x):
    return jnp.sum(jnp.where(jnp.abs(x) > 1.0, 1.0, x))


def hard_attention(x):
    return jax.nn.one_hot(jnp.argmax(x), 4) @ x**2


def rounded(x):
    return jnp.sum(jnp.round(x) * x)


@pytest.mark.parametrize("step", [threshold_in_a_cost, hard_attention, rounded])
def test_jumps_beside_networks_are_seen(step):
    """With address, operation and line, also behind a network."""
    network = nn.MLP(4, 4, 8, 1, key=KEY)
    est = compile(lambda: step(network(normal.reparam(theta(jnp.full(4, 0.3)), 1.0))))
    with pytest.warns(BiasWarning, match="jumps"):
        (kink, *_) = est.plan().kinks
    assert kink.site.params["address"] == "normal"
    assert f"test_smoothness.py:{inspect.getsourcelines(step)[1] + 1}:" in kink.where
    assert kink.operation in ("gt", "argmax", "round")


def test_a_vouched_function_is_differentiated():
    leaky = assume_continuous(lambda x: jnp.where(x > 0, x, 0.1 * x))
    exact = norm.cdf(0.3) + 0.1 * norm.cdf(-0.3)
    check_unbiased(lambda: leaky(normal.reparam(theta(), 1.0)), exact)


def test_a_point_mass_keeps_its_derivative():
    """|theta|, written with a branch: no reason to score a choice that has no density."""
    objective = lambda: (lambda z: jnp.where(z > 0, z, -z))(delta(theta(-0.3)))
    assert check_unbiased(objective, -1.0, exact_value=0.3) < 1e-6
