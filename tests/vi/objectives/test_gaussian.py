"""Objectives on z ~ N(0, 1), y ~ N(z, 1) at y = 2, where everything is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import density, flip, gen, normal, param, positive, vi
from ppl.errors import SupportError
from tests.compiler.exact import QUICK

Y = 2.0
LOG_EVIDENCE = -(Y**2) / 4 - 0.5 * np.log(4 * np.pi)
OBSERVED = {"y": Y}


@gen
def model():
    z = normal(0.0, 1.0) @ "z"
    normal(z, 1.0) @ "y"


@gen
def prior():
    normal(param("loc", 0.0), param("scale", 1.0, support=positive)) @ "z"


@gen
def posterior():
    normal(param("loc", 1.0), param("scale", np.sqrt(0.5), support=positive)) @ "z"


def values(objective, n):
    est = vi.compile(objective)
    params = est.init(jax.random.key(0))
    run = jax.jit(jax.vmap(lambda k: est.value(k, params)), compiler_options=QUICK)
    return np.asarray(run(jax.random.split(jax.random.key(1), n)), np.float64)


def test_order_of_the_bounds():
    """ELBO <= IWELBO_2 <= IWELBO_3 <= log p <= CUBO; exact values by quadrature.

    200,000 draws (8,000 of 500 particles for the chi bound): each mean within 5.5 standard errors
    of the exact value (false-alarm rate 4e-8), which are less than half of the gaps."""
    exact = {
        "elbo": (vi.elbo(model, prior, observed=OBSERVED), 200_000, -3.418939),
        "two": (vi.iwelbo(model, prior, observed=OBSERVED, particles=2), 200_000, -2.757902),
        "three": (vi.iwelbo(model, prior, observed=OBSERVED, particles=3), 200_000, -2.560759),
    }
    bounds = []
    for objective, n, expected in exact.values():
        draws = values(objective, n)
        stderr = draws.std() / np.sqrt(n)
        assert 5.5 * stderr < 0.04 and abs(draws.mean() - expected) < 5.5 * stderr
        bounds.append(draws.mean())
    chi = values(vi.chi_square(model, prior, observed=OBSERVED, log_scale=LOG_EVIDENCE), 200_000)
    # E[w^2] = exp(2 CUBO_2), CUBO_2 = -1.860258
    expected = np.exp(2 * (-1.860258 - LOG_EVIDENCE))
    stderr = chi.std() / np.sqrt(len(chi))
    assert abs(-chi.mean() - expected) < 5.5 * stderr and 5.5 * stderr < 0.1 * expected
    upper = LOG_EVIDENCE + 0.5 * np.log(-chi.mean())
    assert bounds == sorted(bounds) and bounds[-1] < LOG_EVIDENCE < upper


@pytest.mark.parametrize(
    "make",
    [
        lambda g: vi.elbo(model, g, observed=OBSERVED),
        lambda g: vi.iwelbo(model, g, observed=OBSERVED, particles=3),
        lambda g: vi.renyi(model, g, observed=OBSERVED, particles=3, alpha=-1.0),
        lambda g: vi.thermodynamic(model, g, observed=OBSERVED, particles=3),
        lambda g: vi.thermodynamic(model, g, observed=OBSERVED, particles=3, upper=True),
        lambda g: vi.reverse_kl(lambda z: density(model)({**z, "y": Y}), g),
    ],
)
def test_with_the_posterior_every_draw_is_the_evidence(make):
    np.testing.assert_allclose(values(make(posterior), 50), LOG_EVIDENCE, atol=1e-4)


@pytest.mark.parametrize("name", ["kl_forward", "jensen_shannon", "total_variation"])
def test_with_the_posterior_divergences_vanish(name):
    objective = vi.f_divergence(model, posterior, divergence=name, particles=3, observed=OBSERVED)
    np.testing.assert_allclose(values(objective, 50), 0.0, atol=1e-4)
    symmetric = vi.jeffreys(model, posterior, particles=3, observed=OBSERVED)
    assert values(symmetric, 50).mean() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("refresh, leapfrogs", [(0.0, 1), (0.5, 2)])
def test_annealing_estimates_the_evidence(refresh, leapfrogs):
    """exp of the bound is an unbiased estimate of p(y), and the bound beats the ELBO.

    40,000 draws; |z| < 5.5 (false-alarm rate 4e-8); a bias of 3 % would fail."""
    objective = vi.annealed(
        model, prior, steps=6, leapfrogs=leapfrogs, step_size=0.45, refresh=refresh,
        observed=OBSERVED,
    )  # fmt: skip
    draws = values(objective, 40_000)
    ratio = np.exp(draws - LOG_EVIDENCE)
    stderr = ratio.std() / np.sqrt(len(ratio))
    assert abs(ratio.mean() - 1) < 5.5 * stderr and 5.5 * stderr < 0.03
    assert -3.418939 + 0.3 < draws.mean() < LOG_EVIDENCE


def test_annealing_trains_its_moves():
    """200 steps of training tighten the bound by more than a quarter of its gap."""
    objective = vi.annealed(model, prior, steps=3, step_size=0.1, observed=OBSERVED)
    fit = vi.fit(objective, steps=200, num_samples=16, key=jax.random.key(0), progress=False)
    assert fit.params["annealed.step_size"][0] > 0.1
    assert np.mean(-fit.losses[-20:]) > np.mean(-fit.losses[:20]) + 0.3


def test_annealing_needs_real_latents():
    @gen
    def discrete():
        z = flip(0.5) @ "z"
        normal(jnp.where(z, 1.0, 0.0), 1.0) @ "y"

    with pytest.raises(SupportError, match="real line"):
        vi.annealed(discrete, steps=1, observed=OBSERVED)


def test_nested_levels_reach_their_targets():
    """Two levels: N(0, 1) to N(1, 1/2), each level's optimum found to 0.1, the gains then
    add up to log Z of the last target."""

    @gen
    def first():
        normal(param("m0", 0.5), param("s0", 2.0, support=positive)) @ "z"

    @gen
    def second(before):
        normal(
            param("a", 0.0) * before["z"] + param("m1", 0.0), param("s1", 1.0, support=positive)
        ) @ "z"

    @gen
    def back(after):
        normal(
            param("b", 0.0) * after["z"] + param("m2", 0.0), param("s2", 1.0, support=positive)
        ) @ "z"

    log_normal = lambda z: -0.5 * z["z"] ** 2 - 0.5 * np.log(2 * np.pi)
    log_joint = lambda z: density(model)({**z, "y": Y})
    objective = vi.nested([log_normal, log_joint], [first, second], [back], particles=4)
    fit = vi.fit(objective, steps=1_500, num_samples=4, key=jax.random.key(0), progress=False)
    p = fit.params
    assert p["m0"] == pytest.approx(0.0, abs=0.1) and p["s0"] == pytest.approx(1.0, abs=0.1)
    # the move's marginal over N(0, 1) is the second target
    assert p["m1"] == pytest.approx(1.0, abs=0.1)
    assert p["a"] ** 2 + p["s1"] ** 2 == pytest.approx(0.5, abs=0.1)
    assert np.mean(-fit.losses[-200:]) == pytest.approx(LOG_EVIDENCE, abs=0.05)


def test_sleep_finds_the_amortised_posterior():
    """Its optimum is the posterior for every y: z | y ~ N(y / 2, 1 / 2)."""

    @gen
    def amortised(y):
        normal(param("slope", 0.0) * y, param("scale", 1.0, support=positive)) @ "z"

    objective = vi.sleep(
        model, amortised, observed="y", guide_args=lambda data: (data["y"],), simulations=64
    )
    fit = vi.fit(objective, steps=1_000, key=jax.random.key(0), progress=False)
    assert fit.params["slope"] == pytest.approx(0.5, abs=0.05)
    assert fit.params["scale"] == pytest.approx(np.sqrt(0.5), abs=0.05)


def test_arguments():
    with pytest.raises(ValueError, match="betas must increase"):
        vi.thermodynamic(model, prior, particles=2, betas=(0.0, 0.5), observed=OBSERVED)
    with pytest.raises(ValueError, match="order"):
        vi.cubo(model, prior, order=1.0, particles=2, observed=OBSERVED)
    with pytest.raises(ValueError, match="no divergence 'kl'"):
        vi.f_divergence(model, prior, divergence="kl", particles=2, observed=OBSERVED)
    with pytest.raises(ValueError, match="at least 2"):
        vi.f_divergence(model, prior, divergence="pearson", observed=OBSERVED)
    with pytest.raises(ValueError, match="reverse program"):
        vi.nested([None], [prior], [prior])
