"""`python -m stdlib.distribution_transformer [--smoke]`."""

from stdlib.distribution_transformer.experiment import TITLE, main
from stdlib.report import run_as_script

run_as_script(main, TITLE)
