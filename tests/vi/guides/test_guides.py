"""Guides on demand: their densities on every support, and the posteriors that they must find."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from genjax import sel
from scipy import stats

from ppl import (
    beta,
    bind_params,
    categorical,
    density,
    dirichlet,
    exponential,
    flip,
    gen,
    lkj_cholesky,
    log_normal,
    masked,
    normal,
    plate,
    poisson,
    scan,
    seed,
    sim,
    uniform,
    vi,
    wishart,
)
from ppl.errors import AddressError, ShapeError, UnsupportedError
from ppl.vi.guides.low_rank import low_rank_normal
from ppl.vi.guides.structured import markov_normal


@gen
def supports():
    normal(jnp.zeros(2), 1.0) @ "real"
    exponential(1.0) @ "positive"
    beta(2.0, 2.0) @ "unit"
    uniform(-1.0, 3.0) @ "interval"
    dirichlet(jnp.ones((2, 3))) @ "simplex"
    wishart(4.0, jnp.eye(2)) @ "definite"
    lkj_cholesky(3)(2.0) @ "correlation"
    inner() @ "inner"
    flip(0.3) @ "flip"
    categorical(jnp.zeros((2, 3))) @ "kinds"


@gen
def inner():
    log_normal(0.0, 1.0) @ "z"


BLOCKS = [["real", "inner/z"], ["simplex", "correlation"]]
GUIDES = {
    "mean_field": vi.mean_field,
    "full_rank": vi.full_rank,
    "structured": functools.partial(vi.structured, blocks=BLOCKS),
}


@pytest.mark.parametrize("name", GUIDES)
def test_densities_agree_on_every_support(name):
    """What `sim` says of a draw, `density` says too; and the draws are in the model's supports."""
    guide = GUIDES[name](supports)

    def draw(key):
        z, log_q = seed(sim(guide))(key)
        log_q_again = seed(density(guide))(key, z)
        return z, log_q, log_q_again, density(supports)(z)

    z, log_q, again, log_p = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 16))
    assert np.isfinite(log_p).all() and np.ptp(log_q) > 0.5
    np.testing.assert_allclose(again, log_q, rtol=2e-3, atol=5e-3)
    shapes = jax.tree.map(lambda x: x.shape[1:], z)
    expected = jax.eval_shape(lambda: seed(sim(supports))(jax.random.key(0))[0])
    assert shapes == jax.tree.map(lambda x: x.shape, expected)


def test_the_density_of_a_guide_integrates_to_one():
    """By importance sampling with a uniform proposal on a triangle of (unit, simplex)."""

    @gen
    def small():
        beta(1.0, 1.0) @ "unit"
        exponential(1.0) @ "positive"

    guide = vi.full_rank(small)
    params = {
        "full_rank.loc": jnp.array([0.3, -0.2]),
        "full_rank.scale_tril": jnp.array([[0.7, 0.0], [-0.5, 0.4]]),
    }

    @jax.jit
    @jax.vmap
    def log_q(unit, positive):
        return bind_params(density(guide), params)({"unit": unit, "positive": positive})

    units, positives = np.meshgrid(np.linspace(0.002, 0.998, 250), np.linspace(1e-3, 6, 600))
    values = np.exp(log_q(units.ravel(), positives.ravel()))
    cell = (0.996 / 249) * (6 - 1e-3) / 599
    np.testing.assert_allclose(values.sum() * cell, 1.0, atol=5e-3)


def test_closed_forms_with_a_made_guide():
    """All factors of real choices are normals, so that nothing is left to draw here."""

    @gen
    def model(xs):
        slope = normal(0.0, 2.0) @ "slope"
        level = normal(jnp.zeros(3), 1.0) @ "level"
        normal(slope * xs, 0.5) @ "y"
        normal(level, 0.5) @ "z"

    xs, keys = jnp.array([-1.0, 0.5, 2.0]), jax.random.split(jax.random.key(0), 2_000)
    bound = vi.elbo(model, observed={"y": xs**2, "z": xs}, args=(xs,))
    est = vi.compile(bound, rewrites="closed_form")
    params = est.init(keys[0])
    first, second = (est.value_and_grad(key, params) for key in keys[:2])
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    # 5.5 standard errors: a false alarm in 3e7 tests; an error of half a nat would show.
    drawn = jax.vmap(lambda key: vi.compile(bound).value(key, params))(keys)
    error = 5.5 * np.std(drawn) / np.sqrt(len(keys))
    assert abs(np.mean(drawn) - first[0]) < error < 0.5


def test_low_rank_normal():
    rng = np.random.default_rng(0)
    loc, factor, scale = rng.normal(size=4), rng.normal(size=(4, 2)), rng.uniform(0.5, 1, 4)
    law = stats.multivariate_normal(loc, factor @ factor.T + np.diag(scale**2))
    x = rng.normal(size=(5, 4))
    found = low_rank_normal.log_prob(x, loc, factor, scale)
    np.testing.assert_allclose(found, law.logpdf(x), rtol=1e-4)
    draw = lambda key: low_rank_normal.sample(loc, factor, scale)
    draws = jax.vmap(lambda key: seed(draw)(key, None))(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(np.cov(draws.T), law.cov, atol=0.12)


def test_markov_normal():
    rng = np.random.default_rng(0)
    loc, carry = rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(3, 2, 2))
    scale = np.tril(rng.normal(size=(3, 2, 2))) + 2 * np.eye(2)
    jump = np.zeros((6, 6))  # moved = jump @ noise
    for t in range(3):
        before = jump[2 * t - 2 : 2 * t] if t else np.zeros((2, 6))
        jump[2 * t : 2 * t + 2] = carry[t] @ before
        jump[2 * t : 2 * t + 2, 2 * t : 2 * t + 2] = scale[t]
    law = stats.multivariate_normal(loc.ravel(), jump @ jump.T)
    x = rng.normal(size=(5, 3, 2))
    found = markov_normal.log_prob(x, loc, carry, scale)
    np.testing.assert_allclose(found, law.logpdf(x.reshape(5, 6)), rtol=1e-4)
    draw = lambda key: seed(lambda: markov_normal.sample(loc, carry, scale))(key)
    draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 20_000)).reshape(-1, 6)
    error = np.abs(np.cov(draws.T) - law.cov) / np.sqrt(np.outer(*[np.diag(law.cov)] * 2))
    assert error.max() < 0.04  # correlations from 40,000 draws: sd at most 0.007


def test_a_joint_guide_has_genjax_interface():
    guide: Any = vi.full_rank(line, observed={"y": LINE}, args=(XS,))

    def run():
        tr = guide.simulate(XS)
        z = tr.get_choices()
        again, weight = guide.generate(z, XS)
        moved, change, old = guide.update(tr, {"a": z["a"] + 1.0}, XS)
        _, none, _ = guide.regenerate(tr, sel(), XS)
        redrawn, zero, _ = guide.regenerate(tr, sel(()), XS)
        choices = (z, moved.get_choices(), old, redrawn.get_choices())
        return (
            choices,
            (tr.get_score(), again.get_score(), weight, none, zero),
            (change, guide.assess(moved.get_choices(), XS)[0] - guide.assess(z, XS)[0]),
        )

    (z, moved, old, redrawn), (score, again, weight, none, zero), changes = seed(run)(
        jax.random.key(0)
    )
    np.testing.assert_allclose([again, -weight], score, rtol=1e-5)
    np.testing.assert_allclose(*changes, rtol=1e-5)
    assert none == zero == 0 and old["a"] == z["a"] and redrawn["a"] != z["a"]
    assert moved["a"] == z["a"] + 1 and moved["b"] == z["b"]
    inside, outside = guide.filter(z, sel("a"))
    assert set(inside) == {"a"} and set(outside) == {"b"}
    merged, replaced = guide.merge(z, {"a": 0.0})
    assert merged == {"a": 0.0, "b": z["b"]} and replaced == {"a": z["a"]}
    with pytest.raises(UnsupportedError, match="a part of a joint guide"):
        seed(lambda: guide.regenerate(guide.simulate(XS), sel("a"), XS)[1])(jax.random.key(0))


# ------------------------------------------------------------------ posteriors that are known


@gen
def line(xs):
    a = normal(0.0, 2.0) @ "a"
    b = normal(0.0, 2.0) @ "b"
    normal(a + b * xs, 0.5) @ "y"


XS, LINE = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.5, 2.0, 3.5])


def exact_line():
    design = np.stack([np.ones(3), np.asarray(XS)], 1)
    precision = design.T @ design / 0.25 + np.eye(2) / 4
    cov = np.linalg.inv(precision)
    return cov @ design.T @ np.asarray(LINE) / 0.25, cov


@pytest.mark.parametrize(
    "guide",
    [
        vi.full_rank,
        functools.partial(vi.low_rank, rank=1),
        vi.flow,
    ],
    ids=["full_rank", "low_rank", "flow"],
)
def test_correlated_posteriors(guide):
    mean, cov = exact_line()
    program = vi.elbo(line, guide, observed={"y": LINE}, args=(XS,))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 800))
    fit = vi.fit(program, steps=800, num_samples=8, optimizer=optimizer, progress=False)
    draws = fit.sample(20_000)
    draws = np.stack([draws["a"], draws["b"]], 1)
    z, log_q = seed(bind_params(sim(fit.objective.guide), fit.params))(jax.random.key(1), XS)
    again = bind_params(density(fit.objective.guide), fit.params)(z, XS)
    np.testing.assert_allclose(again, log_q, rtol=1e-3, atol=1e-3)
    sd = np.sqrt(np.diag(cov))
    assert np.max(np.abs(draws.mean(0) - mean) / sd) < 0.1
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), cov / np.outer(sd, sd), atol=0.1)


def test_laplace_is_exact_for_a_normal_posterior():
    mean, cov = exact_line()
    fit = vi.laplace(line, observed={"y": LINE}, args=(XS,), steps=50)
    np.testing.assert_allclose(fit.params["full_rank.loc"], mean, rtol=1e-3)
    scale = fit.params["full_rank.scale_tril"]
    np.testing.assert_allclose(scale @ scale.T, cov, rtol=1e-3)
    estimate = fit.elbo(100)
    evidence = stats.multivariate_normal(
        np.zeros(3), 0.25 * np.eye(3) + 4 * (1 + np.outer(XS, XS))
    ).logpdf(LINE)
    np.testing.assert_allclose(estimate.mean, evidence, atol=2e-3)


def test_laplace_needs_a_maximum_and_continuous_choices():
    with pytest.raises(UnsupportedError, match="must be continuous"):
        vi.laplace(supports)


def test_delta_is_the_mode():
    @gen
    def model():
        exponential(1.0) @ "rate"

    # the mode of Gamma(1 + 5, 1 + 2) in the rate itself is 5 / 3
    @gen
    def counts():
        rate = exponential(1.0) @ "rate"
        poisson(jnp.broadcast_to(rate, (2,))) @ "n"

    program = vi.elbo(counts, vi.delta, observed={"n": jnp.array([3, 2])})
    fit = vi.fit(program, steps=600, optimizer=optax.adam(0.05))
    np.testing.assert_allclose(fit.params["rate.value"], 5 / 3, rtol=1e-3)
    np.testing.assert_allclose(fit.sample(3)["rate"], fit.params["rate.value"])


def test_discrete_choices_beside_a_joint_normal():
    """A flip that shifts the data: its posterior is summed out exactly at the normal's optimum."""

    @gen
    def model():
        z = normal(0.0, 1.0) @ "z"
        kind = flip(0.5) @ "kind"
        normal(z + 4.0 * kind, 0.5) @ "y"

    program = vi.elbo(model, vi.full_rank, observed={"y": 4.2})
    fit = vi.fit(program, steps=600, optimizer=optax.adam(0.05))
    assert float(fit.params["kind.p"]) > 0.95
    assert abs(float(fit.params["full_rank.loc"][0]) - 0.16) < 0.1


def test_chains_follow_a_scan():
    """A local-level model: the posterior is a Gauss-Markov chain, so the bound is tight."""

    @gen
    def step(level, _):
        level = normal(level, 0.5) @ "level"
        normal(level, 0.7) @ "y"
        return level, None

    @gen
    def model():
        scan(step, length=5)(0.0, None) @ "time"

    ys = np.array([0.3, 0.5, 1.4, 0.9, 1.6])
    steps = np.minimum.outer(np.arange(1, 6), np.arange(1, 6)) * 0.25
    evidence = stats.multivariate_normal(np.zeros(5), steps + 0.49 * np.eye(5)).logpdf(ys)
    guide = functools.partial(vi.structured, chains=["time/level"])
    program = vi.elbo(model, guide, observed={"time": {"y": jnp.asarray(ys)}})
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 600))
    fit = vi.fit(program, steps=600, optimizer=optimizer, num_samples=8, progress=False)
    found = fit.elbo(1_000)
    assert evidence - 0.03 < found.mean < evidence + 3 * found.standard_error + 1e-3


# -------------------------------------------------------------------------------- amortised


def test_an_amortised_guide_by_minibatches():
    """z_i ~ N(0, 1), y_i ~ N(z_i, 0.5): z_i given y_i is N(0.8 y_i, 0.2), the same for every i."""
    ys = 1.2 * jax.random.normal(jax.random.key(1), (60,))

    @gen
    def point(_):
        z = normal(0.0, 1.0) @ "z"
        normal(z, 0.5) @ "y"

    @gen
    def model(ys):
        plate(point, total=60)(ys) @ "rows"

    guide = functools.partial(vi.amortised, total=60)
    program = vi.elbo(
        model, guide, observed={"rows": {"y": ys}}, args=(ys,), guide_args=(ys[:, None],)
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(8e-3, 600))
    fit = vi.fit(program, steps=600, batch_size=20, optimizer=optimizer, progress=False)
    draws = fit.sample(2_000)["rows"]["z"]
    np.testing.assert_allclose(draws.mean(0), 0.8 * ys, atol=0.2)
    np.testing.assert_allclose(draws.std(0), 0.2**0.5, rtol=0.15)


def test_amortised_discrete_choices():
    features = jnp.linspace(-1, 1, 4)[:, None]

    @gen
    def model(xs):
        flip.repeat(4)(0.5) @ "kind"
        categorical(jnp.zeros((4, 3))) @ "k"
        normal(0.0, 1.0) @ "shared"

    guide = vi.amortised(model, guide_args=(features,), args=(features,))
    z, log_q = seed(sim(guide))(jax.random.key(0), features)
    assert z["kind"].shape == z["k"].shape == (4,) and z["shared"].shape == ()
    again = seed(density(guide))(jax.random.key(0), z, features)
    np.testing.assert_allclose(again, log_q, rtol=1e-4)
    with pytest.raises(AddressError, match="no latent choice belongs to rows"):
        vi.amortised(model, guide_args=(features[:3],), args=(features,))
    with pytest.raises(ShapeError, match="has not one entry per row"):
        vi.amortised(model, guide_args=(features,), args=(features,), local=["shared"])


# -------------------------------------------------------------- starts, missing data, errors


def test_a_fit_starts_where_the_density_is_high():
    @gen
    def model():
        z = normal(0.0, 100.0) @ "z"
        normal(z, 0.1) @ "y"

    for guide in (vi.mean_field, vi.full_rank):
        made: Any = guide(model, observed={"y": 50.0})
        starts = [
            float(jnp.sum(made.start(k)[f"{n}.loc"]))
            for k in jax.random.split(jax.random.key(0), 20)
            for n in (["z"] if guide is vi.mean_field else ["full_rank"])
        ]
        assert np.median(np.abs(np.array(starts) - 50)) < 15
        assert len(set(starts)) > 10


def test_data_observed_in_part():
    """The missing entry is drawn from the prior given z; the others do not count."""
    ys = masked(jnp.array([1.0, jnp.nan, 1.4]), jnp.array([True, False, True]))

    @gen
    def model():
        z = normal(0.0, 1.0) @ "z"
        normal(jnp.broadcast_to(z, (3,)), 1.0) @ "y"

    for guide in (vi.mean_field, vi.full_rank):
        program = vi.elbo(model, guide, observed={"y": ys})
        fit = vi.fit(program, steps=800, optimizer=optax.adam(0.03), num_samples=4)
        draws = fit.sample(4_000)
        assert abs(float(draws["z"].mean()) - 0.8) < 0.1
        assert 0.8 < float(draws["y"][:, 1].std()) < 1.3
        assert fit.elbo(500).mean < 0


def test_what_cannot_have_a_guide_is_refused():
    @gen
    def moving():
        top = exponential(1.0) @ "top"
        uniform(0.0, top) @ "z"

    with pytest.raises(UnsupportedError, match="depends on other choices"):
        vi.full_rank(moving)
    with pytest.raises(AddressError, match="'unitt'"):
        vi.structured(supports, blocks=[["unitt"]])
    with pytest.raises(AddressError, match="in two blocks"):
        vi.structured(supports, blocks=[["unit"], ["unit", "real"]])
    with pytest.raises(ShapeError, match="leading axis of steps"):
        vi.structured(supports, chains=["unit"])
    with pytest.raises(UnsupportedError, match="only a continuous choice"):
        vi.structured(supports, blocks=[["flip"]])
