"""Stochastic differential equations driven by fractional noise, with variational inference.

Fractional Brownian motion has memory and is not Markov. A weighted sum of Ornstein-Uhlenbeck
processes that share one Brownian motion approximates it; the weights that are best are known
(`weights`, `noise`). So equations with such noise are ordinary programs: a loop over the Brownian
motion's increments, and the posterior is the same loop with a control (`programs`, `controls`).
`tasks` and `video` are models with them; `python -m stdlib.fractional_sde` runs the experiments.

Source: Daems, Opper, Crevecoeur and Birdal, ICLR 2024 (arXiv 2310.12975).
"""

from stdlib.fractional_sde.controls import affine_control as affine_control
from stdlib.fractional_sde.controls import affine_guidance as affine_guidance
from stdlib.fractional_sde.controls import network_control as network_control
from stdlib.fractional_sde.noise import BROWNIAN as BROWNIAN
from stdlib.fractional_sde.noise import FractionalNoise as FractionalNoise
from stdlib.fractional_sde.programs import SDE as SDE
from stdlib.fractional_sde.programs import path as path
from stdlib.fractional_sde.programs import weighed_path as weighed_path
