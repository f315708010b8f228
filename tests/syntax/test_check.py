"""The checker: each kind of error once, at its place and with its remedy; and no traceback ever."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl.syntax import check_text, show
from ppl.syntax.distributions import FAMILIES
from ppl.syntax.types import Interval, Size
from ppl.testing.programs import programs


def errors(text: str) -> list[str]:
    return [e.what for e in check_text(text).errors]


def in_model(body: str) -> str:
    return f"model m(x: real[n], s: positive, b: bool) {{\n{body}\n}}"


GOOD = [
    "a ~ normal(x[0], s)",
    "a ~ normal(0, exp(x[0]))",
    "a ~ normal(0, 0.1 + s * 2 + s^2)",
    "a ~ flip(1 - sigmoid(x[0]))",
    "a ~ flip(0.2 + 0.8 * sigmoid(x[0]))",
    "a ~ categorical(probs = softmax(x))",
    "a ~ dirichlet(ones(3)) b2 ~ categorical(probs = a)",
    "a ~ half_normal(1) c ~ normal(0, a + 0.01)",
    "plate i in n { a[i] ~ normal(x[i], s) } let t = sum(a) + a[0]",
    "plate i in n { plate j in 2 { a[i, j] ~ normal(x[i], s) } let t[i] = sum(a[i]) } "
    "let u = sum(t)",
    "scan t in n with z = 0.0 { a[t] ~ normal(z, s) next z = a[t] } let u = z + a[0]",
    "scan t in n with z = s { next z = z * 2 } a ~ normal(0, z)",
    "if b { a ~ normal(0, 1) let t = a } else { let t = 0.5 } c ~ normal(t, 1)",
    "plate i in n + 1 { a[i] ~ normal(0, 1) } let t = a @ concat(x, [1.0])",
    "a ~ multivariate_normal_tri(x, eye(n))",
    "a ~ multivariate_normal(zeros(2), eye(2)) let t = a @ ones(2)",
    "a ~ normal(0, (x[0] : positive))",
    "param w: simplex[3] = softmax(zeros(3))  a ~ mixture(w, normal(ones(3), ones(3)))",
    "param q: real[n, 2] = 0  let t = sum(q, axis = 1) + x",
    "a ~ poisson(log_rate = x[0]) c ~ binomial(10, probs = 0.5) d ~ normal(real(a), 1)",
    "observe x[0] ~ normal(0, 1) where b  factor -s",
]


@pytest.mark.parametrize("body", GOOD)
def test_good_programs_pass(body):
    assert errors(in_model(body)) == []


BAD = {
    "a ~ nromal(0, 1)": "unknown function or distribution 'nromal'",
    "a ~ normal(0)": "normal needs scale",
    "a ~ normal(0, 1, 2)": "normal takes loc, scale",
    "a ~ normal(0, 1) via enmu": "unknown strategy 'enmu'",
    "a ~ flip(0.5) via reparam": "flip has no strategy 'reparam'",
    "a ~ gamma(1, rate = 1, log_rate = 0)": "gamma needs exactly one of log_rate, rate",
    "a ~ 3": "int cannot be drawn from",
    "let a = normal(0, 1)": "a distribution on real is not a value",
    "let a = x[0, 0]": "2 indices for 1 axes",
    "let a = x[0.5]": "an index is a whole number",
    "let a = [1, 2][2]": "the index is outside of the array",
    "let a = x": None,
    "let a = x and b": "'and' needs truth values",
    "let a = -b and not b": "'and' needs truth values",
    "let a = log(x[0])": "the argument of log has the wrong type",
    "let a = x @ ones(3)": "the shapes do not fit together",
    "let a = [1, x]": "the entries of an array have different shapes",
    "let (a, c) = x": "real[n] is not several values",
    "let a = y": "unknown name 'y'",
    "let a = sum": "'sum' is called with arguments",
    "let a = sum(x, axes = 1)": "sum has no argument 'axes'",
    "let a = {x}.y": "there is no field 'y'",
    "plate i in x { }": "a size must be known before the run",
    "plate i in n { a[i] ~ normal(0, 1) let t = a }": "'a' has one value in each run of the loop",
    "plate i in n { a[j] ~ normal(0, 1) }": "the indices are not those of the loops around",
    "scan t in 3 with z = 0.0 { }": "the state 'z' never changes",
    "scan t in 3 with z = 0.0 { next y = 1 }": "'y' is not a state of the scan around",
    "if s { }": "if needs a single truth value",
    "plate i in n { return 1 }": "return inside of a block",
    "plate i in n { param p: real = 0 }": "a parameter is declared inside a block",
    "param p: simplex = 0": "simplex needs a size",
    "param p: reel = 0": "unknown type 'reel'",
    "param p: positive = -1": "the initial value of p has the wrong type",
    "param p: real = 1 let p = 2": "'p' is defined already",
    "return 1 let a = 2": "nothing runs after return",
    "let a = sim(m(x, s, b))": "sim stands outside of an objective",
    "a ~ m(x, s, b)": "'m' calls itself",
    "a ~ normal(0, 1) via reparam let c = floor(a)": "floor on the reparameterised choice 'a': "
    "the gradient would be biased",
}


@pytest.mark.parametrize("body", BAD)
def test_errors(body):
    found = errors(in_model(body))
    assert found[:1] == ([] if BAD[body] is None else [BAD[body]])


OBJECTIVES = {
    "return density(p(), {a: 1.0, k: true})": None,
    "let (z, q) = sim(g()) return density(p(), z) - q": "the choice 'a' has the wrong type",
    "return density(p(), {a: 1.0})": "values are missing for the choices 'k' of p",
    "return density(p(), {a: 1.0, k: true, l: 1})": "p has no choice 'l'",
    "return density(p(), {a: true, k: 1.0})": "the choice 'a' is of another kind than the model's",
    "return E(1) * E(2) + 3 * E(4) / 2": None,
    "return log(E(1))": "an expectation is not a number",
    "return 1 / E(1)": "'/' of expectations would bias the estimate",
    "let (z, q) = sim(g()) return q * E(1)": "'*' of expectations would bias the estimate",
    "return elbo(p(), g(), {k: true}, {a: 1.0})": "elbo takes 3 arguments, not 4",
    "return iwelbo(p(), g2(), {k: true})": "iwelbo needs a number of particles",
    "return elbo(p(), g2(), {k: true})": None,
    "return elbo(p(1), g2(), {k: true})": "p takes 0 arguments",
    "x ~ normal(0, 1) return 1": "no choice in an objective",
    "let y = 1": "the objective 'o' returns nothing",
    "return [1, 2]": "the objective 'o' returns an array",
    "return density(marginal(p(), keep = {z}, by = enumeration()), {a: 1.0})": (
        "p has no choice 'z'"
    ),
    "return density(marginal(p(), keep = {a}, by = smart()), {a: 1.0})": (
        "marginal needs a method of integration"
    ),
}


@pytest.mark.parametrize("body", OBJECTIVES)
def test_errors_in_objectives(body):
    text = f"""
        model p() {{ a ~ half_normal(1)  k ~ flip(0.5) }}
        guide g() {{ a ~ normal(0, 1)  k ~ flip(0.5) }}
        guide g2() {{ a ~ half_normal(1) }}
        objective o() {{ {body} }}"""
    found = errors(text)
    assert found[:1] == ([] if OBJECTIVES[body] is None else [OBJECTIVES[body]])


def test_a_misspelt_name_gets_a_suggestion_and_a_caret():
    checked = check_text("model m() {\n  a ~ nromal(0, 1)\n}", "m.ppl")
    assert checked.source.show(checked.errors[0]) == (
        "m.ppl:2:7: error: unknown function or distribution 'nromal'\n"
        "  2 |   a ~ nromal(0, 1)\n"
        "    |       ^^^^^^\n"
        "      fix: did you mean 'normal'?"
    )


def test_names_of_broken_lines_are_not_reported_again():
    found = errors("model m() {\n  let a = = 1\n  x ~ normal(a, 1)\n}")
    assert found == ["unexpected '='"]


def test_sizes_are_unified_across_calls():
    text = """
        def f(a: real[n], b: real[n, m]) -> real[m] { return a @ b }
        def g(x: real[k]) -> real { return sum(f(x, fill(1.0, k, 3)) * ones(3)) }
        def h(x: real[k]) -> real { return sum(f(x, fill(1.0, k + 1, 3))) }"""
    assert errors(text) == ["the argument 'b' of f does not fit"]


def test_size_arithmetic():
    n, m = Size.of("n"), Size.of("m")
    assert (n + m) * (n - m) == n * n - m * m
    assert str(n * Size(2) - m + Size(1)) in ("-m + 2*n + 1", "2*n - m + 1")
    assert (n + Size(1)).put({"n": Size(2)}) == Size(3)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_interval_arithmetic_contains_all_results(ends, u, v):
    a, b, c, d = ends
    p, q = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
    x, y = p.low + u * (p.high - p.low), q.low + v * (q.high - q.low)
    for interval, result in ((p + q, x + y), (p * q, x * y), (-p, -x), (p | q, y)):
        assert interval.low - 1e-9 <= result <= interval.high + 1e-9
    if q.is_positive and q.low > 0:
        assert (p / q).low - 1e-9 <= x / y <= (p / q).high + 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(programs())
def test_random_programs_pass(file):
    text = show(file)
    assert not check_text(text).errors, text


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 2**32))
def test_mutated_programs_give_no_traceback(file, seed):
    rng, words = random.Random(seed), show(file).split(" ")
    for _ in range(rng.randint(1, 4)):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        change = rng.choice(["drop", "swap", "copy"])
        if change == "drop":
            del words[i]
        elif change == "swap":
            words[i], words[j] = words[j], words[i]
        else:
            words[i] = words[j]
    checked = check_text(" ".join(words))
    assert all(checked.source.show(e) for e in checked.errors)


def test_the_table_of_distributions_is_that_of_the_language():
    from ppl.lang.distributions import ALL

    families = {d.family.value.name: d.family.value for d in ALL}
    assert families.keys() == FAMILIES.keys()
    for name, family in families.items():
        known = FAMILIES[name]
        assert {n: p.rank for n, p in known.parameters.items()} == dict(family.parameters), name
        assert list(known.parameters) == list(family.parameters), name
        assert known.either == family.alternatives, name
        assert known.reparam == (family.reparam is not None), name
        assert known.enum == (family.enumerate is not None), name
        kinds = {"real": "float", "int": "int", "bool": "bool"}
        assert name == "delta" or kinds[known.draw.kind] == family.kind, name


def test_the_table_of_strategies_is_that_of_the_compiler():
    from ppl.compiler.strategies import strategies
    from ppl.syntax.distributions import STRATEGIES

    assert STRATEGIES.keys() == strategies.keys()
