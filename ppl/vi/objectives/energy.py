"""Reverse KL to an unnormalised density that is a plain function."""

from __future__ import annotations

from collections.abc import Callable

from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang import sim
from ppl.vi.objectives._program import Args


def reverse_kl(
    log_density: Callable[..., Array], guide: GFI, *, args: Args = (), temperature: float = 1.0
) -> Objective:
    """E_q[log p~(z) / T - log q(z)]: minus KL(q || p~^(1/T) / Z), up to log Z, in nats.

    Args:
        log_density: log p~ (minus the energy) as a function of the guide's choices (nested
            dictionaries) and the arguments; it need not be normalised.
        guide: the variational family q.
        args: arguments of both.
        temperature: T > 0.

    Raises:
        ValueError: the temperature is not positive.

    Source: the variational free energy; e.g. Noe et al. (arXiv 1812.01729), equation 4.
    """
    if not temperature > 0:
        raise ValueError(f"reverse_kl: temperature must be positive, not {temperature}")

    def reverse_kl(args: Args) -> Array:
        z, log_q = sim(guide)(*args)
        return log_density(z, *args) / temperature - log_q

    return Objective(reverse_kl, "reverse_kl", (args,), guide, args)
