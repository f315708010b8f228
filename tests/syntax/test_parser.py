"""The parser: trees, precedence, places, and all syntax errors of a text in one run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl.syntax import TextError, ast, parse
from ppl.syntax.diagnostics import Source
from ppl.syntax.parser import MAX_DEPTH, parse_partly
from ppl.syntax.printer import show_expr


def expr(text: str) -> ast.Expr:
    (const,) = parse(f"const c = {text}").declarations
    assert isinstance(const, ast.Const)
    return const.value


@pytest.mark.parametrize(
    "text, grouped",
    [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a ^ b ^ c", "a ^ (b ^ c)"),
        ("-a ^ b", "-(a ^ b)"),
        ("a ^ -b", "a ^ (-b)"),
        ("2 ^ -b ^ c", "2 ^ (-(b ^ c))"),
        ("-a * b", "(-a) * b"),
        ("not a == b", "not (a == b)"),
        ("not a and b", "(not a) and b"),
        ("a or b and c", "a or (b and c)"),
        ("a + b < c * d", "(a + b) < (c * d)"),
        ("a @ b * c", "(a @ b) * c"),
        ("if a then b else c + d", "if a then b else (c + d)"),
        ("a[i].f[j]", "((a[i]).f)[j]"),
    ],
)
def test_precedence(text, grouped):
    assert expr(text) == expr(grouped)


def test_places_are_those_of_the_source():
    text = "model m() {\n  x ~ normal(0, 1 + 2)\n}"
    (program,) = parse(text).declarations
    (choice,) = program.body.statements  # type: ignore[attr-defined]
    call = choice.program
    assert text[slice(*choice.span)] == "x ~ normal(0, 1 + 2)"
    assert text[slice(*call.span)] == "normal(0, 1 + 2)"
    assert text[slice(*call.arguments[1].span)] == "1 + 2"


def test_places_do_not_count_as_content():
    assert parse("const K=3 # three").declarations == parse("\n\nconst K = 3").declarations
    assert expr("1") != expr("1.0")


BROKEN = """model f(x: real) {
  y ~ normal(3 4)
  let x = = 3
  plate i inn n {
    z[i] ~ normal(0, 1)
    let = 4
  }
  a ~ normal(0, $1)
  plate = 3
  return 3 +
}

guide g(x real) {
  z ~ normal(0, 1)
}

const K =

objective o() {
  return a < b < c
}
"""


def test_all_errors_of_a_text_are_found():
    file, errors = parse_partly(BROKEN)
    source = Source(BROKEN)
    lines = [source.position(e.span[0])[0] for e in errors]
    assert lines == [2, 3, 4, 6, 8, 9, 11, 13, 19, 20]
    assert [d.name for d in file.declarations] == ["f", "o"]  # type: ignore[attr-defined]


def test_an_error_says_what_was_expected_and_points_there():
    with pytest.raises(TextError) as e:
        parse("model m() {\n\tx ~ normal(0 1)\n}", "m.ppl")
    assert str(e.value) == (
        "m.ppl:2:15: error: unexpected '1'\n"
        "  2 | \tx ~ normal(0 1)\n"
        "    | \t             ^\n"
        "      because: expected ')', ',', '-', '.', '[', an operator"
    )


def test_a_word_of_the_language_is_no_name():
    with pytest.raises(TextError, match="'next' is a word of the language"):
        parse("model next() {}")


def test_comparisons_do_not_chain():
    with pytest.raises(TextError, match="a < b and b < c"):
        parse("const c = a < b < c")
    assert expr("(a < b) == (b < c)") == expr("(a < b) == (b < c)")


@pytest.mark.parametrize(
    "text", ["(" * 5_000, "const c = " + "-" * 5_000 + "1", "model m() {" * 999]
)
def test_deep_nesting_is_refused(text):
    with pytest.raises(TextError, match=f"nested more than {MAX_DEPTH} deep"):
        parse(text)


WORDS = [
    *(
        "model guide objective def const data extern network import from let param observe factor"
    ).split(),
    *(
        "plate scan in with next if else return via where then for not and or true false x y z"
    ).split(),
    *("( ) [ ] { } , : ~ = == + - * / @ ^ < > . -> 1 2.5 1e3 normal real positive").split(),
    *('"s" # \n $ \x00 é'.split(" ")),
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_words_parse_or_give_our_errors(words):
    text = " ".join(words)
    file, errors = parse_partly(text)
    source = Source(text)
    assert all(source.show(e) for e in errors)
    assert isinstance(file, ast.File)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=80))
def test_any_text_parses_or_gives_our_errors(text):
    parse_partly(text)


def test_expressions_print_as_they_are_read():
    text = "if a then -b^2 else [x[i, :] for i in n] @ {u, v: (1, 2)}.u"
    assert show_expr(expr(text)) == text
