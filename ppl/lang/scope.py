"""Addresses: the path of names under which the program that runs now makes its choices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_path: ContextVar[tuple[str, ...]] = ContextVar("ppl_address", default=())


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Choices made inside get `name/` before their address."""
    token = _path.set((*_path.get(), name))
    try:
        yield
    finally:
        _path.reset(token)


def current_address(default: str = "") -> str:
    """The address of the choice being made, e.g. `guide/layer/z`; `default` at the top level."""
    return "/".join(_path.get()) or default


def address_of_choice(name: str) -> str:
    """The full address of a choice of the program that runs now."""
    return "/".join(filter(None, [current_address(), name]))
