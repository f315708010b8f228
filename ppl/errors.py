"""The errors of the language: data first (for tests and tools), then a text made from it.

Every error says what is wrong, where (address and source line), why, and how to fix it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PplError(Exception):
    """Base of all errors of `ppl`.

    Attributes:
        what: one line that says what is wrong.
        address: the random choice's address (`guide/layer/3/z`), or `None`.
        where: the user's source line (`model.py:41 (guide)`), or `None`.
        because: the reason, with what was expected and what was found, or `None`.
        fix: a remedy to copy, or `None`.
    """

    def __init__(
        self,
        what: str,
        *,
        address: str | None = None,
        where: str | None = None,
        because: str | None = None,
        fix: str | None = None,
    ):
        self.what, self.address, self.where = what, address, where
        self.because, self.fix = because, fix
        details = [("at address", address), ("in", where), ("because", because), ("fix", fix)]
        super().__init__("\n".join([what, *(f"  {k}: {v}" for k, v in details if v)]))


class AddressError(PplError, ValueError):
    """An address is unknown, missing, or used twice."""


class ShapeError(PplError, ValueError):
    """A value or a parameter has the wrong shape or dtype."""


class SupportError(PplError, ValueError):
    """A value or a guide's support lies outside of what is allowed."""


class DataError(PplError, ValueError):
    """The data cannot be used: NaN, infinite, or empty where it must not be."""


class StrategyError(PplError, ValueError):
    """A gradient strategy is unknown, or the distribution does not have it."""


class UnsupportedError(PplError, NotImplementedError):
    """A construct that the compiler does not understand, refused so that no draw is baked in."""


class ExpectationError(PplError, ValueError):
    """An expectation was used in a way that would bias the estimate."""

    # No TypeError: JAX catches those while it looks at arguments, and reports its own.


class KeyRequiredError(PplError, RuntimeError):
    """A random choice was run without a key."""


class NonFiniteError(PplError, FloatingPointError):
    """A value or gradient became NaN or infinite.

    Attributes:
        step: the step of `vi.fit` that went wrong, counted from 0, or `None`.
        fit: the result up to that step, with the last good parameters, or `None`.
    """

    step: int | None = None
    fit: Any = None


class CheckpointError(PplError, ValueError):
    """A saved state cannot be used: it belongs to another program, or is damaged."""


class BiasWarning(UserWarning):
    """The gradient estimate of a program is, or may be, biased."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or the list of what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(map(repr, known)) or 'none'}"
