"""The text language: `*.ppl` files with models, guides and objectives.

`parser` makes a tree (`ast`) of a text with the grammar in `grammar.lark`; `printer` writes it back
in canonical form; `check` finds errors; none of these needs JAX. `elaborate` makes the generative
functions and objectives of `ppl.lang` of a checked file, and `load` does all of it for a path. The
definition of the language is in `spec/language.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl.syntax.diagnostics import TextError as TextError
from ppl.syntax.library import check_path as check_path
from ppl.syntax.library import check_text as check_text
from ppl.syntax.parser import parse as parse
from ppl.syntax.printer import format_text as format_text
from ppl.syntax.printer import show as show

if TYPE_CHECKING:
    from ppl.syntax.text import Text as Text
    from ppl.syntax.text import load as load
    from ppl.syntax.text import loads as loads


def __getattr__(name: str) -> Any:
    # With JAX, which takes seconds to import, only for who runs a text.
    if name in ("Text", "load", "loads"):
        from ppl.syntax import text

        return getattr(text, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
