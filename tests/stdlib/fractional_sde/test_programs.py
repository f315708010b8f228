"""Paths as programs: their laws, Girsanov's ratio, and both kinds of stochastic integral.

Statistical tests: |z| < 5.5 (false-alarm rate 4e-8 each), fixed keys.
"""

from __future__ import annotations

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import density, gen, normal, param, seed, vi
from ppl.testing import assert_unbiased
from stdlib.fractional_sde import BROWNIAN, SDE, FractionalNoise, exact, path, weighed_path
from stdlib.fractional_sde.tasks import Bridge

SEEN = 0.5


def z_score(draws, known):
    draws = np.asarray(draws, float)
    return abs(draws.mean() - known) / (draws.std(ddof=1) / len(draws) ** 0.5)


# ------------------------------------------------------------------------------------- the noise


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_exact_step_composes(kind):
    """Two steps have the law of one that is twice as long: mean and covariance with W's."""
    noise = FractionalNoise(kind)
    once, twice = noise.move(0.1), noise.move(0.2)
    keep = 1 - once.loss
    np.testing.assert_allclose(keep**2, 1 - twice.loss, rtol=1e-12)

    def covariance(move, dt):  # of the processes, and with W
        own = dt * np.outer(move.gain, move.gain) + move.between @ move.between.T
        return own, dt * move.gain

    (own, with_w), (own2, with_w2) = covariance(once, 0.1), covariance(twice, 0.2)
    np.testing.assert_allclose(keep[:, None] * own * keep + own, own2, atol=1e-11)
    np.testing.assert_allclose(keep * with_w + with_w, with_w2, rtol=1e-12)


def test_the_steps_noise_has_few_directions():
    assert FractionalNoise().move(0.01).between.shape == (5, 2)
    assert FractionalNoise().move(0.01, "euler").between.shape == (5, 0)
    assert BROWNIAN.move(0.1).between.shape == (1, 0)


def test_eulers_scheme_needs_short_steps():
    with pytest.raises(ValueError, match=r"step below 0\.025"):
        FractionalNoise().move(0.025, "euler")
    with pytest.raises(ValueError, match="scheme must be"):
        FractionalNoise().move(0.01, "heun")


@pytest.mark.parametrize("kind", ["I", "II"])
def test_simulated_noise_has_its_covariance(kind):
    """20,000 paths: a relative error of 4 % in an entry is seen."""
    noise = FractionalNoise(kind)
    sde = SDE(noise, 0.3, 8, 1.0)
    run = seed(lambda: path(sde).simulate(jnp.zeros(1)).get_retval()[0][:, 0])
    draws = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20_000)), float)
    times = np.arange(1, 9) / 8
    known = exact.markov_covariance(noise, noise.weights(0.3), times)
    products = draws[:, :, None] * draws[:, None, :]
    error = products.std(0) / len(draws) ** 0.5
    assert np.max(error / np.sqrt(np.outer(np.diag(known), np.diag(known)))) < 0.011
    assert np.max(np.abs(products.mean(0) - known) / error) < 5.5


def test_brownian_motion_is_its_increments():
    sde = SDE(BROWNIAN, 0.5, 10, 1.0)
    tr = seed(lambda: path(sde).simulate(jnp.zeros(2)))(jax.random.key(0))
    np.testing.assert_allclose(tr.get_retval()[0], jnp.cumsum(tr.get_choices()["dW"], 0), atol=1e-6)


# ------------------------------------------------------------------------- Ito and Stratonovich


class Increments(diffrax.AbstractPath):
    """A Brownian path that is linear between given values."""

    values: jax.Array
    dt: float
    t0: float = 0.0
    t1: float = 1.0

    def evaluate(self, t0, t1=None, left=True, use_jump=True):
        at = lambda t: jnp.interp(t, self.dt * jnp.arange(len(self.values)), self.values)
        return at(t0) if t1 is None else at(t1) - at(t0)


@pytest.mark.parametrize("sense", ["ito", "stratonovich"])
def test_the_sense_of_the_integral(sense):
    """dX = 0.3 X dB: a path of the program against diffrax's solution of the augmented equation,
    dX = 0.3 X (obar dW - sum w gamma Y dt), dY = -gamma Y dt + dW, on the same Brownian path.

    Heun's method solves it in Stratonovich's sense, Euler's in Ito's; the two solutions are 6 %
    apart, the program is within 1 % of the right one, with 2,000 steps.
    """
    steps, noise = 2_000, FractionalNoise("II")
    sde = SDE(
        noise,
        0.4,
        steps,
        1.0,
        diffusion=lambda x, t: 0.3 * x,
        sense=sense,
        scheme="euler",
    )
    tr = seed(lambda: path(sde).simulate(jnp.ones(1)))(jax.random.key(3))
    ours = float(tr.get_retval()[0][-1, 0])
    brownian = jnp.concatenate([jnp.zeros(1), jnp.cumsum(tr.get_choices()["dW"][:, 0])])
    weights, rates = noise.weights(0.4), jnp.asarray(noise.rates)

    def drift(t, state, _):
        x, y = state[0], state[1:]
        return jnp.append(-0.3 * x * (weights @ (rates * y)), -rates * y)

    def diffusion(t, state, _):
        return jnp.append(0.3 * state[0] * jnp.sum(weights), jnp.ones(len(rates)))

    terms = diffrax.MultiTerm(
        diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, Increments(brownian, sde.dt))
    )
    solution = {}
    for name, solver in (("ito", diffrax.Euler()), ("stratonovich", diffrax.Heun())):
        start = jnp.append(1.0, jnp.zeros(len(rates)))
        solved = diffrax.diffeqsolve(terms, solver, 0.0, 1.0, sde.dt, start, max_steps=steps + 1)
        solution[name] = float(solved.ys[-1, 0])
    other = solution["ito" if sense == "stratonovich" else "stratonovich"]
    assert abs(other / solution[sense] - 1) > 0.04
    assert abs(ours / solution[sense] - 1) < 0.01


# ------------------------------------------------------------------------------------- Girsanov


def best_control(task, hurst):
    """Doob's transform: the exact posterior of a bridge has this control, as the step shrinks."""
    weights, rates = task.noise.weights(hurst), jnp.asarray(task.noise.rates)
    total = rates[:, None] + rates

    def control(t, x, y, _):
        left = task.duration - t
        mean = x + y @ (weights * jnp.expm1(-rates * left))
        variance = weights @ (-jnp.expm1(-total * left) / total) @ weights
        slope = jnp.sum(weights * jnp.exp(-rates * left))
        return slope * (SEEN - mean) / (variance + task.scale**2)

    return control


def bridge_weights(task, hurst, control, draws, past=(0.0, 1.0)):
    """log p(o | X(T)) + log dP/dQ, of many draws."""
    weighed = weighed_path(task.sde(hurst), control, past)

    def one():
        xs, log_ratio = weighed(jnp.zeros(1))
        return normal.logpdf(SEEN, xs[-1, 0], task.scale) + log_ratio

    return np.asarray(
        jax.jit(jax.vmap(seed(one)))(jax.random.split(jax.random.key(0), draws)), float
    )


def test_the_best_control_has_constant_weights():
    """Path by path, log p(o | X) - int u dW - 1/2 int u^2 dt is the log evidence, up to a spread
    that vanishes with the step."""
    spreads = []
    for steps in (20, 160):
        task = Bridge("II", steps=steps)
        log_weights = bridge_weights(task, 0.7, best_control(task, 0.7), 500)
        spreads.append(log_weights.std())
        # The bound's gap is half the variance, to first order; 5.5 standard errors.
        slack = spreads[-1] ** 2 + 5.5 * spreads[-1] / 500**0.5
        assert abs(log_weights.mean() - task.log_evidence(SEEN, 0.7)) < slack
    assert spreads[1] < 0.6 * spreads[0]


def poor_control(t, x, y, _):
    return 0.4 * (1.0 - x)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_weights_are_unbiased_for_any_control(kind):
    """With the exact step, for the continuous path's evidence, at 10 steps already; also with
    another past. 50,000 draws: the standard error is below 1 %."""
    task = Bridge(kind, steps=10)
    past = (0.1, 1.1) if kind == "I" else (0.0, 1.0)
    ratios = np.exp(
        bridge_weights(task, 0.3, poor_control, 50_000, past) - task.log_evidence(SEEN, 0.3)
    )
    assert ratios.std() / len(ratios) ** 0.5 < 0.01
    assert z_score(ratios, 1.0) < 5.5


def test_no_control_costs_nothing():
    task = Bridge("I", steps=10)
    weighed = weighed_path(task.sde(0.4), lambda t, x, y, _: jnp.zeros_like(x))
    _, log_ratio = jax.jit(seed(lambda: weighed(jnp.zeros(1))))(jax.random.key(0))
    assert float(log_ratio) == 0.0


@pytest.mark.parametrize("kind", ["I", "II"])
def test_known_bridges(kind):
    """Of the card: log evidence, and sd of X(1)."""
    known = {
        ("I", 0.3): (-1.39663, 0.948), ("I", 0.7): (-1.41655, 0.611),
        ("II", 0.3): (-1.35354, 0.934), ("II", 0.7): (-1.42404, 0.618),
    }  # fmt: skip
    for hurst in (0.3, 0.7):
        task = Bridge(kind)
        found = task.log_evidence(SEEN, hurst), task.middle(hurst)
        np.testing.assert_allclose(found, known[kind, hurst], atol=6e-4)


# ---------------------------------------------------------------------------------- objectives


@gen
def seen_at_end(x):
    normal(x, 0.5) @ "o"


def gain_control(t, x, y, _):
    return param("gain", 0.3) * (1.0 - x)


TASK = Bridge("I", steps=6)


@vi.objective
def one_loop():
    past = param("past", 0.1), 1.0
    xs, log_ratio = weighed_path(TASK.sde(param("hurst", 0.4)), gain_control, past)(jnp.zeros(1))
    return density(seen_at_end)({"o": SEEN}, xs[-1, 0]) + log_ratio


@gen
def simple_model():
    xs, _ = path(TASK.sde(param("hurst", 0.4)))(jnp.zeros(1)) @ "path"
    normal(xs[-1, 0], 0.5) @ "o"


@gen
def simple_guide():
    past = param("past", 0.1), 1.0
    path(TASK.sde(param("hurst", 0.4)), gain_control, past)(jnp.zeros(1)) @ "path"


def test_three_forms_of_the_bound():
    """Model and guide as two programs, both in one loop, and that with the ratio's mean in closed
    form: the same value and gradient in the mean. The latter two have the same draws. 8,000 draws;
    an error of a quarter of the largest gradient would be seen (a missing or doubled term)."""
    two_loops = vi.elbo(simple_model, simple_guide, observed={"o": jnp.asarray(SEEN)})
    estimators = [
        vi.compile(two_loops),
        vi.compile(one_loop),
        vi.compile(one_loop, rewrites="closed_form"),
    ]
    keys = jax.random.split(jax.random.key(0), 8_000)
    params = estimators[0].init(keys[0])
    runs = []
    for est in estimators:
        value, grad = jax.jit(jax.vmap(lambda k, e=est: e.value_and_grad(k, params)))(keys)
        runs.append(np.stack([value, *(grad[n] for n in sorted(params))], 1).astype(float))
    largest = np.abs(runs[1].mean(0)[1:]).max()
    for i, j in ((0, 1), (1, 2)):
        apart = runs[i] - runs[j]
        error = apart.std(0) / len(keys) ** 0.5
        assert np.max(error[1:]) < 0.06 * largest
        assert np.all(np.abs(apart.mean(0)) < 5.5 * error + 1e-5)
    rewritten = [str(r) for r in estimators[2].plan().rewritten]
    for name in ("move/dW: E[log normal]", "past: E[log normal]", "past: its entropy"):
        assert any(name in r for r in rewritten), name


def test_the_objective_is_unbiased():
    """Against the score function of the increments, which knows nothing of paths."""
    small = Bridge("II", steps=2)

    @vi.objective
    def objective():
        weighed = weighed_path(small.sde(param("hurst", 0.4)), gain_control)
        xs, log_ratio = weighed(jnp.zeros(1))
        return density(seen_at_end)({"o": SEEN}, xs[-1, 0]) + log_ratio

    reference = {"move/dW": "score"}
    assert_unbiased(objective, reference=reference, whole_gradient=True, bias=0.1)


def test_explained():
    text = str(vi.compile(one_loop, rewrites="closed_form").explain())
    for words in (
        "move/dW  normal[1]  reparam",
        "start/past",
        "closed_form: move/dW: E[log normal]",
    ):
        assert words in text


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(steps=0), "steps must be at least 1"),
        (dict(duration=0.0), "duration positive"),
        (dict(sense="itô"), "sense must be"),
    ],
)
def test_equations_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SDE(**{"noise": BROWNIAN, "hurst": 0.5, "steps": 10, "duration": 1.0, **options})
