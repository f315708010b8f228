"""`ppl`: a probabilistic programming language for JAX.

Write generative programs (`gen`) and variational objectives as programs (`sim`, `density`), then
`vi.fit(program)`. Start reading at `ppl.lang` (the language), `ppl.compiler` (from objectives to
unbiased gradient estimators) and `ppl.vi` (objectives and the fit).
"""

from typing import TYPE_CHECKING, Any

from ppl.errors import BiasWarning as BiasWarning
from ppl.errors import PplError as PplError

if TYPE_CHECKING:
    from ppl import vi as vi
    from ppl.compiler.enumeration import enumeration as enumeration
    from ppl.lang import *  # noqa: F403  (all names there are public)

_ELSEWHERE = {"enumeration": "ppl.compiler.enumeration"}
"""The modules of the names that are not in `ppl.lang`."""


def __getattr__(name: str) -> Any:
    """`vi`, and the names of `ppl.lang`: imported when they are first asked for.

    JAX takes seconds to import, and the command line and the text language's checker need none.
    """
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'ppl' has no attribute {name!r}")
    import importlib

    if name == "vi":
        return importlib.import_module("ppl.vi")
    if name == "__all__":
        own = ["BiasWarning", "PplError", "vi", *_ELSEWHERE]
        return own + [n for n in vars(importlib.import_module("ppl.lang")) if n[0] != "_"]
    try:
        found = getattr(importlib.import_module(_ELSEWHERE.get(name, "ppl.lang")), name)
    except AttributeError:
        raise AttributeError(f"module 'ppl' has no attribute {name!r}") from None
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
