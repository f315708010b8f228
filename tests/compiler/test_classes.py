"""Tables by classes of values: what they cost, and that they change neither value nor gradient."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import categorical, flip, gen, param, scan, vi
from ppl._compat import sub_jaxprs
from ppl.compiler import classes
from ppl.compiler.influence import Classes, Site
from ppl.compiler.tables import Val
from ppl.testing import assert_unbiased

LOOKS, PIXELS = 3, 5
IMAGES = np.linspace(-1.0, 2.0, LOOKS * PIXELS).reshape(LOOKS, PIXELS).astype(np.float32)
DATA = np.cos(np.arange(PIXELS)).astype(np.float32)
CHANCE = 0.6


def seen(present, images):
    """How well the images that are there explain the data, with any `present`."""
    canvas = jnp.zeros(PIXELS)
    for here, image in zip(present, images, strict=True):
        canvas += jnp.where(here, image, 0.0)
    return jnp.sum(jnp.cos(canvas - DATA))


def alone(present, bits, images):
    return seen(present, images)


def beside_the_flips(present, bits, images):
    """Some costs of what is there, some of the flips themselves, some of both."""
    odd = jnp.where(bits[0] ^ bits[2], 2.0, 0.5)
    return seen(present, images) * odd + jnp.where(bits[1], 1.0, 3.0) + odd * images[0, 0]


def flips(cost, site):
    """A program of flips that count only until the first that is false."""

    def objective():
        images, present, bits, there = param("images", IMAGES), [], [], True
        for i in range(LOOKS):
            chance = jnp.where(there, param("chance", CHANCE), 0.3)
            bits.append(site(chance, i) == 1)
            there &= bits[-1]
            present.append(there)
        return cost(present, bits, images)

    return objective


def exact(cost):
    """The same by all outcomes."""

    def total(params):
        mean = 0.0
        for bits in itertools.product([False, True], repeat=LOOKS):
            present, weight, there = [], 1.0, True
            for bit in bits:
                p = params["chance"] if there else 0.3
                weight *= p if bit else 1 - p
                there &= bit
                present.append(there)
            mean += weight * cost(present, jnp.array(bits), params["images"])
        return mean

    return total


def sizes(jaxpr, name):
    """Of the results of a primitive."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == name:
            yield eqn.outvars[0].aval.size
        for inner in sub_jaxprs(eqn.params):
            yield from sizes(inner, name)


def agree(est, total):
    """Value and gradient, both exact."""
    params = est.init(jax.random.key(0))
    run = lambda p: est.value_and_grad(jax.random.key(0), p)
    value, grad = jax.jit(run)(params)
    expected, expected_grad = jax.value_and_grad(total)(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, wanted in expected_grad.items():
        np.testing.assert_allclose(grad[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
    return jax.make_jaxpr(run)(params).jaxpr


@pytest.mark.parametrize("cost", [alone, beside_the_flips])
def test_what_comes_to_the_same_is_computed_once(cost):
    """Three flips have eight values, but what is there has four: no cosine is of more."""
    est = vi.compile(flips(cost, lambda p, i: flip.enum(p)))
    jaxpr = agree(est, exact(cost))
    assert max(sizes(jaxpr, "cos")) == 4 * PIXELS


def test_lanes_have_classes_each():
    """Ten lanes, each with flips of its own."""
    lanes, shift = 10, np.linspace(0.0, 1.0, 10).astype(np.float32)

    def objective():
        images, there, canvas = param("images", IMAGES), jnp.ones(lanes, bool), 0.0
        for i in range(LOOKS):
            chance = jnp.where(there, param("chance", CHANCE), 0.3)
            there &= flip.enum(chance) == 1
            canvas += jnp.where(there[:, None], images[i] + shift[:, None], 0.0)
        return jnp.sum(jnp.cos(canvas - DATA))

    def total(params):
        return sum(exact(alone)({**params, "images": params["images"] + s}) for s in shift)

    jaxpr = agree(vi.compile(objective), total)
    assert max(sizes(jaxpr, "cos")) == 4 * lanes * PIXELS


def test_one_choice_of_which_part_matters():
    """A cost of "is it above 2?", one of "is it odd?", and one of both, of a choice of six."""
    p = np.arange(1.0, 7.0, dtype=np.float32) / 21

    def cost(z, a):
        high, odd = jnp.where(z > 2, jnp.cos(a), 1.0), jnp.where(z % 2 == 1, a, 2.0)
        return high + odd**2 + jnp.exp(high) * odd + z * high

    def objective():
        z = categorical.enum(jnp.log(param("p", p)))
        return cost(z, param("a", 0.7))

    def total(params):
        q = params["p"] / jnp.sum(params["p"])
        return sum(q[z] * cost(z, params["a"]) for z in range(6))

    agree(vi.compile(objective), total)


def test_the_state_of_a_loop():
    """A hidden Markov chain of which only "is it 2?" is seen, and last state and all are used."""
    steps, start = 4, np.array([0.5, 0.3, 0.2], np.float32)
    rows = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]], np.float32)

    @gen
    def chain(a):
        def step(z, _):
            z = categorical(jnp.log(jnp.asarray(rows)[z])) @ "z"
            two = z == 2
            return z, jnp.where(two, a, 0.5) + jnp.where(two & (z > 0), jnp.cos(a), 0.0)

        first = categorical(jnp.log(start)) @ "first"
        last, ys = scan(gen(step), length=steps)(first, None) @ "steps"
        return jnp.sum(ys**2) + jnp.where(last > 0, a, 1.0)

    objective = vi.objective(lambda: chain(param("a", 0.4)))

    def total(params):
        a, law, mean = params["a"], jnp.asarray(start), 0.0
        two = (a + jnp.cos(a)) ** 2
        for _ in range(steps):
            law = law @ rows
            mean += law[2] * two + (1 - law[2]) * 0.25
        return mean + law[0] + (1 - law[0]) * a

    agree(vi.compile(objective, strategies={"*": "enum"}), total)


def test_with_a_choice_that_is_drawn():
    """Where a cost is charged to draws, it has an axis for each choice: still unbiased (a bias of
    3 % would show, false alarms below 1e-6)."""
    site = lambda p, i: (flip.score if i == 1 else flip.enum)(p)
    assert_unbiased(flips(beside_the_flips, site), exact=exact(beside_the_flips))


SITES: Any = [Site(object()) for _ in range(3)]  # type: ignore[arg-type]


def test_tables_by_classes_are_the_tables():
    """Condensed, brought together and expanded, three tables are what they were."""
    a, b, c = SITES
    full = np.indices((2, 3, 2))
    first = np.minimum(full[0], full[1])[..., 0].astype(np.float32)  # [a, b]: two values of six
    second = (full[1] + full[2] > 1)[0].astype(np.float32)  # [b, c]
    third = jnp.arange(2.0)[:, None] * jnp.ones(4)  # [a], with lanes
    vals = [Val(first, (a, b)), Val(second, (b, c)), Val(third, (a,))]
    small = [classes.condensed(v) for v in vals]
    assert [v.array.shape[0] for v in small[:2]] == [2, 2] and small[2] is vals[2]
    assert isinstance(small[0].axes[0], Classes) and small[0].axes[0].of == (a, b)
    met = classes.together(small)
    assert len({v.axes for v in met}) == 1
    assert len(met[0].array) == len({*zip(first.repeat(2), np.tile(second, (2, 1, 1)).ravel(),
                                          full[0].ravel(), strict=True)})  # fmt: skip
    for val, table in zip(map(classes.expanded, met), (first[..., None], second[None], third),
                          strict=True):  # fmt: skip
        assert val.axes == (a, b, c)
        wanted = table[:, None, None] if table.ndim == 2 else table
        np.testing.assert_array_equal(val.array, np.broadcast_to(wanted, val.array.shape))


def test_probabilities_of_classes():
    """They are sums of those of their values, axis by axis and lane by lane."""
    a, b, c = SITES
    joint = jax.random.uniform(jax.random.key(0), (2, 3, 2, 5))
    axis = Classes((a, b), (2, 3), (0, 0, 1, 2, 1, 1))
    found = classes.collapsed(joint, (axis, c))
    flat = joint.reshape(6, 2, 5)
    wanted = [flat[0] + flat[1], flat[2] + flat[4] + flat[5], flat[3]]
    np.testing.assert_allclose(found, jnp.stack(wanted), rtol=1e-6)
    assert classes.collapsed(joint, SITES) is joint
