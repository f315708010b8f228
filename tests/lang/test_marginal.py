"""`marginal` and `normalize`: the two guarantees, nesting, and what they refuse.

Where all draws are discrete and enumerated, an estimator's value is its exact mean.
"""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import (
    categorical,
    cond,
    condition,
    density,
    factor,
    flip,
    gen,
    importance,
    marginal,
    normal,
    normalize,
    param,
    plate,
    scan,
    seed,
    sim,
    sir,
    trace_type,
    unit_interval,
    vi,
)
from ppl.errors import AddressError, UnsupportedError
from tests.compiler.exact import QUICK, check_unbiased

P_U = np.array([0.2, 0.5, 0.3])
P_X = np.array([0.1, 0.6, 0.9])  # p(x | u)
R_U = np.array([0.3, 0.3, 0.4])
EVIDENCE = 0.59  # p(x = 1)


@gen
def pair():
    u = categorical(probs=P_U) @ "u"
    flip(jnp.asarray(P_X)[u]) @ "x"


@gen
def reverse(kept):
    categorical(probs=R_U) @ "u"


def mean(fun):
    """The mean of a program whose choices are all discrete."""
    est = vi.compile(fun)
    assert not est.plan().charged  # everything is enumerated
    run = jax.jit(lambda key: est.value(key, {}), compiler_options=QUICK)
    return float(run(jax.random.key(0)))


# ------------------------------------------------------------------- the guarantees, exactly


@pytest.mark.parametrize("proposal", [reverse, None])
@pytest.mark.parametrize("particles", [1, 2, 3])
def test_density_and_its_reciprocal_are_unbiased(proposal, particles):
    x_of = marginal(pair, keep="x", by=importance(proposal, particles))
    assert mean(lambda: jnp.exp(density(x_of)({"x": True}))) == pytest.approx(EVIDENCE, abs=1e-6)

    def reciprocal():
        z, log_s = sim(x_of)()
        return jnp.where(z["x"], jnp.exp(-log_s), 0)  # mean: p(x) E[1/s | x] = 1

    assert mean(reciprocal) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "particles, below, above",
    [(1, -0.96963, -0.27167), (2, -0.70040, -0.41182), (3, -0.62198, -0.45491)],
)
def test_log_densities_close_in_from_both_sides(particles, below, above):
    """E log d <= log p(x) <= E log s, values by summing over all outcomes in float64."""
    x_of = marginal(pair, keep=["x"], by=importance(reverse, particles))
    assert mean(lambda: density(x_of)({"x": True})) == pytest.approx(below, abs=2e-5)

    def log_s():
        z, log_s = sim(x_of)()
        return jnp.where(z["x"], log_s, 0) / EVIDENCE

    assert mean(log_s) == pytest.approx(above, abs=2e-5)
    assert below < np.log(EVIDENCE) < above


GAMMA = np.array([0.2, 0.5, 0.1])


@gen
def weighted():
    u = categorical(probs=np.ones(3) / 3) @ "u"
    factor(jnp.log(3 * GAMMA)[u]) @ "weight"


@gen
def proposal():
    categorical(probs=np.array([0.5, 0.3, 0.2])) @ "u"


@pytest.mark.parametrize(
    "particles, law, bound",
    [
        (1, (0.5, 0.3, 0.2), -0.443527),
        (2, (0.396953, 0.424243, 0.178803), -0.351084),
        (4, (0.324178, 0.520778, 0.155044), -0.289404),
    ],
)
def test_law_of_sampling_importance_resampling(particles, law, bound):
    picked = normalize(weighted, by=sir(proposal, particles))
    for k, probability in enumerate(law):
        frequency = mean(lambda k=k: jnp.where(sim(picked)()[0]["u"] == k, 1.0, 0.0))
        assert frequency == pytest.approx(probability, abs=1e-6)
        estimate = mean(lambda k=k: jnp.exp(density(picked)({"u": jnp.int32(k)})))
        assert estimate == pytest.approx(probability, abs=1e-6)

        def reciprocal(k=k):
            z, log_s = sim(picked)()
            return jnp.where(z["u"] == k, jnp.exp(-log_s), 0)

        assert mean(reciprocal) == pytest.approx(1.0, abs=1e-6)

    def elbo():
        z, log_s = sim(picked)()
        return density(weighted)(z) - log_s

    assert mean(elbo) == pytest.approx(bound, abs=2e-6)  # the importance-weighted bound


def test_nesting_keeps_the_guarantees():
    """A marginal whose inner program has a marginal, with the inner choice integrated out too."""

    @gen
    def outer():
        inner = marginal(pair, keep="x", by=importance(reverse))() @ "inner"
        flip(jnp.where(inner["x"], 0.8, 0.3)) @ "y"

    @gen
    def guess(kept):
        @gen
        def inner():
            flip(0.4) @ "x"

        inner() @ "inner"

    exact = 0.59 * 0.8 + 0.41 * 0.3
    for by in (importance(guess, 2), importance(particles=2)):
        y_of = marginal(outer, keep="y", by=by)
        assert mean(lambda p=y_of: jnp.exp(density(p)({"y": True}))) == pytest.approx(
            exact, abs=1e-5
        )

        def reciprocal(p=y_of):
            z, log_s = sim(p)()
            return jnp.where(z["y"], jnp.exp(-log_s), 0)

        assert mean(reciprocal) == pytest.approx(1.0, abs=1e-5)


def test_marginal_of_a_normalised_program():
    """Law of one choice of a resampled pair: d and 1/s stay unbiased."""

    @gen
    def observed_pair():
        u = categorical(probs=P_U) @ "u"
        v = flip(jnp.asarray(P_X)[u]) @ "v"
        factor(jnp.where(v, -1.0, 0.0)) @ "w"

    both = normalize(observed_pair, by=sir(particles=2))
    v_of = marginal(both, keep="v", by=importance(reverse, 1))

    def reciprocal(value):
        z, log_s = sim(v_of)()
        return jnp.where(z["v"] == value, jnp.exp(-log_s), 0)

    law = [mean(lambda k=k: jnp.where(sim(both)()[0]["v"] == k, 1.0, 0.0)) for k in (False, True)]
    for value in (False, True):
        d = mean(lambda v=value: jnp.exp(density(v_of)({"v": jnp.bool(v)})))
        assert d == pytest.approx(law[value], abs=1e-5)
        assert mean(lambda v=value: reciprocal(v)) == pytest.approx(1.0, abs=1e-5)


# ------------------------------------------------------------------------------- gradients


def bound_and_gradient(theta):
    """The objective of the next test, by summing over everything in float64."""

    def value(theta):
        total = 0.0
        p = jnp.stack([theta, 1 - theta])
        p_x = jnp.array([0.3, 0.8])  # guide's q(x = 1 | u)
        r = jnp.stack([theta**2, 1 - theta**2])
        target = jnp.array([0.6, 0.4])
        for u in (0, 1):
            for v in (0, 1):
                for x in (0, 1):
                    like = lambda u, x=x: p[u] * (p_x[u] if x else 1 - p_x[u])
                    s = 0.5 * (like(u) / r[u] + like(v) / r[v])
                    total += like(u) * r[v] * (jnp.log(target[x]) - jnp.log(s))
        return total

    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(value)(jnp.float64(theta))
        return float(value), float(grad)


@pytest.mark.parametrize(
    "strategies, samples",
    [
        ({"*": "enum"}, 1),
        ({"*": "score"}, 4),
        ({"*/importance/*": "enum", "*": "score"}, 4),
        ({"*/importance/*": "score", "*": "enum"}, 4),
    ],
)
def test_gradient_of_a_hierarchical_bound(strategies, samples):
    """Means of at least 20,000 gradients, |z| < 5.5 (false-alarm rate 4e-8); a bias of 3 % would
    fail; with everything enumerated the gradient is exact."""

    @gen
    def guide():
        theta = param("theta", 0.4, support=unit_interval)
        u = flip(1 - theta) @ "u"
        flip(jnp.where(u, 0.8, 0.3)) @ "x"

    @gen
    def guess(kept):
        flip(1 - param("theta", 0.4, support=unit_interval) ** 2) @ "u"

    x_of = marginal(guide, keep="x", by=importance(guess, 2))

    def objective():
        z, log_q = sim(x_of)()
        return jnp.where(z["x"], jnp.log(0.4), jnp.log(0.6)) - log_q

    value, grad = bound_and_gradient(0.4)
    check_unbiased(objective, grad, exact_value=value, strategies=strategies, num_samples=samples)


@pytest.mark.parametrize("strategy", ["enum", "score"])
def test_gradient_through_resampling(strategy):
    """The bound with a resampled guide is the importance-weighted one, so are their gradients.

    20,000 or more gradients against a quadrature-free reference, the enumerated estimator of the
    importance-weighted bound, which is exact here; |z| < 5.5, a bias of 3 % would fail."""

    @gen
    def guide():
        theta = param("theta", 0.1, support=unit_interval)
        categorical(probs=jnp.stack([theta, 0.4, 0.6 - theta])) @ "u"

    def resampled():
        z, log_q = sim(normalize(weighted, by=sir(guide, 2)))()
        return density(weighted)(z) - log_q

    def weighted_bound(theta):
        q = jnp.stack([theta, jnp.float64(0.4), 0.6 - theta])
        w = jnp.asarray(GAMMA) / q
        return sum(q[i] * q[j] * jnp.log((w[i] + w[j]) / 2) for i in range(3) for j in range(3))

    with jax.enable_x64(True):
        value, grad = jax.value_and_grad(weighted_bound)(jnp.float64(0.1))
    check_unbiased(
        resampled,
        float(grad),
        exact_value=float(value),
        strategies={"*": strategy},
        num_samples=1 if strategy == "enum" else 4,
    )


# ---------------------------------------------------------------- inside other constructs


@gen
def noisy(loc):
    u = normal(loc, 1.0) @ "u"
    normal(u, 1.0) @ "x"


@gen
def posterior(kept, loc):
    normal((kept["x"] + loc) / 2, np.sqrt(0.5)) @ "u"


exactly = marginal(noisy, keep="x", by=importance(posterior, 2))  # its weights do not vary


def log_normal_density(x, loc):
    return -0.25 * (x - loc) ** 2 - 0.5 * np.log(4 * np.pi)


def test_under_plate_scan_and_cond():
    locs = jnp.array([0.0, 1.0, -1.0])

    @gen
    def step(carry, loc):
        z = exactly(loc + carry) @ "m"
        return z["x"], None

    @gen
    def one(loc):
        return {"x": normal(loc, 1.0) @ "x"}

    @gen
    def program(locs):
        plate(exactly)(locs) @ "plate"
        scan(step)(0.0, locs) @ "scan"
        cond(exactly, one)(True, 0.5) @ "taken"
        cond(exactly, one)(False, 0.5) @ "other"

    def run():
        z, log_q = sim(program)(locs)
        return z, log_q, density(program)(z, locs)

    z, log_q, log_p = jax.jit(seed(run))(jax.random.key(1))
    x = z["plate"]["x"]
    carried = np.concatenate([[0.0], z["scan"]["m"]["x"][:-1]])
    expected = (
        np.sum(log_normal_density(x, locs))
        + np.sum(log_normal_density(z["scan"]["m"]["x"], locs + carried))
        + log_normal_density(z["taken"]["x"], 0.5)
        - 0.5 * (z["other"]["x"] - 0.5) ** 2
        - 0.5 * np.log(2 * np.pi)
    )
    assert sorted(z) == ["other", "plate", "scan", "taken"] and list(z["taken"]) == ["x"]
    np.testing.assert_allclose(log_q, expected, rtol=1e-5)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5)


def test_a_branch_not_taken_has_no_gradient():
    """Not even where the other branch's value would make its density NaN."""

    @gen
    def positive_only(loc):
        u = normal(loc, 1.0) @ "u"
        normal(0.0, jnp.exp(u)) @ "x"

    @gen
    def other(loc):
        return {"x": normal(loc, 1.0) @ "x"}

    inner = marginal(positive_only, keep="x", by=importance(particles=2))

    est = vi.compile(lambda: density(cond(inner, other))({"x": 1.0}, False, param("loc", 0.3)))
    grad = est.grad(jax.random.key(0), est.init(jax.random.key(0)))
    assert grad["loc"] == pytest.approx(0.7, abs=1e-5)


def test_as_a_guide():
    """The bound with an auxiliary-variable guide whose reverse kernel is exact is tight."""

    @gen
    def model():
        x = normal(0.0, np.sqrt(2.0)) @ "x"
        normal(x, 1.0) @ "y"

    @gen
    def guide():
        u = normal.reparam(2 / 3, np.sqrt(1 / 3)) @ "u"  # N(2/3, 2/3) in total, the posterior
        normal.reparam(u, np.sqrt(1 / 3)) @ "x"

    @gen
    def back(kept):
        normal.reparam((kept["x"] + 2 / 3) / 2, np.sqrt(1 / 6)) @ "u"

    program = vi.elbo(model, marginal(guide, keep="x", by=importance(back)), observed={"y": 1.0})
    est = vi.compile(program)
    values = jax.vmap(lambda k: est.value(k, {}))(jax.random.split(jax.random.key(0), 5))
    np.testing.assert_allclose(values, -1 / 6 - 0.5 * np.log(6 * np.pi), atol=1e-5)


def test_trace_types_know_the_kept_choices():
    assert list(trace_type(exactly, 0.0)) == ["x"]
    assert trace_type(exactly, 0.0)["x"].distribution == "normal"
    resampled = normalize(condition(noisy, {"x": 1.0}), by=sir(particles=3))
    assert trace_type(resampled, 0.0)["u"].shape == ()
    with pytest.raises(AddressError, match="misses a choice"):
        vi.elbo(noisy, exactly, observed={}, args=(0.0,))


# -------------------------------------------------------------------------------- refusals


def test_errors():
    with pytest.raises(ValueError, match="at least 1"):
        importance(particles=0)
    with pytest.raises(TypeError, match="inference algorithm"):
        marginal(pair, keep="x", by=reverse)
    with pytest.raises(AddressError, match="did you mean 'x'"):
        mean(lambda: density(marginal(pair, keep="xx", by=importance()))({"xx": True}))
    x_of = marginal(pair, keep="x", by=importance())
    with pytest.raises(AddressError, match="no choice 'u'"):
        mean(lambda: density(x_of)({"x": True, "u": 1}))
    with pytest.raises(AddressError, match="no value was given"):
        mean(lambda: density(x_of)({}))

    @gen
    def wrong(kept):
        categorical(probs=R_U) @ "w"

    with pytest.raises(AddressError, match="'u'"):
        mean(lambda: density(marginal(pair, keep="x", by=importance(wrong)))({"x": True}))
    both = normalize(pair, by=sir(particles=2))
    with pytest.raises(AddressError, match="'u'"):
        mean(lambda: both.generate({"x": True})[1])
    with pytest.raises(UnsupportedError, match="alone"):
        both.regenerate(jax.eval_shape(seed(both.simulate), jax.random.key(0)), genjax.sel("x"))
