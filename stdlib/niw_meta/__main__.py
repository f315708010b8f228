"""`python -m stdlib.niw_meta [--smoke] [--outputs FOLDER]`."""

from stdlib.niw_meta.experiment import TITLE, main
from stdlib.report import run_as_script

if __name__ == "__main__":
    run_as_script(main, TITLE)
