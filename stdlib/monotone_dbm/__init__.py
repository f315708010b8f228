"""Monotone deep Boltzmann machines (Feng, Winston and Kolter, TMLR 2023).

Start at `programs`; `coupling` makes mean field unique, `equilibrium` finds it.
"""

from stdlib.monotone_dbm.coupling import Convolution as Convolution
from stdlib.monotone_dbm.coupling import Dense as Dense
from stdlib.monotone_dbm.coupling import check_coupling as check_coupling
from stdlib.monotone_dbm.coupling import monotone as monotone
from stdlib.monotone_dbm.equilibrium import Energy as Energy
from stdlib.monotone_dbm.equilibrium import mean_field as mean_field
from stdlib.monotone_dbm.layers import Layer as Layer
from stdlib.monotone_dbm.layers import Layers as Layers
from stdlib.monotone_dbm.programs import equilibrium as equilibrium
from stdlib.monotone_dbm.programs import inner as inner
from stdlib.monotone_dbm.programs import machine as machine
from stdlib.monotone_dbm.programs import outer as outer
from stdlib.monotone_dbm.prox import log_prox as log_prox
from stdlib.monotone_dbm.prox import prox as prox
