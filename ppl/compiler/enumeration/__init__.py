"""Exact inference over discrete choices: `by=enumeration()`.

A program's forward run is staged, all log-weights in it are tabulated over the values of the
choices that they depend on (`tabulate`), and the choices are summed out one after the other, in
logarithms, along plates and Markov chains (`eliminate`). The compiler's own analysis says what
depends on what. The result is ordinary code, which may stand in any program.
"""

from ppl.compiler.enumeration.algorithm import enumeration as enumeration
