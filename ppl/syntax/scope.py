"""What names mean while a text is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ppl.syntax import ast
from ppl.syntax.types import Rec, Size, Type


@dataclass(frozen=True)
class Var:
    """A name's meaning: its type (of one entry, if it has indices), and where it is defined."""

    type: Type
    span: ast.Span
    indices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loop:
    """A plate or scan around a statement."""

    variable: str
    size: Size


@dataclass
class Scope:
    """The names at one place of a program, and the choices that it made so far.

    Attributes:
        loops: those around the place, outermost first.
        choices: address -> type, with the axes of the loops.
        state: of the scan around, name -> type; `next` may set them.
        next: types of the new state.
        top: whether the place is directly in the program, in no block.
    """

    names: dict[str, Var]
    kind: str
    loops: tuple[Loop, ...] = ()
    choices: dict[str, Type] = field(default_factory=dict)
    state: Mapping[str, Type] = field(default_factory=dict)
    next: dict[str, Type] = field(default_factory=dict)
    result: Type | None = None
    top: bool = True

    def inside(self, *, loop: Loop | None = None, state: Mapping[str, Type] | None = None) -> Scope:
        """A scope for a block; names and choices of the block stay its own."""
        loops = self.loops if loop is None else (*self.loops, loop)
        return Scope(dict(self.names), self.kind, loops, {}, state or {}, top=False)


@dataclass(frozen=True)
class Signature:
    """What callers know of a declared function or program.

    Attributes:
        kind: `model`, `guide`, `objective`, `def` or `extern`.
        sizes: unknown sizes in the parameters' types, which a call finds out.
        choices: its trace type.
    """

    kind: str
    name: str
    parameters: Mapping[str, Type]
    sizes: frozenset[str]
    choices: Rec
    result: Type | None
