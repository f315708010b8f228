"""`load`: a text file as programs, objectives and data."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ppl.compiler.objective import Objective
from ppl.errors import DataError, PplError, suggestion
from ppl.lang import gen
from ppl.syntax import ast
from ppl.syntax.elaborate import Module
from ppl.syntax.elaborate_expr import value
from ppl.syntax.environment import App, Env, bind
from ppl.syntax.library import Checked, check_path, check_text


def load(path: str | Path) -> Text:
    """The programs, objectives and data of a `*.ppl` file.

    Raises:
        OSError: the file cannot be read.
        TextError: it has errors.

    >>> text = load("examples/text/eight_schools.ppl")
    >>> sorted(text.programs)
    ['family', 'schools']
    """
    return Text(check_path(path).raise_errors())


def loads(text: str, path: str = "<text>") -> Text:
    """As `load`, for a text.

    >>> list(loads("model coin() { x ~ flip(0.5) }").programs)
    ['coin']
    """
    return Text(check_text(text, path).raise_errors())


class Text:
    """What a text file defines, as Python values.

    Attributes:
        programs: models and guides by name: generative functions, as `gen` makes them.
        functions: what `def` declares, by name.
        objectives: by name; each is a function of data, for `vi.compile` and `vi.fit`.
    """

    def __init__(self, checked: Checked):
        self.checked = checked
        module = _module(checked)
        self.programs: Mapping[str, Any] = module.programs
        kinds = {d.name: d for d in checked.file.declarations if isinstance(d, ast.Program)}
        made = module.objectives
        self.functions = {n: made[n] for n, d in kinds.items() if d.kind == "def"}
        self.objectives = {
            n: TextObjective(self, d, module) for n, d in kinds.items() if d.kind == "objective"
        }
        self._module = module

    def with_data(self, name: str) -> Any:
        """A model or guide with its arguments from the file's data: a program without arguments.

        Raises:
            DataError: an argument is not among the data.
        """
        home = self._module.homes[name]
        d = home.declarations[name]
        assert isinstance(d, ast.Program)
        given = {p.name: self.datum(p.name, name) for p in d.parameters}
        app = home.apply(d, (), given)

        def run() -> Any:
            return home.run(d, (), given)

        run.__name__ = run.__qualname__ = name
        return gen(run) if app.args else app.program

    def datum(self, name: str, program: str) -> Any:
        """What the file has for an argument of a program.

        Raises:
            DataError: nothing.
        """
        sizes = self._sizes_of_data()
        if name not in {**self.data, **sizes}:
            raise DataError(
                f"there are no data for the argument {name!r} of {program}",
                because=suggestion(name, self.data),
                fix=f"declare them in the file, data {name}: TYPE = ..., or pass them",
            )
        return self.data.get(name, sizes.get(name))

    @property
    def data(self) -> dict[str, Any]:
        """The data that the file declares or refers to, by name; and its constants.

        Raises:
            DataError: a file is missing, or what it has does not fit the declared type.
        """
        return self._read[0]

    def _sizes_of_data(self) -> dict[str, Any]:
        """What the sizes are that the types of the data name."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        found: dict[str, Any] = dict(self._module.consts)
        sizes: dict[str, Any] = dict(self._module.consts)
        for d in self.checked.file.declarations:
            if isinstance(d, ast.Data):
                found[d.name] = self._load(d, sizes)
        return found, sizes

    def _load(self, d: ast.Data, sizes: dict[str, Any]) -> Any:
        env = Env(self._module)
        if d.value is not None:
            x = value(d.value, env)
        else:
            x = _read(str(d.source), d.name, self.checked.directory)
        dtypes = {"int": np.int32, "bool": bool}
        if isinstance(d.type, ast.ArrayType):
            x = np.asarray(x, dtypes.get(d.type.name, np.float32))
            where = f"data {d.name}"
            bound = bind(where, (ast.Parameter(d.name, d.type),), (x,), {})
            for name, size in bound.items():
                if name != d.name and sizes.setdefault(name, size) != size:
                    raise DataError(f"{where}: {name} is {sizes[name]} elsewhere, here {size}")
        return x


@dataclass(frozen=True, eq=False)
class TextObjective:
    """An objective of a text: a function of its data.

    Sizes among its parameters are not data: they are taken from the file's constants.
    """

    text: Text
    declaration: ast.Program
    module: Any

    @property
    def __name__(self) -> str:
        return self.declaration.name

    def __call__(self, *data: Any) -> Any:
        given = dict(zip(self.arguments, data, strict=False))
        if len(data) != len(self.arguments):
            raise PplError(
                f"the objective {self.__name__} takes {', '.join(self.arguments) or 'no data'}",
                because=f"it was given {len(data)} arguments",
            )
        return self.module.run(self.declaration, (), {**given, **self._sizes()})

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the data."""
        return tuple(p.name for p in self.declaration.parameters if p.type != ast.ArrayType("size"))

    @property
    def data(self) -> tuple[Any, ...]:
        """The data that the file has for the arguments.

        Raises:
            DataError: it does not have them all.
        """
        return tuple(self.text.datum(name, self.__name__) for name in self.arguments)

    def with_data(self) -> Objective:
        """The objective of the file's data, as `vi.fit` takes it.

        Raises:
            DataError: the file does not have them all.
        """
        guide, args = self.guide(*self.data) or (None, ())
        return Objective(self, self.__name__, self.data, guide, args)

    def _sizes(self) -> dict[str, Any]:
        names = [p.name for p in self.declaration.parameters if p.name not in self.arguments]
        consts = self.module.consts
        if missing := [n for n in names if n not in consts]:
            raise PplError(
                f"the size {missing[0]!r} of {self.__name__} is unknown",
                fix=f"const {missing[0]} = 3",
            )
        return {n: consts[n] for n in names}

    def guide(self, *data: Any) -> tuple[Any, tuple[Any, ...]] | None:
        """The program that the objective samples first, with its arguments, if data tell them."""
        env = Env(self.module)
        given = {**dict(zip(self.arguments, data, strict=True)), **self._sizes()}
        names = [p.name for p in self.declaration.parameters]
        bound = bind(self.__name__, self.declaration.parameters, (), given)
        env.names.update({n: x for n, x in bound.items() if n in names or isinstance(x, int)})
        lets = [s for s in self.declaration.body.statements if isinstance(s, ast.Let)]
        named = {s.target.name: s.value for s in lets}
        for node in ast.walk(self.declaration.body):
            position = {"sim": 0, "elbo": 1, "iwelbo": 1}.get(getattr(node, "function", ""))
            if position is None:
                continue
            call = node.positional()[position]  # type: ignore[attr-defined]
            if isinstance(call, ast.Name):
                call = named.get(call.name, call)
            used = {n.name for n in ast.walk((call,)) if isinstance(n, ast.Name)}
            known = env.names.keys() | self.module.consts.keys() | self.module.homes.keys()
            methods = {
                f.name for n in ast.walk((call,)) if isinstance(n, ast.Record) for f in n.fields
            }
            if used <= known | methods:
                app = value(call, env)
                if isinstance(app, App):
                    return app.program, app.args
        return None


def _module(checked: Checked) -> Module:
    imported = {c.source.path: _module(c) for c in checked.imported.values()}
    homes = {n: imported[c.source.path] for n, c in checked.imported.items()}
    return Module(
        checked.file,
        checked.source,
        homes,
        lambda source: python_function(source, checked.directory),
    )


# ------------------------------------------------------------------------------- Python and data


def python_function(source: str, directory: Path) -> Callable[..., Any]:
    """The function that `module:function` or `file.py:function` names.

    Raises:
        PplError: there is none.
    """
    place, _, name = source.rpartition(":")
    try:
        if place.endswith(".py"):
            module = _python_file(directory / place)
        else:
            module = importlib.import_module(place)
        return getattr(module, name)
    except (ImportError, AttributeError, OSError) as e:
        raise PplError(f"there is no Python function {source!r}", because=str(e)) from e


_files: dict[Path, Any] = {}


def _python_file(path: Path) -> Any:
    path = path.resolve()
    if path not in _files:
        spec = importlib.util.spec_from_file_location(f"ppl_extern_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise OSError(f"no file {path}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _files[path] = module
    return _files[path]


def _read(source: str, name: str, directory: Path) -> Any:
    """An array from a file: JSON, CSV (a column by name), NPY, NPZ, or a Python function."""
    if ":" in source:
        return python_function(source, directory)()
    path = directory / source
    if not path.is_file():
        raise DataError(f"data {name}: there is no file {path}")
    readers: dict[str, Callable[[Path, str], Any]] = {
        ".json": _read_json,
        ".csv": _read_csv,
        ".npy": lambda path, _: np.load(path),
        ".npz": _read_npz,
    }
    if path.suffix not in readers:
        raise DataError(
            f"data {name}: {source!r} is none of {', '.join(readers)}, file.py:function"
        )
    try:
        return readers[path.suffix](path, name)
    except (ValueError, KeyError) as e:
        raise DataError(f"data {name}: {source!r} cannot be read", because=str(e)) from e


def _read_json(path: Path, name: str) -> Any:
    found = json.loads(path.read_text())
    return np.asarray(found[name] if isinstance(found, dict) else found)


def _read_npz(path: Path, name: str) -> Any:
    with np.load(path) as file:
        return file[name]


def _read_csv(path: Path, name: str) -> Any:
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    return np.asarray([float(row[name]) for row in rows])
