"""`python -m stdlib.fractional_sde [--smoke]`."""

from stdlib.fractional_sde.experiment import main
from stdlib.report import run_as_script

if __name__ == "__main__":
    run_as_script(main, "Stochastic differential equations driven by fractional noise")
