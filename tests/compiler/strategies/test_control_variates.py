"""LAX and RELAX: unbiased in every construct, before and after they learned; less variance.

|z| < 5.5 (false-alarm rate 4e-8) with as many draws as it takes to see a bias of 3 %, or of 10 %
where all constructs are tested at once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from ppl.compiler import compile
from ppl.compiler.learned.relaxed import relaxations
from ppl.compiler.strategies import Lax, Relax, Score
from ppl.errors import StrategyError
from ppl.lang import categorical, flip, normal, param, poisson
from tests.compiler.exact import check_draws
from tests.compiler.strategies.programs import (
    check,
    exact,
    flips,
    normals,
    normals_gradient,
    number,
    trained,
)  # fmt: skip

FAST, SLOW = optax.adam(3e-2), optax.adam(1e-2)


def test_relax_everywhere():
    check(flips(flip.via(Relax(4, FAST))), exact(flips(flip.enum))[1], steps=40, bias=0.1)


def test_lax_everywhere():
    check(normals(normal.via(Lax(4, FAST))), normals_gradient(), steps=40, num_samples=4, bias=0.1)


LOGITS = np.array([[0.3, -0.5, 0.1], [0.0, 0.4, -1.0]], np.float32)


def two_categories(site, to_vector):
    """A cost of two categorical choices together."""

    def objective():
        z = to_vector(site(param("theta", LOGITS)))
        return jnp.sum(z @ jnp.array([1.0, -0.5, 2.0])) ** 2 + jnp.exp(z[0, 0] - z[1, 2])

    return objective


def test_relax_of_categories():
    to_vector = lambda z: jax.nn.one_hot(z, 3)
    enumerated = compile(two_categories(categorical.enum, to_vector))
    grad = enumerated.grad(jax.random.key(0), enumerated.init(jax.random.key(0)))
    est = compile(two_categories(categorical.via(Relax(4, FAST)), to_vector))
    params, state = trained(est, 100)
    draw = lambda key: est.value_grad_and_state(key, params, state)[:2]
    check_draws(draw, grad)


@pytest.mark.parametrize("name", ["flip", "categorical"])
def test_relaxed_choices_have_the_right_law(name):
    """z has the marginal law, and so has z given the value; both agree with the value."""
    n, key = 200_000, jax.random.key(0)
    params = {"p": jnp.array(0.3)} if name == "flip" else {"probs": jnp.array([0.5, 0.1, 0.4])}
    size = 1 if name == "flip" else 3
    probs = np.array([0.7, 0.3]) if name == "flip" else np.asarray(params["probs"])
    value = jax.random.categorical(key, jnp.log(probs), shape=(n,))
    value = value == 1 if name == "flip" else value
    for z in relaxations[name](params, value, jax.random.key(1)):
        z = np.asarray(z, float)
        assert z.shape == (n, size)
        chosen = z[:, 0] > 0 if name == "flip" else np.argmax(z, -1)
        np.testing.assert_array_equal(chosen, value)
        location = np.log(3 / 7) if name == "flip" else np.log(probs)
        cdf = 1 / (1 + np.exp(-(z - location))) if name == "flip" else np.exp(-np.exp(location - z))
        for u in cdf.T:  # uniform, by its first two moments
            assert abs(np.mean(u) - 1 / 2) < 5.5 / np.sqrt(12 * n)
            assert abs(np.mean(u**2) - 1 / 3) < 5.5 * np.sqrt(4 / 45 / n)


def sd_over_time(objective, steps, at, **options):
    """sd of the gradient in the first and in the last steps of many optimisations of nothing."""
    est = compile(objective, **options)
    params = {"theta": jnp.float32(at)}

    def step(state, key):
        _, grad, state = est.value_grad_and_state(key, params, state)
        return state, grad["theta"]

    run = jax.vmap(lambda keys: lax.scan(step, est.init_state(), keys)[1])
    grads = np.asarray(jax.jit(run)(jax.random.split(jax.random.key(1), (50, steps))))
    return np.std(grads[:, :5]), np.std(grads[:, -50:])


def test_relax_learns():
    """The quadratic of Tucker et al. 2017: from one sample less variance than leave-one-out
    could have from two, since it is told apart by the relaxation."""

    def objective(site):
        return lambda: (number(site(param("theta", 0.4))) - 0.45) ** 2

    first, last = sd_over_time(objective(flip.via(Relax(4, FAST))), 500, 0.4, num_samples=1)
    assert last < 0.3 * first


def test_lax_learns():
    """A cost that jumps, so that the path alone would be biased."""

    def objective(site):
        return lambda: jnp.sign(site(param("theta", 0.2), 1.0)) + 2.0

    first, last = sd_over_time(objective(normal.via(Lax(4, SLOW))), 900, 0.2, num_samples=1)
    assert last < 0.5 * first


def test_costs_that_jump_are_no_kinks_for_lax():
    objective = lambda: jnp.sign(normal.via("lax")(param("theta", 0.2), 1.0))
    assert not compile(objective, strict=True).plan().kinks


def test_refusals():
    for dist, strategy in [(normal, "relax"), (flip, "lax"), (poisson, "relax")]:
        with pytest.raises(StrategyError, match=f"has no '{strategy}' strategy"):
            compile(lambda d=dist, s=strategy: 1.0 * d.via(s)(*[0.5] * len(_needs(d)))).plan()


def _needs(dist):
    return ("loc", "scale") if dist is normal else ("p",)


@pytest.mark.parametrize("control", ["relax", "nvil"])
def test_a_child_of_an_enumerated_parent(control):
    """It is drawn once per value of the parent, and each draw has a control variate."""

    def objective(child):
        def lane(t):
            a = number(flip.enum(jax.nn.sigmoid(t)))
            return (1.5 * a + number(child(0.2 + 0.5 * jax.nn.sigmoid(t) * a)) - 0.8) ** 2

        return lambda: jnp.sum(jax.vmap(lane)(param("theta", np.array([0.4, -0.3], np.float32))))

    site = flip.via(Relax(4, FAST) if control == "relax" else Score("nvil"))
    exactly = compile(objective(flip.enum))
    grad = exactly.grad(jax.random.key(0), exactly.init(jax.random.key(0)))
    est = compile(objective(site))
    assert next(s.name for s in est.plan().strategies.values()) == "enum"
    params, state = trained(est, 100)
    assert any(jnp.any(x != 0) for x in jax.tree.leaves(state))
    check_draws(lambda key: est.value_grad_and_state(key, params, state)[:2], grad)
