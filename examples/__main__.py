"""`python -m examples`: robust regression, then the autoencoder of digits."""

from __future__ import annotations

import time

from examples import robust_regression, vae_digits
from examples._report import arguments
from stdlib.report import console

MAIN = {
    "Robust regression: the stars of CYG OB1": robust_regression.main,
    "Variational autoencoder: handwritten digits": vae_digits.main,
}

options = arguments(__doc__).parse_args()
start = time.perf_counter()
for title, main in MAIN.items():
    console.rule(title)
    main(quick=options.quick, folder=options.outputs)
console.rule()
console.print(
    f"done in {time.perf_counter() - start:.0f} s; the figures are in {options.outputs}/",
    soft_wrap=True,
)
