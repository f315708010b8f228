"""Variational objectives, each an ordinary program: read, copy, change.

Each function here returns an `Objective` whose data are the observations and the programs'
arguments, so that `vi.fit` needs nothing else. All are maximised. Start with `elbo`; what they
share is in `_program`.
"""

from ppl.vi.objectives.annealed import annealed as annealed
from ppl.vi.objectives.annealed import nested as nested
from ppl.vi.objectives.elbo import elbo as elbo
from ppl.vi.objectives.elbo import iwelbo as iwelbo
from ppl.vi.objectives.energy import reverse_kl as reverse_kl
from ppl.vi.objectives.f_divergence import alpha_divergence as alpha_divergence
from ppl.vi.objectives.f_divergence import divergences as divergences
from ppl.vi.objectives.f_divergence import dual as dual
from ppl.vi.objectives.f_divergence import f_divergence as f_divergence
from ppl.vi.objectives.filtering import fivo as fivo
from ppl.vi.objectives.hierarchical import diwhvi as diwhvi
from ppl.vi.objectives.hierarchical import hvi as hvi
from ppl.vi.objectives.hierarchical import iwhvi as iwhvi
from ppl.vi.objectives.renyi import chi_square as chi_square
from ppl.vi.objectives.renyi import cubo as cubo
from ppl.vi.objectives.renyi import renyi as renyi
from ppl.vi.objectives.thermodynamic import thermodynamic as thermodynamic
from ppl.vi.objectives.wake_sleep import forward_kl as forward_kl
from ppl.vi.objectives.wake_sleep import jeffreys as jeffreys
from ppl.vi.objectives.wake_sleep import reweighted_wake_sleep as reweighted_wake_sleep
from ppl.vi.objectives.wake_sleep import simulation_based as simulation_based
from ppl.vi.objectives.wake_sleep import sleep as sleep
from ppl.vi.objectives.wake_sleep import wake_phi as wake_phi
from ppl.vi.objectives.wake_sleep import wake_theta as wake_theta
