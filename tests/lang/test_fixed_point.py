"""Fixed points: the solution, its derivatives, and what is said if there is none."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from ppl import Anderson, Plain, fixed_point, flip, gen, normal, param, plate, sim, vi
from ppl.errors import NonFiniteError, ShapeError, UnsupportedError
from ppl.testing import exact_expectation

SWAP = jnp.array([[0.0, 1.0], [0.3, 0.0]])
THETA = jnp.array([0.3, 0.1])
BOTH = pytest.mark.parametrize("acceleration", [Plain(), Anderson()], ids=repr)


def solve(theta, **options):
    return fixed_point(lambda z: jnp.tanh(0.5 * SWAP @ z + theta), jnp.zeros(2), **options)


def reference(theta):
    """The same by another library."""
    solver = optimistix.Newton(rtol=1e-7, atol=1e-7)
    step = lambda z, theta: jnp.tanh(0.5 * SWAP @ z + theta)
    return optimistix.fixed_point(step, solver, jnp.zeros(2), theta, throw=False).value


@BOTH
def test_it_agrees_with_another_library_in_value_and_derivatives(acceleration):
    own = lambda theta: solve(theta, tol=1e-6, acceleration=acceleration).value
    near = dict(rtol=2e-5, atol=2e-6)
    for transform in (lambda f: f, jax.jacfwd, jax.jacrev, lambda f: jax.jacfwd(jax.jacrev(f))):
        ours, theirs = (jax.jit(transform(f))(THETA) for f in (own, reference))
        np.testing.assert_allclose(ours, theirs, **near)


def test_a_tree_in_double_precision():
    with jax.enable_x64(True):

        def root(theta):
            step = lambda z: {"x": 0.5 * jnp.cos(z["y"][0]) + theta, "y": (0.3 * z["x"][0],)}
            start = {"x": jnp.zeros(3), "y": (0.0,)}
            return fixed_point(step, start)

        theta = jnp.array([0.1, 0.2, 0.3])
        found = root(theta)
        x, y = found.value["x"], found.value["y"][0]
        np.testing.assert_allclose(x, 0.5 * jnp.cos(y) + theta, rtol=1e-13)
        assert found.converged and found.residual < 1e-13 and 3 < found.steps < 40
        f = lambda t: jnp.sum(root(t).value["x"] ** 2)
        step = 1e-5 * np.eye(3)
        slopes = [(f(theta + e) - f(theta - e)) / 2e-5 for e in step]
        np.testing.assert_allclose(jax.grad(f)(theta), slopes, rtol=1e-9)
        np.testing.assert_allclose(jax.jvp(f, (theta,), (jnp.ones(3),))[1], sum(slopes), rtol=1e-9)


def test_the_start_and_the_number_of_steps_do_not_matter():
    other = fixed_point(lambda z: jnp.tanh(0.5 * SWAP @ z + THETA), jnp.array([5.0, -3.0]))
    np.testing.assert_allclose(other.value, solve(THETA).value, atol=3e-5)
    grad = jax.grad(lambda s: fixed_point(lambda z: 0.5 * z + 1.0, s).value)(3.0)
    assert grad == 0.0


def test_lanes_stop_by_themselves():
    thetas = jnp.stack([THETA, 0 * THETA, 5 * THETA])
    together = jax.jit(jax.vmap(solve))(thetas)
    apart = [solve(t) for t in thetas]
    np.testing.assert_allclose(together.value, [f.value for f in apart], rtol=1e-6)
    np.testing.assert_array_equal(together.steps, [f.steps for f in apart])
    assert len(set(together.steps.tolist())) == 3
    grads = jax.vmap(jax.grad(lambda t: jnp.sum(solve(t).value)))(thetas)
    np.testing.assert_allclose(
        grads[2], jax.grad(lambda t: jnp.sum(solve(t).value))(thetas[2]), rtol=1e-4
    )


def test_anderson_takes_fewer_steps_where_convergence_is_slow():
    slow = jnp.diag(jnp.linspace(0.5, 0.98, 5))  # the plain rate is 0.98
    run = lambda a: fixed_point(lambda z: slow @ z + 1.0, jnp.zeros(5), acceleration=a)
    plain, fast = run(Plain()), run(Anderson())
    assert fast.converged and fast.steps < plain.steps / 4
    np.testing.assert_allclose(fast.value, 1 / (1 - jnp.diagonal(slow)), rtol=1e-3)


def test_without_convergence_the_result_is_nan_or_the_last_iterate():
    assert np.isnan(solve(THETA, max_steps=3).value).all()
    assert np.isnan(jax.grad(lambda t: jnp.sum(solve(t, max_steps=3).value))(THETA)).all()
    last = solve(THETA, max_steps=3, strict=False)
    assert not last.converged and last.steps == 3 and np.isfinite(last.value).all()
    np.testing.assert_allclose(last.value, solve(THETA).value, atol=0.1)
    cycle = fixed_point(lambda z: -z, 1.0, strict=False)
    assert not cycle.converged and cycle.steps == 1000 and cycle.residual == 2.0
    wild = fixed_point(lambda z: z**2, 3.0)
    assert not wild.converged and np.isnan(wild.value)


def test_errors_for_bad_arguments():
    with pytest.raises(ShapeError, match="does not return what it is given"):
        fixed_point(lambda z: z[0], jnp.zeros(2))
    for bad in ({"tol": 0.0}, {"tol": -1.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match="tol must be above 0 and max_steps at least 1"):
            fixed_point(lambda z: z, 0.0, **bad)
    for bad in ({"memory": 1}, {"ridge": 0.0}):
        with pytest.raises(ValueError, match="Anderson: memory must be at least 2"):
            Anderson(**bad)


@pytest.mark.parametrize("what", ["a parameter", "a random choice"])
def test_choices_and_parameters_inside_are_refused(what):
    inner = {
        "a parameter": lambda: param("p", 0.3),
        "a random choice": lambda: normal.sample(0.0, 1.0),
    }[what]

    def objective():
        return fixed_point(lambda z: 0.5 * jnp.tanh(z + inner()), 0.0).value + param("q", 0.0)

    with pytest.raises(UnsupportedError, match=f"{what} stands inside"):
        vi.compile(objective).init(jax.random.key(0))


# ------------------------------------------------------------------------ in compiled objectives


def test_enumerated_choices_from_its_marginals():
    """Exact: the choices are summed out, the parameters go through the equilibrium."""

    @gen
    def guide(active):
        p = param("p", THETA)
        found = fixed_point(lambda z: jnp.where(active, jnp.tanh(0.5 * SWAP @ z + p), 0.0), THETA)
        flip.enum(jax.nn.sigmoid(found.value)) @ "x"

    def objective(active):
        x, log_q = sim(guide)(active)
        return jnp.sum(x["x"] * jnp.array([1.0, 2.0])) - log_q

    def exact(theta):
        q = jax.nn.sigmoid(reference(theta))
        entropy = -jnp.sum(q * jnp.log(q) + (1 - q) * jnp.log1p(-q))
        return jnp.sum(q * jnp.array([1.0, 2.0])) + entropy

    active = jnp.ones(2, bool)
    estimator = vi.compile(objective)
    params = estimator.init(jax.random.key(0), active)
    value, grad = estimator.value_and_grad(jax.random.key(0), params, active)
    expected, slope = jax.value_and_grad(exact)(THETA)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad["p"], slope, rtol=1e-4)
    assert "enum" in str(estimator.explain(active))


def test_reparameterised_draws_go_through_it_without_a_warning():
    def objective():
        m = param("m", 0.2)
        z = normal.reparam.sample(m, 1.0)
        return fixed_point(lambda u: 0.5 * jnp.tanh(u) + z, 0.0).value - m**2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = vi.compile(objective)
        grad = estimator.grad(jax.random.key(0), estimator.init(jax.random.key(0)))["m"]
    assert np.isfinite(grad) and grad > 0.5  # du/dz = 1 / (1 - 0.5 sech^2 u) is in (1, 2)


@gen
def lane(a, scale):
    z = flip.enum(jax.nn.sigmoid(a)) @ "z"
    u = fixed_point(lambda u: 0.5 * jnp.tanh(u + z * scale), 0.0).value
    flip.enum(jax.nn.sigmoid(u)) @ "x"


def test_lanes_stay_apart_in_an_objective():
    """Choices before it are enumerated lane by lane, not all together; exactly."""

    def objective():
        m = param("m", jnp.array([0.2, 0.4]))
        choices, log_q = sim(plate(lane, in_axes=(0, None)))(m, 1.5)
        return jnp.sum(jnp.where(choices["z"], choices["x"] * m, 0.0)) - log_q

    estimator = vi.compile(objective)
    assert "all lanes together" not in str(estimator.explain())
    params = estimator.init(jax.random.key(0))
    value, gradient = estimator.value_and_grad(jax.random.key(0), params)
    exact = exact_expectation(objective, params=params)
    np.testing.assert_allclose(value, exact[0], rtol=1e-6)
    np.testing.assert_allclose(gradient["m"], exact[1]["m"], rtol=1e-5)


def test_a_fit_says_that_it_has_not_converged():
    def objective():
        return -((solve(param("p", THETA), max_steps=3, tol=1e-6).value - 0.5) ** 2).sum()

    message = r"(?s)step 0.*a fixed point has not converged to tol=1e-06 in 3 steps \(at .*py"
    with pytest.raises(NonFiniteError, match=message):
        vi.fit(objective, steps=2, progress=False)


def test_a_fit_through_it():
    def objective():
        return -jnp.sum((solve(param("p", THETA)).value - jnp.array([0.2, 0.5])) ** 2)

    fit = vi.fit(objective, steps=300, progress=False)
    np.testing.assert_allclose(solve(fit.params["p"]).value, [0.2, 0.5], atol=1e-3)
