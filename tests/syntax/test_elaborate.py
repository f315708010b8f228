"""Text programs and their Python twins: the same values from the same key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import cond, density, flip, gen, normal, param, plate, positive, scan, seed, sim, vi
from ppl.errors import AddressError, PplError
from ppl.lang import factor, inline, trace_type
from ppl.syntax import TextError
from ppl.syntax.text import load, loads

KEY = jax.random.key(3)

TEXT = loads("""
const K = 2

def shifted(x: real[n], by: real) -> real[n] { return x + by }

model lanes(x: real[n], s: positive) {
  mu ~ normal(0, 1)
  plate i in n {
    a[i] ~ normal(mu + x[i], s)
    let twice[i] = 2 * a[i]
    plate j in K { b[i, j] ~ flip(sigmoid(a[i] * j)) }
  }
  return sum(shifted(twice, 1.0))
}

model steps(x: real[n]) {
  scan t in n with level = 0.0, up = true {
    z[t] ~ normal(if up then level else -level, 1)
    k[t] ~ flip(0.3)
    next level = z[t] + x[t]
    next up = k[t]
  }
  if up { u ~ normal(level, 1) let v = u } else { let v = level }
  factor v
  return v
}

guide q(n: size) {
  param m: real = 0.5
  param w: positive[n] = 2
  mu ~ normal(m, 1) via reparam
  plate i in n {
    a[i] ~ normal(mu, w[i]) via score
    plate j in K { b[i, j] ~ flip(0.4) via enum }
  }
}

objective bound(x: real[n]) {
  let (z, log_q) = sim(q(n))
  return density(lanes(x, 0.7), z) - log_q
}
""")


@gen
def lanes(x, s):
    mu = normal(0, 1) @ "mu"

    @gen
    def lane(x):
        a = normal(mu + x, s) @ "a"

        @gen
        def inner(j):
            flip(jax.nn.sigmoid(a * j)) @ "b"

        plate(inner)(jnp.arange(2)) @ inline("b")
        return 2 * a

    return jnp.sum(plate(lane)(x) @ inline("a", "b") + 1.0)


@gen
def steps(x):
    @gen
    def step(state, x):
        level, up = state
        z = normal(jnp.where(up, level, -level), 1) @ "z"
        k = flip(0.3) @ "k"
        return (z + x, k), None

    (level, up), _ = scan(step)((jnp.zeros(()), jnp.array(True)), x) @ inline("z", "k")

    @gen
    def then(level):
        return normal(level, 1) @ "u"

    @gen
    def otherwise(level):
        return level

    v = cond(then, otherwise)(up, level) @ inline("u")
    factor(v) @ "factor0"
    return v


@gen
def q():
    m, w = param("m", 0.5), param("w", jnp.full(3, 2.0), support=positive)
    mu = normal.reparam(m, 1) @ "mu"

    @gen
    def lane(w):
        normal.score(mu, w) @ "a"
        plate(gen(lambda j: flip.enum(0.4 + 0 * j) @ "b"))(jnp.arange(2)) @ inline("b")

    plate(lane)(w) @ inline("a", "b")


X = jnp.array([0.3, -0.2, 1.0])


@pytest.mark.parametrize(
    "text, python, args",
    [(TEXT.programs["lanes"], lanes, (X, 0.7)), (TEXT.programs["steps"], steps, (X,))],
    ids=["lanes", "steps"],
)
def test_twins_draw_and_weigh_the_same(text, python, args):
    ours = seed(text.simulate)(KEY, *args)
    theirs = seed(python.simulate)(KEY, *args)
    jax.tree.map(np.testing.assert_array_equal, ours.get_choices(), theirs.get_choices())
    np.testing.assert_allclose(ours.get_score(), theirs.get_score(), rtol=1e-6)
    np.testing.assert_allclose(ours.get_retval(), theirs.get_retval(), rtol=1e-6)
    choices = ours.get_choices()
    np.testing.assert_allclose(
        density(text)(choices, *args), density(python)(choices, *args), rtol=1e-6
    )
    assert str(trace_type(text, *args)) == str(trace_type(python, *args))


def test_twin_objectives_give_the_same_gradient():
    @vi.objective
    def bound(x):
        z, log_q = sim(q)()
        return density(lanes)(z, x, 0.7) - log_q

    text, python = vi.compile(TEXT.objectives["bound"]), vi.compile(bound)
    params = text.init(KEY, X)
    assert jax.tree.structure(params) == jax.tree.structure(python.init(KEY, X))
    ours = text.value_and_grad(KEY, params, X)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        ours,
        python.value_and_grad(KEY, params, X),
    )


def test_a_lane_sees_its_entry_and_lanes_stay_apart():
    """200 enumerated lanes: indexing into the array would mix them, and be refused."""
    text = loads("""
        guide q(n: size) {
          param p: unit_interval[n] = 0.3
          plate i in n { k[i] ~ flip(p[i]) via enum }
          plate i in n { c[i] ~ normal(if k[i] then 1 else 0, 1) via score }
        }
        objective o(x: real[n]) {
          let (z, log_q) = sim(q(n))
          return sum([real(z.k[i])^2 * x[i] for i in n])
        }""")
    x = jnp.arange(200.0)
    estimator = vi.compile(text.objectives["o"])
    value, grad = estimator.value_and_grad(KEY, estimator.init(KEY, x), x)
    np.testing.assert_allclose(value, 0.3 * x.sum(), rtol=1e-5)
    np.testing.assert_allclose(grad["p"], x, rtol=1e-5)


def test_generative_interface_of_inlined_choices():
    """`update` and `generate` see the choices where they show."""
    program, args = TEXT.programs["lanes"], (X, 0.7)
    tr = seed(program.simulate)(KEY, *args)
    new = {"a": jnp.zeros(3)}
    changed, weight, old = seed(lambda: program.update(tr, new, *args))(KEY)
    np.testing.assert_array_equal(old["a"], tr.get_choices()["a"])
    before, after = tr.get_choices(), changed.get_choices()
    np.testing.assert_array_equal(after["a"], 0)
    expected = density(program)(after, *args) - density(program)(before, *args)
    np.testing.assert_allclose(weight, expected, rtol=1e-4)
    _, weight = seed(lambda: program.generate(before, *args))(KEY)
    np.testing.assert_allclose(weight, density(program)(before, *args), rtol=1e-5)
    with pytest.raises(AddressError, match="no value was given for the choice 'b'"):
        density(program)({"mu": 0.0, "a": jnp.zeros(3)}, *args)


def test_two_blocks_without_choices_stand_beside_each_other():
    """Found by a random program: both ran at the same place."""
    text = loads("""
        model m() {
          plate i in 2 { let a[i] = 1.0 * i }
          plate i in 3 { let b[i] = 2.0 * i }
          return sum(a) + sum(b)
        }""")
    assert float(seed(text.programs["m"].simulate)(KEY).get_retval()) == 7.0


def test_wrong_arguments_are_told():
    with pytest.raises(PplError, match="lanes takes x, s"):
        seed(TEXT.programs["lanes"].simulate)(KEY, X)
    with pytest.raises(PplError, match=r"lanes: x has rank 1"):
        seed(TEXT.programs["lanes"].simulate)(KEY, 1.0, 0.7)
    with pytest.raises(PplError, match="the size 'n' must be known"):
        jax.jit(lambda n: seed(TEXT.programs["q"].simulate)(KEY, n))(3)


def test_data_are_read_and_checked(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "a.json").write_text('{"k": [1, 2, 3]}')
    (tmp_path / "a.py").write_text("def f():\n    return [[1.5]]\n")
    file = tmp_path / "a.ppl"
    declared = ['x: real[n] from "a.npz"', 'k: int[n] from "a.json"', 'z: real[1, 1] from "a.py:f"']
    file.write_text("\n".join(f"data {d}" for d in declared))
    data = load(file).data
    assert data["k"].tolist() == [1, 2, 3] and data["k"].dtype == np.int32
    assert data["z"].tolist() == [[1.5]]
    file.write_text('data x: real[n] from "a.npz"\ndata y: real[n] from "a.csv"')
    with pytest.raises(PplError, match="data y: n is 3 elsewhere, here 2"):
        _ = load(file).data
    file.write_text('data x: real[n] from "b.npz"')
    with pytest.raises(PplError, match="there is no file"):
        _ = load(file).data


def test_files_that_import_each_other_are_refused(tmp_path):
    (tmp_path / "a.ppl").write_text('import "b.ppl"')
    (tmp_path / "b.ppl").write_text('import "a.ppl"')
    with pytest.raises(TextError, match="has errors"):
        load(tmp_path / "a.ppl")
    (tmp_path / "c.ppl").write_bytes(b"const K = 1\n\xff")
    with pytest.raises(TextError, match="not UTF-8"):
        load(tmp_path / "c.ppl")
