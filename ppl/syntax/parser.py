"""From text to tree: Lark's tables for the grammar, and a short loop that runs on them.

The loop is our own for two reasons. It is several times faster than Lark's, which makes an object
for each token; and after a syntax error it goes on at the next line that begins a statement, so
that one run finds all of them.
"""

from __future__ import annotations

import functools
import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppl.syntax import ast, build
from ppl.syntax.diagnostics import Diagnostic, Source, TextError
from ppl.syntax.trivia import find_trivia

GRAMMAR = Path(__file__).with_name("grammar.lark")
END = "$END"
MAX_ERRORS = 50
MAX_DEPTH = 150
"""Of brackets and blocks inside each other: the passes after the parser are recursive."""


def parse(text: str, path: str = "<text>") -> ast.File:
    """The tree of a text.

    Raises:
        TextError: with all syntax errors.

    >>> parse("const K = 3").declarations
    (Const(name='K', value=Number(value=3)),)
    """
    file, errors = parse_partly(text, path)
    if errors:
        raise TextError(Source(text, path), errors)
    return file


def parse_partly(text: str, path: str = "<text>") -> tuple[ast.File, list[Diagnostic]]:
    """The tree of what can be parsed, and all syntax errors."""
    tokens = _lex(text)
    if too_deep := _too_deep(tokens):
        return ast.File((), span=(0, len(text))), [too_deep]
    with _no_collection():
        declarations, broken = _Run(tokens).all()
        file = ast.File(
            tuple(declarations),
            find_trivia(text, tokens.comments, declarations),
            frozenset(t for a, b in broken.skipped for t in tokens.texts[a:b] if t.isidentifier()),
            span=(0, len(text)),
        )
    return file, broken.errors


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which would look at the growing tree again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


# --------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Tables:
    """The grammar's tables.

    Attributes:
        lexer: one pattern for all tokens, one group each.
        words: token types of keywords and symbols by their text.
        actions: for each state, token type -> next state (shift) or rule (reduce).
        goto: for each state, nonterminal -> next state.
    """

    lexer: re.Pattern[str]
    words: dict[str, str]
    start: int
    actions: list[dict[str, int | _Rule]]
    goto: list[dict[str, int]]


@dataclass(frozen=True, eq=False, slots=True)
class _Rule:
    name: str
    size: int
    build: Callable[[Any, list[Any]], Any] | None


@functools.cache
def tables() -> _Tables:
    """The tables of `grammar.lark`, made at first use."""
    from lark import Lark
    from lark.lexer import PatternStr
    from lark.parsers.lalr_analysis import Shift

    grammar = Lark(GRAMMAR.read_text(), parser="lalr", lexer="basic")
    parsed: Any = grammar.parser.parser
    table = parsed._parse_table
    rules: dict[Any, _Rule] = {}
    names = list(table.states)
    actions: list[dict[str, int | _Rule]] = []
    goto: list[dict[str, int]] = []
    number = {state: i for i, state in enumerate(names)}
    for state in names:
        shifts, gotos = {}, {}
        for token, (action, arg) in table.states[state].items():
            symbol = sys.intern(str(token))  # Lark's own strings compare slowly
            if action is Shift:
                (shifts if symbol.isupper() or symbol == END else gotos)[symbol] = number[arg]
            else:
                if arg not in rules:
                    size = len(arg.expansion)
                    made = build.builder(str(arg.alias or arg.origin.name), size)
                    rules[arg] = _Rule(sys.intern(str(arg.origin.name)), size, made)
                shifts[symbol] = rules[arg]
        actions.append(shifts)
        goto.append(gotos)
    patterns, words = [], {}
    for terminal in grammar.terminals:
        if isinstance(terminal.pattern, PatternStr):
            words[terminal.pattern.value] = sys.intern(str(terminal.name))
        elif terminal.name in ("KIND", "BOOLEAN", "OPERATOR"):
            for word in terminal.pattern.value.strip("(?:)").split("|"):
                words[word.replace("\\", "")] = terminal.name
        else:
            patterns.append((terminal.name, terminal.pattern.to_regexp()))
    symbols = sorted((w for w in words if not w.isidentifier()), key=len, reverse=True)
    patterns.append(("SYMBOL", "|".join(map(re.escape, symbols))))
    lexer = re.compile("|".join(f"(?P<{n}>{p})" for n, p in patterns))
    return _Tables(lexer, words, number[table.start_states["start"]], actions, goto)


# --------------------------------------------------------------------------------------- tokens


@dataclass
class Tokens:
    """The tokens of a text, as columns; the last one is the end of the text."""

    text: str
    types: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    comments: list[int] = field(default_factory=list)


def _lex(text: str) -> Tokens:
    table = tables()
    tokens = Tokens(text)
    types, texts, starts = tokens.types.append, tokens.texts.append, tokens.starts.append
    word_type = table.words.get
    at = 0
    for match in table.lexer.finditer(text):
        kind, start = match.lastgroup, match.start()
        if start != at:
            _unknown(text, at, start, tokens)
        at = match.end()
        if kind == "WHITESPACE":
            continue
        if kind == "COMMENT":
            tokens.comments.append(start)
            continue
        found = match.group()
        types(word_type(found, str(kind)))
        texts(found)
        starts(start)
    if at != len(text):
        _unknown(text, at, len(text), tokens)
    types(END)
    texts("")
    starts(len(text))
    return tokens


def _unknown(text: str, start: int, end: int, tokens: Tokens) -> None:
    tokens.types.append("UNKNOWN")
    tokens.texts.append(text[start:end])
    tokens.starts.append(start)


_NESTING = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def _too_deep(tokens: Tokens) -> Diagnostic | None:
    depth, prefixes = 0, 0
    for i, text in enumerate(tokens.texts):
        depth = max(0, depth + _NESTING.get(text, 0))
        # `- - - x`, `if a then if b ...` and `a ^ b ^ c` nest without brackets.
        prefixes = prefixes + 1 if text in ("-", "not", "then", "else", "^") else prefixes
        prefixes = 0 if text in ("{", "}", "=", "~", ",") else prefixes
        if depth + prefixes > MAX_DEPTH:
            span = (tokens.starts[i], tokens.starts[i] + len(text))
            return Diagnostic(
                f"nested more than {MAX_DEPTH} deep", span, fix="give parts a name with let"
            )
    return None


# ----------------------------------------------------------------------------------------- loop


@dataclass
class Broken:
    """What could not be parsed: the errors, and the ranges of tokens that were skipped."""

    errors: list[Diagnostic] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)


class _Run:
    """One run of the parser: a stack of states, of values, and of where the values begin."""

    def __init__(self, tokens: Tokens):
        self.tokens = tokens
        self.states = [tables().start]
        self.values: list[Any] = []
        self.begins: list[int] = []
        self.broken = Broken()
        self.phantoms: list[int] = []

    def all(self) -> tuple[list[ast.Declaration], Broken]:
        at = 0
        while (at := self._until_error(at)) is not None:
            if len(self.broken.errors) >= MAX_ERRORS:
                break
            at = self._recover(at)
            if at is None:
                break
        declarations = next((v for v in self.values if isinstance(v, list)), [])
        return declarations, self.broken

    def _until_error(self, at: int) -> int | None:
        """Parse from a token on; the token that does not fit, or `None` at the end."""
        table = tables()
        actions, goto = table.actions, table.goto
        types, starts, texts = self.tokens.types, self.tokens.starts, self.tokens.texts
        states, values, begins = self.states, self.values, self.begins
        context = _Context(texts, starts, self.broken.errors)
        while True:
            action: Any = actions[states[-1]].get(types[at])
            if type(action) is int:
                states.append(action)
                values.append(at)
                begins.append(at)
                at += 1
            elif action is not None:
                size = action.size
                if size == 1:
                    if action.build is not None:
                        context.begin, context.end = begins[-1], at - 1
                        values[-1] = action.build(context, [values[-1]])
                    states.pop()
                elif size:
                    context.begin, context.end = begins[-size], at - 1
                    values[-size:] = [action.build(context, values[-size:])]
                    del states[-size:]
                    del begins[1 - size :]
                else:
                    context.begin, context.end = at, at - 1
                    values.append(action.build(context, []))
                    begins.append(at)
                if action.name == "start":
                    return None
                states.append(goto[states[-1]][action.name])
            else:
                return at

    # ------------------------------------------------------------------------------- recovery

    def _recover(self, at: int) -> int | None:
        """Report the token that does not fit, and go to where the parser can go on."""
        self._report(at)
        goto = tables().goto
        stop = self._next_start(at)
        self.broken.skipped.append((self._statement_begin(at), stop))
        inside = self.tokens.types[stop] not in _DECLARES
        list_of = "statement" if inside else "declaration"
        while self.states and list_of not in goto[self.states[-1]]:
            self.states.pop()
            if self.values:
                self.values.pop()
                self.begins.pop()
        if not self.states:
            return None
        return stop

    def _statement_begin(self, at: int) -> int:
        goto = tables().goto
        for state, begin in zip(reversed(self.states[:-1]), reversed(self.begins), strict=False):
            if "statement" in goto[state] or "declaration" in goto[state]:
                return begin
        return at

    def _next_start(self, at: int) -> int:
        """The next token from which on a statement or declaration can be parsed."""
        types, starts, text = self.tokens.types, self.tokens.starts, self.tokens.text
        goto = tables().goto
        in_block = any("statement" in goto[s] for s in self.states)
        open_braces = 0
        first, at = at, self._line_begin(at)
        while types[at] != END:
            begins_line = not text[text.rfind("\n", 0, starts[at]) + 1 : starts[at]].strip()
            kind = types[at]
            if at >= first and begins_line and kind in _DECLARES:
                return at
            if in_block and at >= first and begins_line and open_braces <= 0:
                follows = types[at + 1]
                if kind in _STATES or (kind == "NAME" and follows in ("TILDE", "LSQB")):
                    if at > first or kind == "RBRACE":
                        return at
                if kind == "RBRACE":
                    return at
            at += 1
            if kind == "LBRACE":
                # The header is broken: its block is read as if it were part of the outer one.
                at_line_end = (
                    text[starts[at - 1] + 1 : starts[at]].lstrip(" \t").startswith(("\n", "#"))
                )
                open_braces += not (at_line_end and in_block)
                if at_line_end and in_block:
                    self._drop_closing(at)
            elif kind == "RBRACE" and at - 1 >= first:
                open_braces -= open_braces > 0
        return at

    def _line_begin(self, at: int) -> int:
        begin = self.tokens.text.rfind("\n", 0, self.tokens.starts[at]) + 1
        while at > 0 and self.tokens.starts[at - 1] >= begin:
            at -= 1
        return at

    def _drop_closing(self, at: int) -> None:
        """Take the brace that closes the block which was opened before `at` out of the text."""
        depth = 1
        for i in range(at, len(self.tokens.types)):
            depth += {"LBRACE": 1, "RBRACE": -1}.get(self.tokens.types[i], 0)
            if depth == 0:
                for column in (self.tokens.types, self.tokens.texts, self.tokens.starts):
                    del column[i]
                return

    def _report(self, at: int) -> None:
        kind, text = self.tokens.types[at], self.tokens.texts[at]
        start = self.tokens.starts[at]
        span = (start, start + max(1, len(text)))
        expected = sorted(_expected(self.states))
        if kind == "UNKNOWN":
            what = f"unexpected character{'s' * (len(text) > 1)} {text!r}"
            self.broken.errors.append(
                Diagnostic(what, span, fix="remove it; comments begin with #")
            )
            return
        found = "the end of the text" if kind == END else repr(text)
        fix = None
        if text in tables().words and text.isidentifier() and "a name" in expected:
            fix = f"{text!r} is a word of the language: choose another name"
        shown = ", ".join(expected[:12]) + (", ..." if len(expected) > 12 else "")
        self.broken.errors.append(
            Diagnostic(f"unexpected {found}", span, f"expected {shown}" if shown else None, fix)
        )


_DECLARES = {"IMPORT", "FROM", "CONST", "DATA", "EXTERN", "NETWORK", "KIND"}
_STATES = {"LET", "PARAM", "OBSERVE", "FACTOR", "PLATE", "SCAN", "NEXT", "IF", "RETURN", "RBRACE"}
_KINDS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "OPERATOR": "an operator",
    "BOOLEAN": "'true', 'false'",
    "KIND": "'model', 'guide', 'objective', 'def'",
    END: "the end of the text",
}


def _expected(states: list[int]) -> set[str]:
    """What may stand here, in words: only what survives the reductions that it would cause."""
    table = tables()
    texts = {kind: repr(word) for word, kind in table.words.items()}
    return {
        _KINDS.get(kind) or texts.get(kind, kind)
        for kind in table.actions[states[-1]]
        if _fits(list(states), kind)
    }


def _fits(states: list[int], kind: str) -> bool:
    table = tables()
    while True:
        action = table.actions[states[-1]].get(kind)
        if not isinstance(action, _Rule):
            return action is not None
        if action.name == "start":
            return True
        if action.size:
            del states[-action.size :]
        states.append(table.goto[states[-1]][action.name])


class _Context:
    """What the builders of nodes know: the tokens, and the range of the part being built."""

    __slots__ = ("begin", "end", "errors", "starts", "texts")

    def __init__(self, texts: list[str], starts: list[int], errors: list[Diagnostic]):
        self.texts, self.starts, self.errors = texts, starts, errors
        self.begin = self.end = 0

    @property
    def span(self) -> ast.Span:
        end = self.end
        return self.starts[self.begin], self.starts[end] + len(self.texts[end])
