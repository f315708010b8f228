"""What a command works on: an objective with its data, and the programs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl.errors import PplError, suggestion


@dataclass(frozen=True)
class Target:
    """Objectives (of `vi.fit`) and programs by name, and data for the programs' arguments."""

    objectives: Mapping[str, Any]
    programs: Mapping[str, Any]
    data: Mapping[str, Any]
    parameters: Mapping[str, tuple[str, ...]]

    def objective(self, name: str | None) -> Any:
        """The objective of a name; without one, the only one or the last.

        Raises:
            PplError: there is none.
        """
        if name is None and self.objectives:
            return list(self.objectives.values())[-1]
        if name not in self.objectives:
            raise PplError(
                "there is no objective" + (f" {name!r}" if name else ""),
                because=suggestion(name or "", self.objectives),
                fix="declare one: objective bound(...) { return ... }",
            )
        return self.objectives[name]

    def program(self, name: str | None) -> tuple[str, Any, tuple[Any, ...]]:
        """A program, without a name the first one, and its arguments from the data.

        Raises:
            PplError: there is none, or there are no data for its arguments.
        """
        if name is None and self.programs:
            name = next(iter(self.programs))
        if name is None or name not in self.programs:
            raise PplError(
                "there is no program" + (f" {name!r}" if name else ""),
                because=suggestion(name or "", self.programs),
            )
        wanted = self.parameters[name]
        if missing := [p for p in wanted if p not in self.data]:
            raise PplError(
                f"there are no data for the argument {missing[0]!r} of {name}",
                because=suggestion(missing[0], self.data),
                fix=f"declare them: data {missing[0]}: TYPE = ...",
            )
        return name, self.programs[name], tuple(self.data[p] for p in wanted)


def load_target(text: str) -> Target:
    """A target by what the user wrote: a path that ends in `.ppl`.

    Raises:
        PplError: it is something else, or the text has errors.
        OSError: the file cannot be read.
    """
    if not text.endswith(".ppl"):
        raise PplError(f"cannot load {text!r}", fix="name a file that ends in .ppl")
    return _text_target(Path(text))


def _text_target(path: Path) -> Target:
    from ppl.compiler import Objective
    from ppl.syntax import ast, load

    text = load(path)
    objectives = {}
    for name, fun in text.objectives.items():
        data = fun.data if all(a in text.data for a in fun.arguments) else ()
        guide, args = (fun.guide(*data) if data or not fun.arguments else None) or (None, ())
        objectives[name] = Objective(fun, name, data, guide, args)
    parameters = {
        d.name: tuple(p.name for p in d.parameters)
        for d in text.checked.file.declarations
        if isinstance(d, ast.Program)
    }
    own = {n: p for n, p in text.programs.items() if n in parameters}
    return Target(objectives, own, text.data, parameters)
