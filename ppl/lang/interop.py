"""GenJAX's own generative functions inside our programs.

`as_program` converts a GenJAX generative function into ours, by a table of rules by type, so
that its choices are visible to the compiler. One that has no rule runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from genjax.core import GFI

T = TypeVar("T", bound=Callable)
_rules: dict[type, Callable[[Any], Any]] = {}


def converts(kind: type) -> Callable[[T], T]:
    """Register how to convert GenJAX's generative functions of exactly this type."""

    def register(rule: T) -> T:
        _rules[kind] = rule
        return rule

    return register


def as_program(gen_fn: GFI) -> GFI:
    """The generative function in our own types."""
    rule = _rules.get(type(gen_fn))
    return gen_fn if rule is None else rule(gen_fn)
