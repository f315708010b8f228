"""Tests of programs, estimators and distributions, for users and for this project's own tests.

`assert_exactly_unbiased` sums an estimator over all outcomes of its draws; `assert_unbiased`
samples it; both say which bias they would catch. `check_distribution` is for new distributions.
"""

from ppl.testing.distributions import Checked as Checked
from ppl.testing.distributions import DistributionError as DistributionError
from ppl.testing.distributions import check_distribution as check_distribution
from ppl.testing.outcomes import ExactMean as ExactMean
from ppl.testing.outcomes import exact_estimate as exact_estimate
from ppl.testing.outcomes import exact_expectation as exact_expectation
from ppl.testing.unbiased import BiasError as BiasError
from ppl.testing.unbiased import InconclusiveError as InconclusiveError
from ppl.testing.unbiased import Report as Report
from ppl.testing.unbiased import assert_exactly_unbiased as assert_exactly_unbiased
from ppl.testing.unbiased import assert_mean as assert_mean
from ppl.testing.unbiased import assert_unbiased as assert_unbiased
from ppl.testing.unbiased import assert_unbiased_draws as assert_unbiased_draws
from ppl.testing.unbiased import z_bound as z_bound
