"""Loops cut apart compute what `lax.scan` does, and leave only what is recursive in the loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import fission

LENGTH = 7


def independent(c, x):
    return c, jnp.sin(x) + 1.0


def sums(c, x):
    y = jnp.exp(x)
    return {"sum": c["sum"] + y * 2.0, "twice": c["twice"] + y + x}, None


def running_sums_read(c, x):
    """The sum before and the sum after are both read."""
    after = c["sum"] + x**2
    return {"sum": after, "other": c["other"] + c["sum"]}, after * c["other"]


def handed_on(c, x):
    """Each step sees what the one before, and the one before that, computed."""
    return {"one": jnp.cos(x), "two": c["one"]}, c["one"] - 2.0 * c["two"]


def recursion(c, x):
    """A nonlinear recursion, what it needs of x, and costs that only look on."""
    z = jnp.tanh(c["z"] * 0.9 + jnp.exp(-(x**2)))
    cost = (z - x) ** 2
    return {"z": z, "cost": c["cost"] + cost, "count": c["count"] + 1}, z * c["count"]


def number_added_to_an_array(c, x):
    return {"sum": c["sum"] + 2.0 + jnp.exp(x) * jnp.arange(3.0)}, c["sum"]


def sum_that_feeds_back(c, x):
    return c + 0.1 * jnp.sin(c) * x, c


def mutual(c, x):
    return {"a": c["a"] + c["b"] * x, "b": c["b"] + 0.1 * c["a"]}, c["a"]


def swapped(c, x):
    return {"a": c["b"], "b": c["a"] + x}, c["a"]


def branch(c, x):
    """A branch stays in the loop, although no later step needs it."""
    y = lax.cond(x > 0, lambda v: v * 2.0, lambda v: -v, x)
    return c + y, y


def branch_of_sum(c, x):
    y = lax.cond(c["s"] > 0, jnp.sin, jnp.cos, x)
    return {"s": c["s"] + x, "t": c["t"] + y}, None


def constant_carry(c, x):
    return {"scale": c["scale"], "z": c["z"] * c["scale"] + x}, c["scale"] * x


def random_draws(c, x):
    noise = jax.random.normal(jax.random.fold_in(c["key"], c["i"]), ())
    return {"key": c["key"], "i": c["i"] + 1, "z": 0.5 * c["z"] + noise}, noise


def inner_loop(c, x):
    inner, _ = lax.scan(lambda a, b: (a * 0.5 + b, None), c, jnp.arange(3.0) * x)
    total, _ = lax.scan(lambda a, b: (a + b, None), x, jnp.ones(2))
    return inner, total


def invariant(c, x):
    """Neither carry nor x: the same in all steps."""
    table = jnp.cumsum(jnp.exp(jnp.arange(4.0)))
    return c, lax.cond(True, jnp.sum, jnp.max, table)


CASES = {
    f.__name__: (f, init)
    for f, init in [
        (independent, 1.0),
        (sums, {"sum": 0.5, "twice": 0.0}),
        (running_sums_read, {"sum": 1.0, "other": 2.0}),
        (handed_on, {"one": 3.0, "two": 4.0}),
        (recursion, {"z": 0.1, "cost": 0.0, "count": 0}),
        (number_added_to_an_array, {"sum": jnp.arange(3.0)}),
        (sum_that_feeds_back, 0.3),
        (mutual, {"a": 1.0, "b": 2.0}),
        (swapped, {"a": 1.0, "b": 2.0}),
        (branch, 0.0),
        (branch_of_sum, {"s": 0.0, "t": 0.0}),
        (constant_carry, {"scale": 0.7, "z": 0.0}),
        (random_draws, {"key": 0, "i": 0, "z": 0.0}),
        (inner_loop, 0.2),
        (invariant, 0.0),
    ]
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_same_as_scan(name, reverse):
    step, init = CASES[name]
    init = jax.tree.map(jnp.asarray, init)
    if name == "random_draws":
        init["key"] = jax.random.key(3)
    xs = jnp.linspace(-1.0, 1.5, LENGTH)

    def run(loop, xs, scale):
        carry, ys = loop(step, init, xs * scale, length=LENGTH, reverse=reverse)
        keyless = [x for x in jax.tree.leaves((carry, ys)) if jnp.issubdtype(x.dtype, jnp.number)]
        return sum(jnp.sum(jnp.sin(0.01 * x)) for x in keyless), (keyless, ys)

    (got, got_aux), got_grad = jax.jit(
        lambda x, s: jax.value_and_grad(lambda *a: run(fission.scan, *a), (0, 1), has_aux=True)(
            x, s
        )
    )(xs, 1.1)
    (want, want_aux), want_grad = jax.jit(
        lambda x, s: jax.value_and_grad(lambda *a: run(lax.scan, *a), (0, 1), has_aux=True)(x, s)
    )(xs, 1.1)
    assert jax.tree.structure(got_aux) == jax.tree.structure(want_aux)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    jax.tree.map(close, (got, got_aux, got_grad), (want, want_aux, want_grad))


def core(step, init) -> list[str] | None:
    """The operations that stay in the loop; `None` if no loop is left."""
    xs = jnp.linspace(-1.0, 1.5, LENGTH)
    run = lambda xs: fission.scan(step, jax.tree.map(jnp.asarray, init), xs, length=LENGTH)
    loops = [e for e in jax.make_jaxpr(run)(xs).eqns if e.primitive.name == "scan"]
    if not loops:
        return None
    (loop,) = loops
    return [e.primitive.name for e in loop.params["jaxpr"].eqns]


@pytest.mark.parametrize("step", [independent, sums, running_sums_read, handed_on, invariant])
def test_no_loop_is_left(step):
    assert core(*CASES[step.__name__]) is None


def test_only_the_recursion_is_left():
    left = core(*CASES["recursion"])
    assert left is not None and sorted(left) == ["add", "mul", "tanh"]


def test_a_branch_stays_in_the_loop():
    for step in (branch, branch_of_sum):
        left = core(*CASES[step.__name__])
        assert left is not None and "cond" in left


def test_a_checkpoint_stays_in_the_loop():
    def step(c, x):
        return c + jax.checkpoint(lambda v: jnp.sin(jnp.exp(v)))(x), None

    left = core(step, 0.0)
    assert left is not None and len(left) >= 1


def test_no_steps():
    carry, ys = fission.scan(lambda c, x: (c + x, x), jnp.ones(()), jnp.zeros(0), length=0)
    assert carry == 1.0 and ys.shape == (0,)


def test_structure_of_carries_without_steps_values():
    carry, ys = fission.scan(lambda c, x: (c, None), (), None, length=3)
    assert carry == () and ys is None


# ----------------------------------------------------------------- recursions of sums and products


def matrix_recursion(loop, matrix, start, xs, reverse):
    """A polynomial recursion that reads its own step's number and what is the same in all steps."""

    def step(c, x):
        z = matrix @ c["z"] * 0.3 + x * c["z"][::-1] - 0.1 * c["z"] * c["z"] * c["n"]
        return {"z": z, "n": c["n"] + 1}, (c["z"], jnp.sin(z), c["n"])

    init = {"z": start, "n": jnp.zeros((), int)}
    carry, (before, after, count) = loop(step, init, xs, length=len(xs), reverse=reverse)
    return jnp.sum(jnp.cos(carry["z"])) + jnp.sum(before**2 * count[:, None]) + jnp.sum(after)


@pytest.mark.parametrize("length", [LENGTH, LENGTH + 1])  # an even one takes two steps at a time
@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives_of_a_polynomial_recursion(reverse, length):
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = [(3, 3), (3,), (length, 3)]
    # Halved, since the square makes larger states diverge.
    at = [jax.random.normal(k, s) / 2 for k, s in zip(keys[:3], shapes, strict=True)]
    along = [jax.random.normal(k, s) for k, s in zip(keys[3:], shapes, strict=True)]

    def derivatives(loop):
        f = lambda *a: matrix_recursion(loop, *a, reverse)
        every = (0, 1, 2)
        return {
            "value": f(*at),
            "gradient": jax.grad(f, every)(*at),
            "of one alone": [jax.grad(f, i)(*at) for i in every],
            "forward": jax.jvp(f, at, along),
            "second": jax.hessian(f, every)(*at),
            "lanes": jax.vmap(jax.grad(f, 1), (None, 0, None))(
                at[0], jnp.stack([at[1]] * 2), at[2]
            ),
        }

    got, want = (
        jax.jit(lambda loop=loop: derivatives(loop))() for loop in (fission.scan, lax.scan)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), got, want)


def test_the_way_back_makes_no_matrices_in_the_loop():
    """What the inputs of the steps contribute, a matrix each, is worked out after the loop."""
    tables = jnp.full((LENGTH, 3, 3), 0.2)
    run = lambda loop, tables: loop(
        lambda c, table: (c @ table, None), jnp.ones(3), tables, length=LENGTH
    )[0].sum()

    def stacked_by_loops(loop) -> list[tuple[int, ...]]:
        jaxpr = jax.make_jaxpr(jax.grad(lambda t: run(loop, t)))(tables)
        loops = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
        assert len(loops) == 2
        return [getattr(v.aval, "shape", ()) for e in loops for v in e.outvars]

    assert tables.shape in stacked_by_loops(lax.scan)
    assert tables.shape not in stacked_by_loops(fission.scan)
