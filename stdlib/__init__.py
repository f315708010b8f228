"""The standard library: papers' models as programs in the language, one sub-package each.

Each has a `README.md`, its programs in `programs.py`, the pieces of algorithm that they need, and
an experiment, `python -m stdlib.NAME [--smoke]`. They use the public API of `ppl` only.
"""
