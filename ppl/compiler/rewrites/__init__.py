"""Rewrites of log-density nodes: passes over the staged program, asked for by name.

`closed_form` replaces log-densities by their expectations (`gaussian`: over several draws),
`stl` sticks the landing, `dreg` reparameterises the gradient of multi-sample bounds twice. Each
leaves the expected value and its gradient as they were, and says what it did in
`Plan.rewritten`.
"""

from ppl.compiler.rewrites.base import Rewritten as Rewritten
from ppl.compiler.rewrites.base import apply as apply
from ppl.compiler.rewrites.base import check_names as check_names
from ppl.compiler.rewrites.base import rewrite as rewrite
from ppl.compiler.rewrites.base import rewrites as rewrites
from ppl.compiler.rewrites.closed_form import closed_form as closed_form
from ppl.compiler.rewrites.closed_form import expected_log_density as expected_log_density
from ppl.compiler.rewrites.dreg import dreg as dreg
from ppl.compiler.rewrites.stl import stl as stl
