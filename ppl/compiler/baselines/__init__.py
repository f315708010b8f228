"""Baselines of the score strategy: what is subtracted from a cost before it is charged.

One small file each, in one table. A baseline is unbiased if it does not depend on the draws that
the cost is charged to. Those that learn a network (`nvil`) are control variates of a choice, in
`ppl.compiler.learned`.
"""

from ppl.compiler.baselines.base import Baseline as Baseline
from ppl.compiler.baselines.base import Charged as Charged
from ppl.compiler.baselines.base import baseline as baseline
from ppl.compiler.baselines.base import baselines as baselines
from ppl.compiler.baselines.base import register_baseline as register_baseline
from ppl.compiler.baselines.leave_one_out import LeaveOneOut as LeaveOneOut
from ppl.compiler.baselines.no_baseline import NoBaseline as NoBaseline
from ppl.compiler.baselines.per_lane import PerLane as PerLane
from ppl.compiler.baselines.running_mean import RunningMean as RunningMean
