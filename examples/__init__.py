"""Runnable examples: `python -m examples` runs the main ones, `python -m examples.NAME` one.

Read `robust_regression` first: a model, a guide and a fit on one page. `eight_schools` has no guide
of its own, and `vae_digits` has networks as parameters. `programmable_vi` has the experiments of a
paper, with a README of its own.
"""
