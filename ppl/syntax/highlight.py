"""Colours for text programs in documentation: a lexer for Pygments, found there as `ppl`."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Whitespace

from ppl.syntax.distributions import FAMILIES, STRATEGIES
from ppl.syntax.functions import FUNCTIONS, IN_OBJECTIVES, PROGRAMS
from ppl.syntax.types import EVENTS, NUMBERS

DECLARATIONS = ("model", "guide", "objective", "def", "const", "data", "extern", "network")
STATEMENTS = ("let", "param", "observe", "factor", "plate", "scan", "next", "if", "else", "return")
WORDS = ("in", "with", "via", "where", "then", "for", "import", "from")


class PplLexer(RegexLexer):
    """Text programs of `ppl`."""

    name = "ppl"
    url = ""
    aliases: ClassVar = ["ppl"]
    filenames: ClassVar = ["*.ppl"]
    mimetypes: ClassVar = ["text/x-ppl"]

    tokens: ClassVar = {
        "root": [
            (r"\s+", Whitespace),
            (r"#.*", Comment.Single),
            (r'"[^"\n]*"', String),
            (r"\d+(\.\d+)?([eE][+-]?\d+)?", Number),
            (words(DECLARATIONS, prefix=r"\b", suffix=r"\b"), Keyword.Declaration),
            (words((*STATEMENTS, *WORDS), prefix=r"\b", suffix=r"\b"), Keyword),
            (words(("true", "false"), prefix=r"\b", suffix=r"\b"), Keyword.Constant),
            (words(("and", "or", "not"), prefix=r"\b", suffix=r"\b"), Operator.Word),
            (
                words((*NUMBERS, *EVENTS, "int", "bool", "size", "interval"), suffix=r"\b"),
                Keyword.Type,
            ),
            (words(tuple(FAMILIES), prefix=r"\b", suffix=r"(?=\s*\()"), Name.Class),
            (
                words((*FUNCTIONS, *IN_OBJECTIVES, *PROGRAMS), prefix=r"\b", suffix=r"(?=\s*\()"),
                Name.Builtin,
            ),
            (words(tuple(STRATEGIES), prefix=r"\b", suffix=r"\b"), Name.Decorator),
            (r"[A-Za-z_]\w*", Name),
            (r"->|==|!=|<=|>=|[-+*/@^<>=~]", Operator),
            (r"[(){}\[\],.:]", Punctuation),
        ]
    }
