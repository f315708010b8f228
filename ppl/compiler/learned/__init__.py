"""Learned control variates of a choice: networks that predict the costs that it is charged with.

`base` has the one mechanism; `nvil` predicts from data alone (a baseline), `lax` and `relax` also
from a relaxation of the draw.
"""

from ppl.compiler.learned.base import ControlVariate as ControlVariate
from ppl.compiler.learned.base import tap as tap
from ppl.compiler.learned.nvil import NVIL as NVIL
from ppl.compiler.learned.pathwise import PathNetwork as PathNetwork
