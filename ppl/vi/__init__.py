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
from ppl.vi.checkpoint import Checkpoint as Checkpoint
from ppl.vi.compare import Comparison as Comparison
from ppl.vi.compare import compare_plans as compare_plans
from ppl.vi.convergence import Convergence as Convergence
from ppl.vi.diagnostics import Importance as Importance
from ppl.vi.diagnostics import compare_fits as compare_fits
from ppl.vi.fit import Report as Report
from ppl.vi.fit import fit as fit
from ppl.vi.guides import amortised as amortised
from ppl.vi.guides import delta as delta
from ppl.vi.guides import flow as flow
from ppl.vi.guides import full_rank as full_rank
from ppl.vi.guides import low_rank as low_rank
from ppl.vi.guides import mean_field as mean_field
from ppl.vi.guides import structured as structured
from ppl.vi.guides.laplace import laplace as laplace
from ppl.vi.natural_gradient import natural_gradient as natural_gradient
from ppl.vi.objectives import alpha_divergence as alpha_divergence
from ppl.vi.objectives import annealed as annealed
from ppl.vi.objectives import chi_square as chi_square
from ppl.vi.objectives import cubo as cubo
from ppl.vi.objectives import divergences as divergences
from ppl.vi.objectives import diwhvi as diwhvi
from ppl.vi.objectives import dual as dual
from ppl.vi.objectives import elbo as elbo
from ppl.vi.objectives import f_divergence as f_divergence
from ppl.vi.objectives import fivo as fivo
from ppl.vi.objectives import forward_kl as forward_kl
from ppl.vi.objectives import hvi as hvi
from ppl.vi.objectives import iwelbo as iwelbo
from ppl.vi.objectives import iwhvi as iwhvi
from ppl.vi.objectives import jeffreys as jeffreys
from ppl.vi.objectives import nested as nested
from ppl.vi.objectives import renyi as renyi
from ppl.vi.objectives import reverse_kl as reverse_kl
from ppl.vi.objectives import reweighted_wake_sleep as reweighted_wake_sleep
from ppl.vi.objectives import simulation_based as simulation_based
from ppl.vi.objectives import sleep as sleep
from ppl.vi.objectives import thermodynamic as thermodynamic
from ppl.vi.objectives import wake_phi as wake_phi
from ppl.vi.objectives import wake_theta as wake_theta
from ppl.vi.result import Fit as Fit
from ppl.vi.store import load as load
