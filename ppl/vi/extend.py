"""What one needs to add to the language: distributions, strategies, baselines, rewrites.

Everything is a table, filled at import: `examples/custom_strategy.py` adds a distribution and a
strategy in a few lines each, and `spec/estimators.md` says what must hold for them to be unbiased.

* A distribution is `make_distribution(Family(name, parameters, sample, log_density, ...))`.
* A strategy is a frozen dataclass with the members of `Strategy`; `@register_strategy` gives it a
  name, and all distributions a method of that name. Its `lower(choice)` returns the choice's value
  and says, by `choice.logp(...)`, what costs are charged with.
* A baseline subclasses `Baseline`; `@register_baseline` gives it a name.
* `expected_log_density[q, p] = rule` adds a closed form, `@rewrite` a rewrite.
"""

from ppl.compiler.baselines import Baseline as Baseline
from ppl.compiler.baselines import Charged as Charged
from ppl.compiler.baselines import register_baseline as register_baseline
from ppl.compiler.rewrites import Rewritten as Rewritten
from ppl.compiler.rewrites import expected_log_density as expected_log_density
from ppl.compiler.rewrites import rewrite as rewrite
from ppl.compiler.strategies.base import Choice as Choice
from ppl.compiler.strategies.base import Strategy as Strategy
from ppl.compiler.strategies.base import register as register_strategy
from ppl.compiler.tables import Val as Val
from ppl.lang.distribution import make_distribution as make_distribution
from ppl.lang.family import Family as Family

__all__ = [
    "Baseline",
    "Charged",
    "Choice",
    "Family",
    "Rewritten",
    "Strategy",
    "Val",
    "expected_log_density",
    "make_distribution",
    "register_baseline",
    "register_strategy",
    "rewrite",
]
