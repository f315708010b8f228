from stdlib.monotone_dbm.experiment import main
from stdlib.report import run_as_script

run_as_script(main, "Monotone deep Boltzmann machines: completion and classification of digits")
