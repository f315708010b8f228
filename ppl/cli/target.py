"""Programs named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from ppl.cli.text import is_text, load_text_target
from ppl.errors import AddressError, suggestion


def load_target(text: str) -> Any:
    """What `module:name`, `file.py:name`, a `.ppl` file or `file.ppl:name` names.

    Modules are looked up from the working directory too.

    Raises:
        ValueError: the text has none of these forms.
        ImportError: there is no such module, or it fails to import.
        FileNotFoundError: there is no such file.
        AddressError: the module has no such name.
    """
    if is_text(text):
        return load_text_target(text)
    place, colon, name = text.rpartition(":")
    if not (colon and place and name):
        raise ValueError(f"{text!r} is no program: give module:name, file.py:name or a .ppl file")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")] if found is module else []
            raise AddressError(f"{place} has no {name!r}", because=suggestion(part, known))
        found = getattr(found, part)
    return found


def _from_name(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _from_file(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent.absolute()))
    spec.loader.exec_module(module)
    return module
