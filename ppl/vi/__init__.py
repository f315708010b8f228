"""Variational inference: objectives, the compiler's entry point, and the fit.

`vi.elbo(model, guide, observed=...)` makes an objective program, `vi.objective` marks your own,
`vi.compile` turns one into a gradient estimator, and `vi.fit` maximises it.
"""

from ppl.compiler import Estimator as Estimator
from ppl.compiler import Objective as Objective
from ppl.compiler import compile as compile
from ppl.compiler import objective as objective
from ppl.compiler.baselines import PerLane as PerLane
from ppl.compiler.baselines import RunningMean as RunningMean
from ppl.compiler.learned import NVIL as NVIL
from ppl.compiler.strategies import Enumerate as Enumerate
from ppl.compiler.strategies import GumbelSoftmax as GumbelSoftmax
from ppl.compiler.strategies import Lax as Lax
from ppl.compiler.strategies import Rejection as Rejection
from ppl.compiler.strategies import Relax as Relax
from ppl.compiler.strategies import Reparam as Reparam
from ppl.compiler.strategies import Score as Score
from ppl.compiler.strategies import StraightThrough as StraightThrough
from ppl.vi import extend as extend
from ppl.vi.convergence import Convergence as Convergence
from ppl.vi.fit import Report as Report
from ppl.vi.fit import fit as fit
from ppl.vi.mean_field import mean_field as mean_field
from ppl.vi.objectives import elbo as elbo
from ppl.vi.objectives import iwelbo as iwelbo
from ppl.vi.result import Fit as Fit
