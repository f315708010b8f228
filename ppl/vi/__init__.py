"""Variational inference: objectives, the compiler's entry point, and the fit.

`vi.elbo(model, guide, observed=...)` makes an objective program, `vi.objective` marks your own,
`vi.compile` turns one into a gradient estimator, and `vi.fit` maximises it.
"""

from ppl.compiler import Estimator as Estimator
from ppl.compiler import Objective as Objective
from ppl.compiler import compile as compile
from ppl.compiler import objective as objective
from ppl.compiler.strategies import Enumerate as Enumerate
from ppl.compiler.strategies import Reparam as Reparam
from ppl.compiler.strategies import Score as Score
from ppl.vi.convergence import Convergence as Convergence
from ppl.vi.fit import Report as Report
from ppl.vi.fit import fit as fit
from ppl.vi.mean_field import mean_field as mean_field
from ppl.vi.objectives import elbo as elbo
from ppl.vi.objectives import iwelbo as iwelbo
from ppl.vi.result import Fit as Fit
