"""Inference algorithms inside programs: what `marginal` and `normalize` are made `by`.

Start with `base`: what an algorithm is, and the two guarantees. Each other module holds one.
"""

from ppl.lang.inference.base import Inference as Inference
from ppl.lang.inference.base import Target as Target
from ppl.lang.inference.importance import importance as importance
from ppl.lang.inference.importance import sir as sir
from ppl.lang.inference.smc import smc as smc
