"""What is wrong with a text, and where: data first, then lines with a caret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ppl.errors import PplError
from ppl.syntax.ast import Span


@dataclass(frozen=True)
class Diagnostic:
    """One error in a text.

    Attributes:
        what: one line that says what is wrong.
        span: where in the source.
        because: the reason, with what was expected and found, or `None`.
        fix: a remedy, or `None`.
        path: the file's name; filled in by `Source.report`.
    """

    what: str
    span: Span
    because: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Source:
    """A text and its name."""

    text: str
    path: str = "<text>"

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, counted from 1."""
        offset = min(offset, len(self.text))
        return self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)

    def where(self, span: Span) -> str:
        line, column = self.position(span[0])
        return f"{self.path}:{line}:{column}"

    def show(self, d: Diagnostic) -> str:
        """The error with its line and a caret.

        >>> print(Source("let x = yy").show(Diagnostic("unknown name 'yy'", (8, 10))))
        <text>:1:9: error: unknown name 'yy'
          1 | let x = yy
            |         ^^
        """
        line, column = self.position(d.span[0])
        text = self.text.split("\n")[line - 1]
        # Tabs stay tabs, so that the caret stands below what it points to.
        indent = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
        width = max(1, min(d.span[1] - d.span[0], len(text) - column + 1))
        bar = " " * len(str(line))
        lines = [
            f"{self.path}:{line}:{column}: error: {d.what}",
            f"  {line} | {text}",
            f"  {bar} | {indent}{'^' * width}",
        ]
        lines += [f"  {bar}   because: {d.because}"] if d.because else []
        lines += [f"  {bar}   fix: {d.fix}"] if d.fix else []
        return "\n".join(lines)


class TextError(PplError, ValueError):
    """A text has errors.

    Attributes:
        diagnostics: all of them, in the order of the source.
        source: the text.
    """

    def __init__(self, source: Source, diagnostics: Iterable[Diagnostic]):
        self.source = source
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: d.span))
        first = self.diagnostics[0]
        super().__init__(
            first.what, where=source.where(first.span), because=first.because, fix=first.fix
        )

    def __str__(self) -> str:
        shown = "\n".join(map(self.source.show, self.diagnostics))
        return shown if len(self.diagnostics) == 1 else f"{len(self.diagnostics)} errors\n{shown}"
