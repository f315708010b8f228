"""Distribution transformers: the prior goes in as an input, the posterior comes out as a mixture.

Start at `programs` (the guide and the objective) and `tasks` (the simulators); `network` and
`mixture` are the pieces. `python -m stdlib.distribution_transformer` runs the experiment.
"""

from stdlib.distribution_transformer.mixture import Mixture as Mixture
from stdlib.distribution_transformer.mixture import gmm as gmm
from stdlib.distribution_transformer.network import (
    DistributionTransformer as DistributionTransformer,
)
from stdlib.distribution_transformer.programs import amortised as amortised
from stdlib.distribution_transformer.programs import filtering as filtering
from stdlib.distribution_transformer.programs import guides as guides
from stdlib.distribution_transformer.programs import network as network
from stdlib.distribution_transformer.programs import recycled as recycled
from stdlib.distribution_transformer.tasks import Task as Task
