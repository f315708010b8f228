"""The distributions of the language, one file for each family or tight group.

`lkj_cholesky`, `mixture_same_family`, `pushforward` and `from_tfp` make distributions; the
others are distributions. GenJAX's own are converted to these (`genjax_stock`).
"""

from ppl.lang.distribution import Distribution
from ppl.lang.distributions import genjax_stock
from ppl.lang.distributions.bernoulli import bernoulli as bernoulli
from ppl.lang.distributions.beta import beta as beta
from ppl.lang.distributions.binomial import binomial as binomial
from ppl.lang.distributions.categorical import categorical as categorical
from ppl.lang.distributions.categorical import one_hot_categorical as one_hot_categorical
from ppl.lang.distributions.cauchy import cauchy as cauchy
from ppl.lang.distributions.cauchy import half_cauchy as half_cauchy
from ppl.lang.distributions.delta import delta as delta
from ppl.lang.distributions.dirichlet import dirichlet as dirichlet
from ppl.lang.distributions.exponential import exponential as exponential
from ppl.lang.distributions.flip import flip as flip
from ppl.lang.distributions.from_tfp import from_tfp as from_tfp
from ppl.lang.distributions.gamma import chi2 as chi2
from ppl.lang.distributions.gamma import gamma as gamma
from ppl.lang.distributions.gamma import inverse_gamma as inverse_gamma
from ppl.lang.distributions.geometric import geometric as geometric
from ppl.lang.distributions.gumbel import gumbel as gumbel
from ppl.lang.distributions.half_normal import half_normal as half_normal
from ppl.lang.distributions.laplace import laplace as laplace
from ppl.lang.distributions.lkj import lkj_cholesky as lkj_cholesky
from ppl.lang.distributions.log_normal import log_normal as log_normal
from ppl.lang.distributions.logistic import logistic as logistic
from ppl.lang.distributions.mixture import mixture_same_family as mixture_same_family
from ppl.lang.distributions.multinomial import multinomial as multinomial
from ppl.lang.distributions.multivariate_normal import multivariate_normal as multivariate_normal
from ppl.lang.distributions.multivariate_normal import (
    multivariate_normal_diag as multivariate_normal_diag,
)
from ppl.lang.distributions.multivariate_normal import (
    multivariate_normal_tri as multivariate_normal_tri,
)
from ppl.lang.distributions.negative_binomial import negative_binomial as negative_binomial
from ppl.lang.distributions.normal import normal as normal
from ppl.lang.distributions.poisson import poisson as poisson
from ppl.lang.distributions.pushforward import pushforward as pushforward
from ppl.lang.distributions.student_t import student_t as student_t
from ppl.lang.distributions.uniform import uniform as uniform
from ppl.lang.distributions.von_mises import von_mises as von_mises
from ppl.lang.distributions.weibull import weibull as weibull
from ppl.lang.distributions.wishart import inverse_wishart as inverse_wishart
from ppl.lang.distributions.wishart import wishart as wishart
from ppl.lang.distributions.zipf import zipf as zipf

ALL: tuple[Distribution, ...] = (
    normal,
    log_normal,
    half_normal,
    student_t,
    laplace,
    cauchy,
    half_cauchy,
    logistic,
    gumbel,
    uniform,
    beta,
    gamma,
    inverse_gamma,
    chi2,
    exponential,
    weibull,
    von_mises,
    dirichlet,
    multivariate_normal,
    multivariate_normal_diag,
    multivariate_normal_tri,
    wishart,
    inverse_wishart,
    delta,
    flip,
    bernoulli,
    categorical,
    one_hot_categorical,
    binomial,
    multinomial,
    poisson,
    geometric,
    negative_binomial,
    zipf,
)
"""Every distribution with a fixed family."""

genjax_stock.register(ALL)
