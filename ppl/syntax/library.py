"""Reading files: a text with all that it imports, checked. Needs no JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ppl.syntax import ast
from ppl.syntax.check import check
from ppl.syntax.diagnostics import Diagnostic, Source, TextError
from ppl.syntax.parser import parse_partly
from ppl.syntax.scope import Signature, Var


@dataclass(frozen=True)
class Checked:
    """A file that was parsed and checked, with those that it imports.

    Attributes:
        errors: its own ones; those of imported files are theirs.
        declared: what each name means to files that import this one.
        imported: where each imported name comes from.
    """

    source: Source
    file: ast.File
    errors: tuple[Diagnostic, ...]
    declared: Mapping[str, Signature | Var]
    imported: Mapping[str, Checked] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return Path(self.source.path).parent

    def everything(self) -> dict[str, Checked]:
        """This file and all that it imports, by path."""
        found: dict[str, Checked] = {self.source.path: self}
        for other in self.imported.values():
            found.update(other.everything())
        return found

    def raise_errors(self) -> Checked:
        """This file, if it and those that it imports have no errors.

        Raises:
            TextError: they have.
        """
        for checked in reversed(self.everything().values()):
            if checked.errors:
                raise TextError(checked.source, checked.errors)
        return self


def check_text(text: str, path: str = "<text>", _under_way: tuple[str, ...] = ()) -> Checked:
    """Parse and check a text; errors are in the result.

    >>> [e.what for e in check_text("const K = J").errors]
    ["unknown name 'J'"]
    """
    file, errors = parse_partly(text, path)
    imported: dict[str, Checked] = {}
    names: dict[str, Signature | Var] = {}
    for d in file.declarations:
        if isinstance(d, ast.Import):
            wrong = _import(d, path, (*_under_way, path), imported, names)
            errors += wrong
            if wrong:  # nothing is known of what it should have brought
                missing = frozenset(d.names or ()) - names.keys()
                file = dataclasses.replace(file, unreadable=file.unreadable | missing)
    found, declared = check(file, names)
    return Checked(Source(text, path), file, (*errors, *found), declared, imported)


def check_path(path: str | Path) -> Checked:
    """Read, parse and check a file.

    Raises:
        OSError: it cannot be read.
        TextError: it is not UTF-8.
    """
    return _check_path(Path(path), ())


def _check_path(path: Path, under_way: tuple[str, ...]) -> Checked:
    raw = path.read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        readable = raw[: e.start].decode()
        wrong = Diagnostic("the file is not UTF-8", (len(readable), len(readable) + 1))
        raise TextError(Source(readable, str(path)), [wrong]) from None
    return check_text(text, str(path), under_way)


def _import(
    d: ast.Import,
    path: str,
    under_way: tuple[str, ...],
    imported: dict[str, Checked],
    names: dict[str, Signature | Var],
) -> list[Diagnostic]:
    target = Path(path).parent / d.path
    if str(target) in under_way:
        chain = " -> ".join([*under_way, str(target)])
        return [Diagnostic("the files import each other", d.span, chain)]
    if not target.is_file():
        return [Diagnostic(f"there is no file {d.path!r}", d.span, f"looked for {target}")]
    try:
        other = _check_path(target, under_way)
        other.raise_errors()
    except TextError as e:
        first = f"{e.source.where(e.diagnostics[0].span)}: {e.what}"
        return [Diagnostic(f"{d.path!r} has errors", d.span, first, f"ppl check {target}")]
    errors = []
    for name in d.names if d.names is not None else other.declared:
        if name not in other.declared:
            errors.append(Diagnostic(f"{d.path!r} does not declare {name!r}", d.span))
        elif name in names:
            errors.append(Diagnostic(f"{name!r} is imported twice", d.span))
        else:
            names[name], imported[name] = other.declared[name], other
    return errors
