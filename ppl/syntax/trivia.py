"""Which comment belongs to which statement."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

from ppl.syntax import ast


def find_trivia(
    text: str, comments: list[int], declarations: Iterable[ast.Declaration]
) -> dict[int, ast.Trivia]:
    """Comments and empty lines, by the place of the statement or closing brace they stand at.

    A comment behind something belongs to the statement that began last; one on a line of its own
    to what comes next.
    """
    anchors = [place for d in declarations for place in _anchors(d)]
    anchors.append((len(text), False))
    anchors.sort()
    places = [p for p, _ in anchors]
    leading: dict[int, list[str]] = {}
    trailing: dict[int, str] = {}
    firsts: dict[int, int] = {}
    for start in comments:
        end = text.find("\n", start)
        content = text[start : len(text) if end < 0 else end].rstrip()
        i = bisect.bisect_right(places, start)
        alone = not text[text.rfind("\n", 0, start) + 1 : start].strip()
        before = places[i - 1] if i else None
        if not alone and before is not None and before not in trailing:
            trailing[before] = content
        elif not alone and before is not None:
            leading.setdefault(before, []).append(content)
        else:
            leading.setdefault(places[i], []).append(content)
            firsts.setdefault(places[i], start)
    trivia = {}
    for place, closing in anchors:
        first = firsts.get(place, place)
        gap = text[len(text[:first].rstrip()) : first] if first else ""
        blank = gap.count("\n") > 1 and not closing
        if blank or place in leading or place in trailing:
            found = tuple(leading.get(place, ()))
            trivia[place] = ast.Trivia(blank, found, trailing.get(place, ""))
    return trivia


def _anchors(node: ast.Declaration | ast.Statement) -> Iterator[tuple[int, bool]]:
    """Places of a statement, of those inside, and of closing braces (the flag)."""
    yield node.span[0], False
    for block in blocks_of(node):
        for statement in block.statements:
            yield from _anchors(statement)
        yield block.span[1] - 1, True


def blocks_of(node: ast.Node) -> Iterator[ast.Block]:
    """The blocks directly in a declaration or statement."""
    match node:
        case ast.Program(body=body) | ast.Plate(body=body) | ast.Scan(body=body):
            yield body
        case ast.If(then=then, otherwise=otherwise):
            yield then
            if otherwise is not None:
                yield otherwise
