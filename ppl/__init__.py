"""`ppl`: a probabilistic programming language for JAX.

Write generative programs (`gen`) and variational objectives as programs (`sim`, `density`), then
`vi.fit(program)`. Start reading at `ppl.lang` (the language), `ppl.compiler` (from objectives to
unbiased gradient estimators) and `ppl.vi` (objectives and the fit).
"""

from ppl import vi as vi
from ppl.compiler.enumeration import enumeration as enumeration
from ppl.errors import BiasWarning as BiasWarning
from ppl.errors import PplError as PplError
from ppl.lang import *  # noqa: F403  (all names there are public)
