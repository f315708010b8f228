"""The syntax tree of the text language: frozen records, each with its place in the source.

Two trees are equal if they say the same: places and comments do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

Span = tuple[int, int]
"""Offsets of the first character and of the one after the last."""

NOWHERE: Span = (0, 0)


@dataclass(frozen=True, slots=True)
class Node:
    """What all parts of a tree have: a place in the source, which does not count as content."""

    span: Span = field(default=NOWHERE, compare=False, kw_only=True, repr=False)


def children(node: Any) -> Iterator[Node]:
    """The nodes directly below a node, in the order of the source."""
    if isinstance(node, Node):
        for f in fields(node):
            yield from children_of(getattr(node, f.name))


def children_of(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for v in value:
            yield from children_of(v)


def walk(node: Any) -> Iterator[Node]:
    """A node (or a tuple of nodes) and all below it."""
    for child in children_of(node):
        yield child
        yield from walk(tuple(children(child)))


# --------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Expr(Node):
    """A value: a number, an array, a record, a distribution, or a program with its arguments."""


@dataclass(frozen=True, slots=True)
class Number(Expr):
    value: int | float

    def __eq__(self, other: object) -> bool:  # 1 and 1.0 are different literals
        return isinstance(other, Number) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True, slots=True)
class Boolean(Expr):
    value: bool


@dataclass(frozen=True, slots=True)
class Name(Expr):
    name: str


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Conditional(Expr):
    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """An argument of a call, or a state of a scan; `name` is `None` where given by position."""

    name: str | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Expr):
    function: str
    arguments: tuple[Argument, ...]

    def positional(self) -> list[Expr]:
        return [a.value for a in self.arguments if a.name is None]

    def named(self) -> dict[str, Expr]:
        return {a.name: a.value for a in self.arguments if a.name is not None}


@dataclass(frozen=True, slots=True)
class WholeAxis(Expr):
    """`:` as an index."""


@dataclass(frozen=True, slots=True)
class Index(Expr):
    base: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Field(Expr):
    base: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Tuple(Expr):
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Array(Expr):
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Expr):
    """`[value for variable in size]`."""

    value: Expr
    variable: str
    size: Expr


@dataclass(frozen=True, slots=True)
class Record(Expr):
    """`{x: 1, y}`; `y` alone is `y: y`."""

    fields: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Ascribe(Expr):
    """`(value : type)`: the checker takes the author's word for it."""

    value: Expr
    type: Type


# --------------------------------------------------------------------------------------- types


@dataclass(frozen=True, slots=True)
class Type(Node):
    """A type as written."""


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class ArrayType(Type):
    """`interval(0, 1)[n, 3]`: a name, what it depends on, and the sizes."""

    name: str
    arguments: tuple[Expr, ...] = ()
    sizes: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordType(Type):
    fields: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class TupleType(Type):
    items: tuple[Type, ...]


# ---------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Statement(Node):
    pass


@dataclass(frozen=True, slots=True)
class Block(Node):
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Target(Node):
    """What is defined: `x`, or `x[i, j]` for one entry per run of the loops over i and j."""

    name: str
    indices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy(Node):
    name: str
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice(Statement):
    target: Target
    program: Expr
    strategy: Strategy | None = None
    mask: Expr | None = None


@dataclass(frozen=True, slots=True)
class Let(Statement):
    target: Target
    value: Expr


@dataclass(frozen=True, slots=True)
class LetTuple(Statement):
    names: tuple[str, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Param(Statement):
    """A trainable parameter; its initial value is a value, or drawn (`random`)."""

    name: str
    type: Type
    init: Expr
    random: bool = False


@dataclass(frozen=True, slots=True)
class Observe(Statement):
    value: Expr
    program: Expr
    mask: Expr | None = None


@dataclass(frozen=True, slots=True)
class Factor(Statement):
    log_weight: Expr


@dataclass(frozen=True, slots=True)
class Plate(Statement):
    variable: str
    size: Expr
    body: Block


@dataclass(frozen=True, slots=True)
class Scan(Statement):
    variable: str
    size: Expr
    state: tuple[Argument, ...]
    body: Block


@dataclass(frozen=True, slots=True)
class Next(Statement):
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class If(Statement):
    condition: Expr
    then: Block
    otherwise: Block | None = None


@dataclass(frozen=True, slots=True)
class Return(Statement):
    value: Expr


# -------------------------------------------------------------------------------- declarations


@dataclass(frozen=True, slots=True)
class Declaration(Node):
    pass


@dataclass(frozen=True, slots=True)
class Import(Declaration):
    """`names` is `None` for all of them."""

    path: str
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Const(Declaration):
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Data(Declaration):
    """Data by value, or from a file (`source`)."""

    name: str
    type: Type
    value: Expr | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Extern(Declaration):
    """A Python function, or (`network`) one that makes a trainable Equinox module."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Type
    source: str
    network: bool = False


@dataclass(frozen=True, slots=True)
class Program(Declaration):
    """A `model`, a `guide`, an `objective`, or a `def` (a function without choices)."""

    kind: str
    name: str
    parameters: tuple[Parameter, ...]
    body: Block
    result: Type | None = None


class Trivia(NamedTuple):
    """What the printer keeps beside the tree, at the place of a statement or of a closing brace.

    Attributes:
        blank: whether an empty line stands before it.
        leading: comments on lines of their own before it.
        trailing: the comment behind it, or "".
    """

    blank: bool = False
    leading: tuple[str, ...] = ()
    trailing: str = ""


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole file.

    Attributes:
        trivia: by the offset of a declaration, of a statement, or of the end of a block.
        unreadable: names in parts that could not be parsed: nothing is known of them.
    """

    declarations: tuple[Declaration, ...]
    trivia: Mapping[int, Trivia] = field(default_factory=dict, compare=False, repr=False)
    unreadable: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
