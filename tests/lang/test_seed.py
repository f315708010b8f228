"""`seed`: draws depend on key, address and count only, through all of JAX's control flow."""

from __future__ import annotations

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.errors import UnsupportedError
from ppl.lang.density import sim
from ppl.lang.distributions.flip import flip
from ppl.lang.distributions.normal import normal
from ppl.lang.loop import scan
from ppl.lang.program import gen
from ppl.lang.scope import scope
from ppl.lang.seed import seed

from .programs import everything, step, xs


def draw(name="x"):
    with scope(name):
        return normal.sample(0.0, 1.0)


def all_different(draws):
    flat = np.ravel(np.asarray(draws))
    assert len(np.unique(flat)) == flat.size, flat


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_draws_what_the_unrolled_loop_draws(key, reverse):
    def looped():
        body = lambda c, x: (c + draw() + x, draw("y") + draw("x"))
        return lax.scan(body, 0.0, xs, reverse=reverse)

    def unrolled():
        c, ys = 0.0, []
        for x in xs[::-1] if reverse else xs:
            c = c + draw() + x
            ys.append(draw("y") + draw("x"))
        return c, jnp.array(ys[::-1] if reverse else ys)

    for a, b in zip(seed(looped)(key), seed(unrolled)(key), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_scanned_program_draws_what_its_steps_draw(key):
    def unrolled(init):
        c, zs = init, []
        for x in xs:
            with scope("step"):
                tr = step.simulate(c, x)
            c = tr.get_retval()[0]
            zs.append(tr.get_choices()["z"])
        return jnp.stack(zs)

    choices, _ = seed(sim(scan(step)))(key, 0.3, xs)
    np.testing.assert_allclose(choices["z"], seed(unrolled)(key, 0.3), rtol=1e-5)


def test_draws_after_a_loop_do_not_repeat_those_inside(key):
    def run():
        before = draw()
        _, inside = lax.scan(lambda c, _: (c, draw()), 0.0, None, length=3)
        return jnp.array([before, *inside, draw()])

    all_different(seed(run)(key))


def test_adding_a_choice_does_not_change_the_others(key):
    @gen
    def small():
        a = normal(0.0, 1.0) @ "a"
        return normal(a, 1.0) @ "b"

    @gen
    def large():
        normal(0.0, 1.0) @ "new"
        a = normal(0.0, 1.0) @ "a"
        scan(step)(0.0, xs) @ "more"
        return normal(a, 1.0) @ "b"

    few, many = (seed(p.simulate)(key).get_choices() for p in (small, large))
    assert few["a"] == many["a"] and few["b"] == many["b"]


def test_the_key_decides_and_jit_changes_nothing(key):
    run = seed(lambda: sim(everything)(xs))
    eager, again, compiled = run(key), run(key), jax.jit(run)(key)
    jax.tree.map(np.testing.assert_array_equal, eager, again)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), eager, compiled)
    other, _ = run(jax.random.key(1))
    assert np.all(other["steps"]["z"] != eager[0]["steps"]["z"])


# ------------------------------------------------------------------------------ control flow


def in_jit():
    return jnp.array([jax.jit(draw)(), jax.jit(draw)(), draw()])


def in_cond():
    flag = flip.sample(0.5)
    one = lax.cond(flag, lambda: draw() + draw(), lambda: 10.0 + draw())
    return jnp.array([one, lax.switch(2, [lambda: 0.0, draw, draw]), draw()])


def in_checkpoint():
    return jnp.array([jax.checkpoint(lambda x: draw() + x)(1.0), draw()])


def in_custom_jvp():
    @jax.custom_jvp
    def f(x):
        return x + draw()

    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return jnp.array([f(1.0), f(1.0), draw()])


def in_custom_vjp():
    @jax.custom_vjp
    def f(x):
        return x + draw()

    f.defvjp(lambda x: (f(x), None), lambda _, g: (g,))
    return jnp.array([f(1.0), draw()])


def in_vmap():
    return jax.vmap(lambda x: normal.sample(x, 1.0))(jnp.zeros(3))


def in_vmap_without_mapped_parameters():
    return jax.vmap(lambda _: draw())(jnp.zeros(3))


def in_scan_in_vmap():
    return jax.vmap(lambda x: lax.scan(lambda c, _: (c, draw()), x, None, length=2)[1])(
        jnp.zeros(3)
    )


def in_jit_in_vmap():
    return jax.vmap(lambda _: jax.jit(draw)())(jnp.zeros(3))


def in_cond_in_scan_in_vmap():
    def body(c, x):
        return c, lax.cond(x > 0, draw, lambda: draw("y"))

    return jax.vmap(lambda x: lax.scan(body, x, jnp.arange(3))[1])(jnp.zeros(2))


def in_vmap_in_scan():
    return lax.scan(lambda c, _: (c, in_vmap()), 0.0, None, length=2)[1]


FLOWS = [
    in_jit, in_cond, in_checkpoint, in_custom_jvp, in_custom_vjp, in_vmap,
    in_vmap_without_mapped_parameters, in_scan_in_vmap, in_jit_in_vmap, in_cond_in_scan_in_vmap,
    in_vmap_in_scan,
]  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: f.__name__)
def test_every_draw_differs_and_follows_the_key(key, flow):
    run = seed(flow)
    draws = run(key)
    all_different(draws)
    all_different([draws, run(jax.random.key(1))])
    np.testing.assert_allclose(jax.jit(run)(key), draws, rtol=1e-5)


def test_seeded_functions_can_be_mapped_over_keys(key):
    keys = jax.random.split(key, 4)
    draws = jax.vmap(seed(in_scan_in_vmap))(keys)
    all_different(draws)
    np.testing.assert_allclose(draws[2], seed(in_scan_in_vmap)(keys[2]), rtol=1e-6)


def test_the_branch_taken_draws(key):
    def run(flag):
        return lax.cond(flag, lambda: draw(), lambda: 100.0 + draw())

    low, high = (seed(run)(key, flag) for flag in (True, False))
    np.testing.assert_allclose(high - low, 100.0, rtol=1e-5)


def test_gradients_pass_through_the_draws(key):
    def run(scale):
        return lax.scan(lambda c, _: (c + normal.sample(0.0, scale), None), 0.0, None, length=3)[0]

    value, grad = jax.value_and_grad(lambda s: seed(run)(key, s))(2.0)
    np.testing.assert_allclose(grad, value / 2, rtol=1e-5)


def test_a_draw_in_a_while_loop_is_refused():
    @gen
    def model():
        return lax.while_loop(lambda x: x < 1, lambda x: x + draw("inner"), 0.0)

    with pytest.raises(UnsupportedError, match="inside 'while'") as e:
        seed(sim(model))(jax.random.key(0))
    assert e.value.address == "model/inner"
    assert "lax.scan" in e.value.fix and "test_seed.py" in e.value.where


def test_a_fori_loop_with_a_fixed_number_of_steps(key):
    draws = seed(lambda: lax.fori_loop(0, 5, lambda i, v: v.at[i].set(draw()), jnp.zeros(5)))(key)
    all_different(draws)


def test_many_choices_in_a_row(key):
    @gen
    def model():
        x = 0.0
        for i in range(500):
            x = normal(x, 1.0) @ f"x{i}"
        return x

    start = time.perf_counter()
    choices, log_q = jax.eval_shape(seed(sim(model)), key)
    assert len(choices) == 500 and log_q.shape == ()
    assert time.perf_counter() - start < 30


def test_what_is_no_array_passes_by_the_side(key):
    net = eqx.nn.MLP(1, 1, 2, 1, key=key)

    def run(net, name):
        return {name: net(jnp.array([draw()])), "net": net}

    out = seed(run)(key, net, "y")
    assert out["y"].shape == (1,)
    assert jax.tree.structure(out["net"]) == jax.tree.structure(net)
