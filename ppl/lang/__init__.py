"""The language: distributions, programs, combinators, and how objectives use them.

Start with `program` (`gen`) and `distribution`; `primitives` is what they stage to, and `staged`
is the form that the compiler works on.
"""

from pathlib import Path

import genjax

from ppl import _compat
from ppl.lang import supports as supports
from ppl.lang.bind_params import bind_params as bind_params
from ppl.lang.branch import cond as cond
from ppl.lang.branch import switch as switch
from ppl.lang.check_guide import check_guide as check_guide
from ppl.lang.condition import condition as condition
from ppl.lang.continuous import assume_continuous as assume_continuous
from ppl.lang.density import density as density
from ppl.lang.density import sim as sim
from ppl.lang.distribution import Distribution as Distribution
from ppl.lang.distributions import bernoulli as bernoulli
from ppl.lang.distributions import beta as beta
from ppl.lang.distributions import binomial as binomial
from ppl.lang.distributions import categorical as categorical
from ppl.lang.distributions import cauchy as cauchy
from ppl.lang.distributions import chi2 as chi2
from ppl.lang.distributions import delta as delta
from ppl.lang.distributions import dirichlet as dirichlet
from ppl.lang.distributions import exponential as exponential
from ppl.lang.distributions import flip as flip
from ppl.lang.distributions import from_tfp as from_tfp
from ppl.lang.distributions import gamma as gamma
from ppl.lang.distributions import geometric as geometric
from ppl.lang.distributions import gumbel as gumbel
from ppl.lang.distributions import half_cauchy as half_cauchy
from ppl.lang.distributions import half_normal as half_normal
from ppl.lang.distributions import inverse_gamma as inverse_gamma
from ppl.lang.distributions import inverse_wishart as inverse_wishart
from ppl.lang.distributions import laplace as laplace
from ppl.lang.distributions import lkj_cholesky as lkj_cholesky
from ppl.lang.distributions import log_normal as log_normal
from ppl.lang.distributions import logistic as logistic
from ppl.lang.distributions import mixture_same_family as mixture_same_family
from ppl.lang.distributions import multinomial as multinomial
from ppl.lang.distributions import multivariate_normal as multivariate_normal
from ppl.lang.distributions import multivariate_normal_diag as multivariate_normal_diag
from ppl.lang.distributions import multivariate_normal_tri as multivariate_normal_tri
from ppl.lang.distributions import negative_binomial as negative_binomial
from ppl.lang.distributions import normal as normal
from ppl.lang.distributions import one_hot_categorical as one_hot_categorical
from ppl.lang.distributions import poisson as poisson
from ppl.lang.distributions import pushforward as pushforward
from ppl.lang.distributions import student_t as student_t
from ppl.lang.distributions import uniform as uniform
from ppl.lang.distributions import von_mises as von_mises
from ppl.lang.distributions import weibull as weibull
from ppl.lang.distributions import wishart as wishart
from ppl.lang.distributions import zipf as zipf
from ppl.lang.expectation import E as E
from ppl.lang.factor import factor as factor
from ppl.lang.fixed_point import FixedPoint as FixedPoint
from ppl.lang.fixed_point import fixed_point as fixed_point
from ppl.lang.frozen import frozen as frozen
from ppl.lang.inference import Inference as Inference
from ppl.lang.inference import Target as Target
from ppl.lang.inference import importance as importance
from ppl.lang.inference import sir as sir
from ppl.lang.inference import smc as smc
from ppl.lang.inline import inline as inline
from ppl.lang.iteration import Anderson as Anderson
from ppl.lang.iteration import Plain as Plain
from ppl.lang.loop import scan as scan
from ppl.lang.marginal import marginal as marginal
from ppl.lang.mask import mask as mask
from ppl.lang.normalize import normalize as normalize
from ppl.lang.observed import masked as masked
from ppl.lang.observed import merge_choices as merge_choices
from ppl.lang.param import param as param
from ppl.lang.plate import plate as plate
from ppl.lang.program import Program as Program
from ppl.lang.program import gen as gen
from ppl.lang.require import require as require
from ppl.lang.seed import seed as seed
from ppl.lang.supports import boolean as boolean
from ppl.lang.supports import correlation_cholesky as correlation_cholesky
from ppl.lang.supports import greater_than as greater_than
from ppl.lang.supports import integer_interval as integer_interval
from ppl.lang.supports import interval as interval
from ppl.lang.supports import lower_cholesky as lower_cholesky
from ppl.lang.supports import nonnegative as nonnegative
from ppl.lang.supports import nonnegative_integer as nonnegative_integer
from ppl.lang.supports import ordered as ordered
from ppl.lang.supports import positive as positive
from ppl.lang.supports import positive_definite as positive_definite
from ppl.lang.supports import real as real
from ppl.lang.supports import real_matrix as real_matrix
from ppl.lang.supports import real_vector as real_vector
from ppl.lang.supports import simplex as simplex
from ppl.lang.supports import unit_interval as unit_interval
from ppl.lang.trace_type import TraceType as TraceType
from ppl.lang.trace_type import trace_type as trace_type

# Source lines in errors are the user's: not ours, and not those of what stands between.
for _path in (Path(__file__).parent.parent, Path(genjax.__file__).parent):
    _compat.hide_frames_of(f"{_path}/")
_compat.hide_frames_of("<@beartype")
