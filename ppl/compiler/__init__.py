"""The compiler: from objective programs to unbiased gradient estimators.

An objective is staged once (`ppl.lang.staged`), analysed (`influence`: which choices each value
depends on; `region`: where the objective is a sum of costs; `smoothness`), planned (`plan`: a
strategy for each choice) and lowered (`lower`) to an ordinary JAX function.
"""

from ppl.compiler.estimator import Estimator as Estimator
from ppl.compiler.estimator import compile as compile
from ppl.compiler.objective import Objective as Objective
from ppl.compiler.objective import objective as objective
