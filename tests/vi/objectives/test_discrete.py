"""Every multi-sample objective on a model with three outcomes, against the sum over all draws.

Enumerated estimators must be exact, score estimators unbiased, in value and gradient.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax, softmax
from jax.scipy.special import logsumexp

from ppl import categorical, flip, gen, param, vi
from tests.compiler.exact import check_unbiased

PRIOR = np.array([0.2, 0.5, 0.3])
LIKE = np.array([0.9, 0.4, 0.2])  # p(y = 1 | z)
THETA = np.array([0.3, -0.2, 0.4])
LOG_P = np.log(PRIOR * LIKE)
EVIDENCE = float(np.log(np.sum(PRIOR * LIKE)))


@gen
def model():
    z = categorical(probs=PRIOR) @ "z"
    flip(jnp.asarray(LIKE)[z]) @ "y"


@gen
def guide():
    categorical(param("theta", THETA.astype(np.float32))) @ "z"


COMMON = {"model": model, "guide": guide, "observed": {"y": True}}


def snis(h):
    """A wake phase's value: draws and weights with the frozen parameters, `h` with the others."""
    return lambda log_w, log_q: jnp.sum(softmax(jax.lax.stop_gradient(log_w)) * h(log_w, log_q))


def tvo(log_w, _):
    betas = np.array([0.0, 0.3, 1.0])
    return sum((b - a) * jnp.sum(softmax(a * log_w) * log_w) for a, b in itertools.pairwise(betas))


# name: (objective, particles, value of given log-weights and log q's, whether draws are frozen)
CASES = {
    "elbo": (vi.elbo(**COMMON), 1, lambda w, q: w[0], False),
    "iwelbo": (vi.iwelbo(**COMMON, particles=2), 2, lambda w, q: logsumexp(w) - np.log(2), False),
    "renyi": (
        vi.renyi(**COMMON, alpha=0.5, particles=2),
        2,
        lambda w, q: 2 * (logsumexp(0.5 * w) - np.log(2)),
        False,
    ),
    "renyi at 1": (vi.renyi(**COMMON, alpha=1.0, particles=2), 2, lambda w, q: w.mean(), False),
    "cubo": (
        vi.cubo(**COMMON, particles=2),
        2,
        lambda w, q: -0.5 * (logsumexp(2 * w) - np.log(2)),
        False,
    ),
    "chi_square": (
        vi.chi_square(**COMMON, log_scale=-0.8),
        1,
        lambda w, q: -jnp.exp(2 * (w[0] + 0.8)),
        False,
    ),
    "thermodynamic": (
        vi.thermodynamic(**COMMON, particles=2, betas=(0.0, 0.3, 1.0)),
        2,
        tvo,
        False,
    ),
    "wake_phi": (vi.wake_phi(**COMMON, particles=2), 2, snis(lambda w, q: q), True),
    "jeffreys": (vi.jeffreys(**COMMON, particles=2), 2, None, False),
    "total variation": (
        vi.f_divergence(**COMMON, divergence="total_variation", log_evidence=EVIDENCE),
        1,
        lambda w, q: -0.5 * jnp.abs(jnp.exp(w[0] - EVIDENCE) - 1),
        False,
    ),
    "jensen-shannon of particles": (
        vi.f_divergence(**COMMON, divergence="jensen_shannon", particles=2),
        2,
        lambda w, q: -jnp.mean(vi.divergences["jensen_shannon"](w - logsumexp(w) + np.log(2))),
        False,
    ),
}


def exact(name):
    """Value and gradient by the sum over all draws, in float64."""
    _, particles, value, is_frozen = CASES[name]

    def mean(theta, theta_of_draws):
        log_q, draws = log_softmax(theta), log_softmax(theta_of_draws)
        total = 0.0
        for z in itertools.product(range(3), repeat=particles):
            z = np.array(z)
            total += jnp.exp(jnp.sum(draws[z])) * value(LOG_P[z] - log_q[z], log_q[z])
        return total

    def jeffreys(theta, theta_of_draws):
        log_q, held = log_softmax(theta), log_softmax(theta_of_draws)
        total = jnp.sum(jnp.exp(log_q) * (LOG_P - log_q))
        for z in itertools.product(range(3), repeat=particles):
            z = np.array(z)
            weights = softmax(LOG_P[z] - held[z])
            total += jnp.exp(jnp.sum(held[z])) * jnp.sum(weights * (log_q[z] - LOG_P[z]))
        return total

    with jax.enable_x64(True):
        theta = jnp.asarray(THETA, jnp.float64)
        if name == "jeffreys":
            out = jax.value_and_grad(jeffreys)(theta, theta)
        elif is_frozen:
            out = jax.value_and_grad(mean)(theta, theta)
        else:
            out = jax.value_and_grad(lambda t: mean(t, t))(theta)
        return float(out[0]), np.asarray(out[1])


@pytest.mark.parametrize("name", list(CASES))
def test_enumerated_estimates_are_exact(name):
    objective = CASES[name][0]
    est = vi.compile(objective, strategies={"*": "enum"})
    params = est.init(jax.random.key(0))
    value, grad = jax.jit(est.value_and_grad)(jax.random.key(1), params)
    expected, expected_grad = exact(name)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad["theta"], expected_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["renyi", "chi_square", "thermodynamic", "wake_phi", "jeffreys"])
def test_score_estimates_are_unbiased(name):
    """At least 20,000 gradients, |z| < 5.5 (false-alarm rate 4e-8); a bias of 3 % would fail."""
    value, grad = exact(name)
    check_unbiased(CASES[name][0], {"theta": grad}, exact_value=value, strategies={"*": "score"})


def test_phases_of_wake_sleep_train_what_they_say():
    """wake_theta the model alone, reweighted_wake_sleep both, each with its own gradient."""

    @gen
    def trained():
        z = categorical(param("prior", np.log(PRIOR).astype(np.float32))) @ "z"
        flip(jnp.asarray(LIKE)[z]) @ "y"

    common = dict(guide=guide, observed={"y": True}, particles=2)
    estimates = {}
    for objective in (vi.wake_theta, vi.wake_phi, vi.reweighted_wake_sleep):
        est = vi.compile(objective(trained, **common), strategies={"*": "enum"})
        params = est.init(jax.random.key(0))
        estimates[objective.__name__] = jax.jit(est.value_and_grad)(jax.random.key(0), params)
    (p, grad_p), (q, grad_q), (both, grad) = estimates.values()
    np.testing.assert_allclose(p + q, both, rtol=1e-5)
    assert not np.any(grad_p["theta"]) and np.any(grad_p["prior"])
    # wake_phi does not even train the model as a sampler of weights
    assert "prior" not in grad_q or not np.any(grad_q["prior"])
    np.testing.assert_allclose(grad["prior"], grad_p["prior"], atol=1e-6)
    np.testing.assert_allclose(grad["theta"], grad_q["theta"], atol=1e-6)


def test_f_divergences_are_divergences():
    """Zero at u = 1, convex, and the dual is the divergence with its arguments exchanged."""
    log_u = np.linspace(-3, 3, 61).astype(np.float32)
    u = np.exp(log_u)
    alphas = {f"alpha {a}": vi.alpha_divergence(a) for a in (-1.0, 0.0, 0.5, 1.0, 2.0)}
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.4, 0.2])
    for name, f in {**vi.divergences, **alphas}.items():
        assert abs(float(f(jnp.float32(0.0)))) < 1e-6, name
        values = np.asarray(f(jnp.asarray(log_u)), np.float64)
        slopes = np.diff(values) / np.diff(u)
        assert np.all(np.diff(slopes) > -1e-3), name
        forward = np.sum(q * np.asarray(f(np.log(p / q))))
        backward = np.sum(p * np.asarray(vi.dual(f)(np.log(q / p))))
        assert forward > 0 and forward == pytest.approx(backward, abs=1e-6), name
    known = {
        "kl_reverse": np.sum(q * np.log(q / p)),
        "kl_forward": np.sum(p * np.log(p / q)),
        "total_variation": 0.5 * np.sum(np.abs(p - q)),
        "pearson": np.sum((p - q) ** 2 / q),
        "neyman": np.sum((p - q) ** 2 / p),
        "squared_hellinger": 0.5 * np.sum((np.sqrt(p) - np.sqrt(q)) ** 2),
        "jensen_shannon": 0.5 * np.sum(p * np.log(2 * p / (p + q)))
        + 0.5 * np.sum(q * np.log(2 * q / (p + q))),
        "triangular": np.sum((p - q) ** 2 / (p + q)),
    }
    for name, value in known.items():
        found = np.sum(q * np.asarray(vi.divergences[name](np.log(p / q))))
        assert found == pytest.approx(value, abs=1e-6), name


def test_hierarchical_bounds_grow():
    """hvi < iwhvi < diwhvi < log p(y), the first two exactly; u has two values."""

    @gen
    def auxiliary():
        u = flip(0.4) @ "u"
        categorical(jnp.where(u, jnp.array([1.0, 0.0, -1.0]), jnp.array([-1.0, 0.5, 0.0]))) @ "z"

    @gen
    def reverse(kept):
        flip(0.5) @ "u"

    def bound(**options):
        make = vi.diwhvi if "particles" in options else vi.iwhvi if options else vi.hvi
        objective = make(model, auxiliary, reverse, observed={"y": True}, **options)
        est = vi.compile(objective, strategies={"*": "enum"})
        return float(jax.jit(lambda k: est.value(k, {}))(jax.random.key(0)))

    q = np.exp(log_softmax(np.array([[-1.0, 0.5, 0.0], [1.0, 0.0, -1.0]])))  # [u, z]
    joint = np.array([0.6, 0.4])[:, None] * q
    by_hand = np.sum(joint * (LOG_P + np.log(0.5) - np.log(joint)))
    one, two = bound(), bound(inner_particles=2)
    assert one == pytest.approx(by_hand, abs=1e-5)
    pairs = [
        joint[u, z] * 0.5 * (LOG_P[z] - np.log((joint[u, z] + joint[v, z]) / (2 * 0.5)))
        for u in (0, 1)
        for v in (0, 1)
        for z in range(3)
    ]
    assert two == pytest.approx(np.sum(pairs), abs=1e-5)
    tight = np.sum(joint.sum(0) * (LOG_P - np.log(joint.sum(0))))
    assert one < two < tight
    assert bound(inner_particles=1) == pytest.approx(one, abs=1e-6)
    double = bound(particles=2, inner_particles=2)
    assert two < double < EVIDENCE
    assert bound(particles=1, inner_particles=2) == pytest.approx(two, abs=1e-6)
