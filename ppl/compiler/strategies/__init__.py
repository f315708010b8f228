"""Gradient strategies: what to do with a random choice. One small file each, in one table."""

from ppl.compiler.strategies.antithetic import Arm as Arm
from ppl.compiler.strategies.antithetic import Arms as Arms
from ppl.compiler.strategies.antithetic import DisArm as DisArm
from ppl.compiler.strategies.base import Strategy as Strategy
from ppl.compiler.strategies.base import resolve as resolve
from ppl.compiler.strategies.base import strategies as strategies
from ppl.compiler.strategies.dropped import Dropped as Dropped
from ppl.compiler.strategies.enumerate import Enumerate as Enumerate
from ppl.compiler.strategies.gumbel_softmax import GumbelSoftmax as GumbelSoftmax
from ppl.compiler.strategies.gumbel_softmax import StraightThrough as StraightThrough
from ppl.compiler.strategies.local import Local as Local
from ppl.compiler.strategies.mvd import MeasureValued as MeasureValued
from ppl.compiler.strategies.rebar import Rebar as Rebar
from ppl.compiler.strategies.rejection import Rejection as Rejection
from ppl.compiler.strategies.reparam import Reparam as Reparam
from ppl.compiler.strategies.score import Lax as Lax
from ppl.compiler.strategies.score import Relax as Relax
from ppl.compiler.strategies.score import Score as Score
from ppl.compiler.strategies.spa import Spa as Spa
from ppl.compiler.strategies.without_replacement import SumAndSample as SumAndSample
from ppl.compiler.strategies.without_replacement import UnorderedSet as UnorderedSet
