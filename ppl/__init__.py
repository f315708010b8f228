"""`ppl`: a probabilistic programming language for JAX.

Write generative programs (`gen`) and variational objectives as programs (`sim`, `density`), then
`vi.fit(program)`. Start reading at `ppl.lang` (the language), `ppl.compiler` (from objectives to
unbiased gradient estimators) and `ppl.vi` (objectives and the fit).
"""

import importlib
from typing import TYPE_CHECKING, Any

from ppl.errors import BiasWarning as BiasWarning
from ppl.errors import PplError as PplError

if TYPE_CHECKING:
    from ppl import vi as vi
    from ppl.lang import *  # noqa: F403  (all names there are public)

_PACKAGES = ("cli", "compiler", "errors", "lang", "syntax", "testing", "vi")


def __getattr__(name: str) -> Any:
    """All names of `ppl.lang`, loaded at first use: `ppl check FILE` must not wait for JAX."""
    if name in _PACKAGES:
        return importlib.import_module(f"ppl.{name}")
    if not name.startswith("_"):
        lang = importlib.import_module("ppl.lang")
        if hasattr(lang, name):
            return getattr(lang, name)
    raise AttributeError(f"module 'ppl' has no attribute {name!r}")


def __dir__() -> list[str]:
    lang = importlib.import_module("ppl.lang")
    return sorted({*globals(), *_PACKAGES, *(n for n in dir(lang) if not n.startswith("_"))})
