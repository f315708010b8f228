"""NIW-Meta: few-shot learning by a hierarchical Bayesian model (Kim and Hospedales, ICLR 2024).

`programs` is the model, guide and objective; `niw` the laws in formulae; `tasks`, `networks`,
`learners` and `scores` are what `linear` (E1), `sines` (E2), `digits` (E3) and `cost` share.
"""

from stdlib.niw_meta.programs import NIW as NIW
from stdlib.niw_meta.programs import bound as bound
from stdlib.niw_meta.programs import full_covariance as full_covariance
from stdlib.niw_meta.programs import independent as independent
from stdlib.niw_meta.programs import maml as maml
from stdlib.niw_meta.programs import new_task as new_task
