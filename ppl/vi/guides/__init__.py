"""Guides made on demand from a model's trace type.

Each is a function `(model, observed=, args=) -> guide`, which `vi.elbo` and the other objectives
take in place of a guide: `vi.elbo(model, vi.full_rank, observed=...)`. Options are given with
`functools.partial(vi.low_rank, rank=5)`. Start with `mean_field`; `_joint` has what the guides of
several choices share, `_latents` the map between choices and unconstrained vectors.
"""

from ppl.vi.guides.amortised import amortised as amortised
from ppl.vi.guides.delta import delta as delta
from ppl.vi.guides.flow import flow as flow
from ppl.vi.guides.full_rank import full_rank as full_rank
from ppl.vi.guides.low_rank import low_rank as low_rank
from ppl.vi.guides.mean_field import mean_field as mean_field
from ppl.vi.guides.structured import structured as structured
