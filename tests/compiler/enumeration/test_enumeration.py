"""`by=enumeration()` against the sum over all outcomes, and against the textbook recursions."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from ppl import (
    categorical,
    cond,
    condition,
    density,
    enumeration,
    flip,
    gen,
    importance,
    marginal,
    normal,
    normalize,
    param,
    plate,
    scan,
    seed,
    sim,
    vi,
)
from ppl.errors import UnsupportedError
from tests.compiler.exact import QUICK, count_equations

rng = np.random.default_rng(0)
STATES = 4
LOGITS = jnp.asarray(rng.normal(size=(STATES, STATES)), jnp.float32)
MEANS = jnp.linspace(-2.0, 2.0, STATES)
YS = jnp.asarray(2 * rng.normal(size=200), jnp.float32)


def log_normal(y, loc, scale=1.0):
    return -0.5 * ((y - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * np.log(2 * np.pi)


def check(program, observed, dense, params, **tolerance):
    """Value and gradient of the program's exact marginal against those of `dense(*params)`."""
    exactly = marginal(program, keep=list(_paths(observed)), by=enumeration())
    est = vi.compile(lambda: density(exactly)(observed))
    run = jax.jit(lambda p: est.value_and_grad(jax.random.key(0), p))
    value, grad = run(est.init(jax.random.key(0)))
    expected, expected_grad = jax.jit(jax.value_and_grad(lambda p: dense(*p.values())))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, g in expected_grad.items():
        np.testing.assert_allclose(grad[name], g, **{"rtol": 1e-3, "atol": 5e-4, **tolerance})


def _paths(choices, path=""):
    for name, value in choices.items():
        at = f"{path}{name}"
        yield from _paths(value, f"{at}/") if isinstance(value, dict) else [at]


# ------------------------------------------------------------------------------- mixtures

MIXTURE = {"w": jnp.array([0.1, -0.3, 0.5]), "m": jnp.array([-2.0, 0.0, 2.0])}


def mixture_density(m, w):
    return jnp.sum(logsumexp(jax.nn.log_softmax(w) + log_normal(YS[:, None], m), 1))


def test_mixture_in_a_plate():
    @gen
    def point(w, m):
        return normal(m[categorical(w) @ "z"], 1.0) @ "y"

    @gen
    def model():
        w, m = (param(name, value) for name, value in MIXTURE.items())
        plate(point, size=200, in_axes=None)(w, m) @ "points"

    check(model, {"points": {"y": YS}}, mixture_density, MIXTURE)


def test_mixture_as_vectors():
    @gen
    def model():
        w, m = (param(name, value) for name, value in MIXTURE.items())
        z = categorical.repeat(200)(w) @ "z"
        normal(m[z], 1.0) @ "y"

    check(model, {"y": YS}, mixture_density, MIXTURE)


def test_plates_in_plates_and_a_shared_choice():
    """A global choice, one per group, one per point."""
    ys = YS[:6].reshape(2, 3)

    @gen
    def point(a, b, shift):
        c = flip(jnp.where(b, 0.7, 0.2)) @ "c"
        normal(a + jnp.where(c, shift, 0.0), 1.0) @ "y"

    @gen
    def group(a, shift):
        b = flip(0.3) @ "b"
        plate(point, size=3, in_axes=None)(a, b, shift) @ "points"

    @gen
    def model():
        shift = param("shift", 1.5)
        a = categorical(MEANS[:3]) @ "a"
        plate(group, size=2, in_axes=None)(MEANS[a], shift) @ "groups"

    def dense(shift):
        log_a = jax.nn.log_softmax(MEANS[:3])
        total = []
        for a in range(3):
            per_group = []
            for b, p_b in ((0, 0.7), (1, 0.3)):
                p_c = (0.2, 0.7)[b]
                like = [
                    jnp.log(p) + log_normal(ys, MEANS[a] + c * shift)
                    for c, p in ((0, 1 - p_c), (1, p_c))
                ]
                per_group.append(jnp.log(p_b) + jnp.sum(logsumexp(jnp.stack(like), 0), 1))
            total.append(log_a[a] + jnp.sum(logsumexp(jnp.stack(per_group), 0)))
        return logsumexp(jnp.stack(total))

    check(model, {"groups": {"points": {"y": ys}}}, dense, {"shift": jnp.array(1.5)})


def test_subsampled_plate():
    @gen
    def point(w, m):
        normal(m[categorical(w) @ "z"], 1.0) @ "y"

    @gen
    def model():
        w, m = (param(name, value) for name, value in MIXTURE.items())
        plate(point, size=5, in_axes=None, total=10)(w, m) @ "points"

    def dense(m, w):
        terms = jax.nn.log_softmax(w) + 2 * log_normal(YS[:5, None], m)
        return jnp.sum(logsumexp(terms, 1))

    check(model, {"points": {"y": YS[:5]}}, dense, MIXTURE)


# --------------------------------------------------------------------------------- chains

HMM = {"A": LOGITS, "mu": MEANS}


def forward(ys):
    def dense(logits, means):
        log_a = jax.nn.log_softmax(logits, -1)
        like = log_normal(ys[:, None], means)

        def step(alpha, like):
            return logsumexp(alpha[:, None] + log_a, 0) + like, None

        return logsumexp(jax.lax.scan(step, log_a[0] + like[0], like[1:])[0])

    return dense


def hmm_step(logits, means, emit):
    @gen
    def step(z, _):
        z = categorical(logits[z]) @ "z"
        if emit:
            normal(means[z], 1.0) @ "y"
        return z, z

    return step


def test_hidden_markov_model_of_200_steps():
    @gen
    def model():
        logits, means = (param(name, value) for name, value in HMM.items())
        scan(hmm_step(logits, means, True), length=200)(0) @ "steps"

    check(model, {"steps": {"y": YS}}, forward(YS), HMM)


def test_observed_after_the_loop():
    @gen
    def model():
        logits, means = (param(name, value) for name, value in HMM.items())
        _, zs = scan(hmm_step(logits, means, False), length=200)(0) @ "steps"
        normal(means[zs], 1.0) @ "y"

    check(model, {"y": YS}, forward(YS), HMM)


@pytest.mark.parametrize("start", [2, -1])
def test_a_known_start(start):
    """One of the choice's values, or not (which picks the last row, as indices do)."""

    @gen
    def model():
        step = hmm_step(param("A", LOGITS), param("mu", MEANS), True)
        scan(step, length=6)(start) @ "steps"

    def dense(logits, means):
        first = jax.nn.log_softmax(logits, -1)[start] + log_normal(YS[0], means)
        log_a = jax.nn.log_softmax(logits, -1)
        for y in YS[1:6]:
            first = logsumexp(first[:, None] + log_a, 0) + log_normal(y, means)
        return logsumexp(first)

    check(model, {"steps": {"y": YS[:6]}}, dense, HMM)


def test_chains_from_known_starts_in_a_loop():
    @gen
    def chain(carry, _):
        last, _ = scan(hmm_step(LOGITS, param("mu", MEANS), True), length=3)(1) @ "steps"
        return carry, last

    @gen
    def model():
        scan(chain, length=2)(0.0) @ "chains"

    def dense(means):
        log_a = jax.nn.log_softmax(LOGITS, -1)
        total = 0.0
        for ys in (YS[:3], YS[3:6]):
            state = log_a[1] + log_normal(ys[0], means)
            for y in ys[1:]:
                state = logsumexp(state[:, None] + log_a, 0) + log_normal(y, means)
            total += logsumexp(state)
        return total

    observed = {"chains": {"steps": {"y": YS[:6].reshape(2, 3)}}}
    check(model, observed, dense, {"mu": MEANS})


@pytest.mark.parametrize("reverse", [False, True])
def test_a_chain_over_the_lanes_of_a_vector(reverse):
    """Independent draws, and a factor that links each with the one before."""

    @gen
    def model():
        means = param("mu", MEANS)
        zs = categorical.repeat(5)(LOGITS[1]) @ "z"

        def step(before, z):
            return z, means[z] * means[before]

        order = {"reverse": reverse}
        _, coupling = jax.lax.scan(step, jnp.int32(2), zs, **order)
        normal(coupling, 1.0) @ "y"

    check(model, {"y": YS[:5]}, lambda means: _dense_coupled(means, reverse), {"mu": MEANS})


def _dense_coupled(means, reverse):
    zs = np.array(list(itertools.product(range(STATES), repeat=5)))
    start = np.full((len(zs), 1), 2)
    before = np.concatenate([zs[:, 1:], start] if reverse else [start, zs[:, :-1]], 1)
    log_p = jnp.sum(jax.nn.log_softmax(LOGITS[1])[zs], 1)
    return logsumexp(log_p + jnp.sum(log_normal(YS[:5], means[zs] * means[before]), 1))


def test_random_start_last_state_and_a_plate_around():
    """Three chains; each starts from a choice that is observed too, and its end is observed."""

    @gen
    def chain(y0, means):
        z0 = categorical(LOGITS[1]) @ "z0"
        normal(means[z0], 2.0) @ "y0"
        last, _ = scan(hmm_step(LOGITS, means, True), length=3)(z0) @ "steps"
        normal(means[last], 0.5) @ "end"

    @gen
    def model():
        plate(chain, in_axes=(0, None))(jnp.zeros(3), param("mu", MEANS)) @ "chains"

    y0, ys, end = YS[:3], YS[3:12].reshape(3, 3), YS[12:15]

    def dense(means):
        zs = np.array(list(itertools.product(range(STATES), repeat=4)))
        log_a = jax.nn.log_softmax(LOGITS, -1)
        total = 0.0
        for i in range(3):
            log_p = log_a[1, zs[:, 0]] + log_normal(y0[i], means[zs[:, 0]], 2.0)
            log_p += jnp.sum(log_a[zs[:, :-1], zs[:, 1:]], 1)
            log_p += jnp.sum(log_normal(ys[i], means[zs[:, 1:]]), 1)
            total += logsumexp(log_p + log_normal(end[i], means[zs[:, 3]], 0.5))
        return total

    observed = {"chains": {"y0": y0, "steps": {"y": ys}, "end": end}}
    check(model, observed, dense, {"mu": MEANS})


def test_switching_states_with_a_shared_choice():
    """Two chains in one loop, whose emission also depends on one choice for all steps."""

    @gen
    def step(carry, shift):
        a, b = carry
        a = flip(jnp.where(a, 0.8, 0.3)) @ "a"
        b = flip(jnp.where(b, 0.6, jnp.where(a, 0.5, 0.1))) @ "b"
        normal(jnp.where(a & b, shift, -shift), 1.0) @ "y"
        return (a, b), None

    @gen
    def model():
        g = flip(0.4) @ "g"
        shift = jnp.where(g, param("shift", 1.0), 0.3)
        scan(step)((False, True), jnp.full(4, shift)) @ "steps"

    def dense(shift):
        bits = np.array(list(itertools.product([0, 1], repeat=9)))
        g, a, b = bits[:, 0], bits[:, 1:5], bits[:, 5:]
        log_p = np.log(np.where(g, 0.4, 0.6))
        before_a, before_b = np.zeros(len(bits)), np.ones(len(bits))
        total = jnp.asarray(log_p)
        for t in range(4):
            p_a = np.where(before_a, 0.8, 0.3)
            p_b = np.where(before_b, 0.6, np.where(a[:, t], 0.5, 0.1))
            total += np.log(np.where(a[:, t], p_a, 1 - p_a))
            total += np.log(np.where(b[:, t], p_b, 1 - p_b))
            size = jnp.where(g, shift, 0.3)
            total += log_normal(YS[t], jnp.where(a[:, t] & b[:, t], size, -size))
            before_a, before_b = a[:, t], b[:, t]
        return logsumexp(total)

    check(model, {"steps": {"y": YS[:4]}}, dense, {"shift": jnp.array(1.0)})


# ------------------------------------------------------------------------ trees and others


def tree_of(nodes, logits=None):
    @gen
    def tree():
        table, zs = param("A", LOGITS) if logits is None else logits, []
        for i in range(nodes):
            zs.append(categorical(table[zs[(i - 1) // 2] if i else 0]) @ f"z{i}")
            if 2 * i + 1 >= nodes:
                normal(MEANS[zs[i]], 1.0) @ f"y{i}"

    return tree, {f"y{i}": YS[i] for i in range(nodes) if 2 * i + 1 >= nodes}


def test_tree():
    """15 choices, 4^15 joint states, against messages from the leaves to the root."""
    tree, observed = tree_of(15)

    def dense(logits):
        log_a = jax.nn.log_softmax(logits, -1)

        def up(i):
            if i >= 7:
                return log_normal(YS[i], MEANS)
            return message(2 * i + 1) + message(2 * i + 2)

        def message(i):
            return logsumexp(log_a + up(i), 1)

        return logsumexp(log_a[0] + up(0))

    check(tree, observed, dense, {"A": LOGITS})


def test_code_is_linear_in_the_number_of_choices():
    def equations(nodes):
        tree, observed = tree_of(nodes, LOGITS)
        return count_equations(
            density(marginal(tree, keep=list(observed), by=enumeration())), observed
        )

    small, middle, large = (equations(n) for n in (7, 15, 31))
    assert large - middle < 2.5 * (middle - small)


def test_branches_and_masks():
    @gen
    def far(loc):
        k = flip(0.3) @ "k"
        normal(loc + jnp.where(k, 2.0, 0.0), 1.0) @ "y"

    @gen
    def near(loc):
        normal(loc, 0.5) @ "y"

    @gen
    def model():
        loc = param("loc", 0.4)
        f = flip(0.6) @ "f"
        cond(far, near)(f, loc) @ "either"
        far.mask(False)(loc) @ "absent"

    def dense(loc):
        y = YS[0]
        far = jnp.log(0.6 * 0.3) + log_normal(y, loc + 2.0)
        other = jnp.log(0.6 * 0.7) + log_normal(y, loc)
        return logsumexp(jnp.stack([far, other, jnp.log(0.4) + log_normal(y, loc, 0.5)]))

    observed = {"either": {"y": YS[0]}, "absent": {"y": YS[1]}}
    check(model, observed, dense, {"loc": jnp.array(0.4)})


def test_lanes_that_a_term_combines():
    """One table over all combinations, as a sum decides the mean."""

    @gen
    def model():
        z = flip.repeat(4)(param("p", 0.3)) @ "z"
        normal(jnp.sum(z.astype(float)), 1.0) @ "y"

    def dense(p):
        k = np.arange(5)
        log_choose = np.log([1, 4, 6, 4, 1])
        return logsumexp(log_choose + k * jnp.log(p) + (4 - k) * jnp.log1p(-p) + log_normal(1.3, k))

    check(model, {"y": jnp.float32(1.3)}, dense, {"p": jnp.array(0.3)})


def test_inside_a_plate_and_in_one_another():
    """plate(marginal) is the marginal of the plate; an inner marginal may be summed out too."""

    @gen
    def inner(p):
        u = flip(p) @ "u"
        flip(jnp.where(u, 0.9, 0.2)) @ "x"

    x_of = marginal(inner, keep="x", by=enumeration())

    @gen
    def outer(p):
        x = x_of(p) @ "inner"
        normal(jnp.where(x["x"], 1.0, -1.0), 1.0) @ "y"

    y_of = marginal(outer, keep="y", by=enumeration())
    ps, ys = jnp.array([0.1, 0.6]), jnp.array([0.3, -0.7])
    found = jax.jit(lambda: density(plate(y_of))({"y": ys}, ps))()
    p_x = 0.9 * ps + 0.2 * (1 - ps)
    expected = jnp.sum(
        jnp.log(p_x * jnp.exp(log_normal(ys, 1.0)) + (1 - p_x) * jnp.exp(log_normal(ys, -1.0)))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_as_a_guide_the_bound_is_that_of_the_mixture():
    """sim's density is exact: the bound of a mixture guide equals the one written by hand."""

    @gen
    def guide():
        k = categorical(jnp.zeros(2)) @ "k"
        normal.reparam(jnp.array([-1.0, 1.0])[k], 1.0) @ "x"

    x_of = marginal(guide, keep="x", by=enumeration())

    def both():
        z, log_q = sim(x_of)()
        x = z["x"]
        by_hand = jnp.logaddexp(log_normal(x, -1.0), log_normal(x, 1.0)) - jnp.log(2.0)
        return log_q - by_hand

    differences = jax.jit(jax.vmap(seed(both)))(jax.random.split(jax.random.key(0), 20))
    np.testing.assert_allclose(differences, 0.0, atol=1e-5)


def test_normalised_densities_add_up():
    @gen
    def model():
        z = categorical(LOGITS[0]) @ "z"
        w = flip(jnp.where(z > 1, 0.9, 0.4)) @ "w"
        normal(MEANS[z] + w, 1.0) @ "y"

    posterior = normalize(condition(model, {"y": 0.7}), by=enumeration())
    states = list(itertools.product(range(STATES), [False, True]))

    def total():
        return sum(
            jnp.exp(density(posterior)({"z": jnp.int32(z), "w": jnp.bool(w)})) for z, w in states
        )

    assert float(jax.jit(total, compiler_options=QUICK)()) == pytest.approx(1.0, abs=1e-5)


def test_what_cannot_be_enumerated():
    @gen
    def continuous():
        u = normal(0.0, 1.0) @ "u"
        normal(u, 1.0) @ "y"

    with pytest.raises(UnsupportedError, match="finite list") as error:
        density(marginal(continuous, keep="y", by=enumeration()))({"y": 0.3})
    assert error.value.address == "continuous/enumeration/u"

    @gen
    def crowded():
        z = flip.repeat(100)(0.3) @ "z"
        normal(jnp.sum(z.astype(float)), 1.0) @ "y"

    with pytest.raises(UnsupportedError, match="combines its lanes"):
        density(marginal(crowded, keep="y", by=enumeration()))({"y": 0.3})

    @gen
    def step(total, _):
        total = total + jnp.where(flip(0.5) @ "z", 1.0, 0.0)
        normal(total, 1.0) @ "y"
        return total, None

    with pytest.raises(UnsupportedError, match="many steps"):
        density(marginal(scan(step, length=3), keep="y", by=enumeration()))({"y": YS[:3]}, 0.0)


def test_estimates_inside_stay_random():
    """A marginal by importance of a continuous choice inside: exact over the discrete one."""

    @gen
    def noisy(loc):
        u = normal(loc, 1.0) @ "u"
        normal(u, 1.0) @ "y"

    @gen
    def posterior(kept, loc):
        normal((kept["y"] + loc) / 2, np.sqrt(0.5)) @ "u"

    y_of = marginal(noisy, keep="y", by=importance(posterior, 2))

    @gen
    def model():
        k = flip(0.3) @ "k"
        y_of(jnp.where(k, 1.0, -1.0)) @ "m"

    exactly = marginal(model, keep="m", by=enumeration())
    found = jax.jit(seed(lambda: density(exactly)({"m": {"y": 0.5}})))(jax.random.key(0))
    two = np.sqrt(2.0)
    expected = np.logaddexp(
        np.log(0.3) + log_normal(0.5, 1.0, two), np.log(0.7) + log_normal(0.5, -1.0, two)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_steps_that_are_all_the_same_count_each():
    """Tables of a loop that rest on nothing that changes: independent choices, and a chain."""

    @gen
    def model():
        outer = flip(param("p", 0.3)) @ "outer"

        def step(last, _):
            apart = flip(jnp.where(outer, 0.2, 0.7)) @ "apart"
            normal(jnp.where(apart, 1.0, -1.0), 1.0) @ "y"
            now = flip(jnp.where(last, 0.8, 0.4)) @ "linked"
            normal(param("mu", 0.5) * now, 1.0) @ "x"
            return now, None

        scan(gen(step), length=4)(True) @ "steps"

    y, x = 0.6, 1.1

    def dense(mu, p):
        def step(outer):
            q = jnp.array([0.7, 0.2])[outer]
            return jnp.log((1 - q) * jnp.exp(log_normal(y, -1.0)) + q * jnp.exp(log_normal(y, 1.0)))

        stay = jnp.log(jnp.array([[0.6, 0.4], [0.2, 0.8]]))
        state = jnp.array([-jnp.inf, 0.0])
        for _ in range(4):
            state = logsumexp(state[:, None] + stay, 0) + log_normal(x, jnp.array([0.0, mu]))
        outer = logsumexp(jnp.log(jnp.array([1 - p, p])) + 4 * jnp.array([step(0), step(1)]))
        return outer + logsumexp(state)

    observed = {"steps": {"y": jnp.full(4, y), "x": jnp.full(4, x)}}
    check(model, observed, dense, {"mu": 0.5, "p": 0.3})


@pytest.mark.parametrize("start", [True, False])
def test_a_chain_read_again_from_another_start(start):
    """Each loop remembers from its own start; the chain's law is the first loop's."""

    @gen
    def model():
        t = param("t", 0.7)

        def make(z, _):
            z = flip(jnp.where(z, t, 0.2)) @ "z"
            return z, z

        def read(last, z):
            normal(1.0 * last + 2.0 * z, 1.0) @ "y"
            return z, None

        _, zs = scan(gen(make), length=3)(True) @ "made"
        scan(gen(read))(start, zs) @ "read"

    def dense(t):
        total = []
        for zs in itertools.product([0, 1], repeat=3):
            befores, lasts = (1, *zs[:-1]), (int(start), *zs[:-1])
            chances = [t if b else 0.2 for b in befores]
            law = sum(jnp.log(c if z else 1 - c) for c, z in zip(chances, zs, strict=True))
            seen = zip(YS[:3], lasts, zs, strict=True)
            total.append(law + sum(log_normal(y, 1.0 * last + 2.0 * z) for y, last, z in seen))
        return logsumexp(jnp.stack(total))

    check(model, {"read": {"y": YS[:3]}}, dense, {"t": 0.7})
