"""The bundled digits."""

from __future__ import annotations

import numpy as np
from sklearn import datasets

from stdlib.digits import load_digits


def test_they_are_scikit_learn_s():
    images, labels = load_digits()
    theirs, targets = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(images.reshape(-1, 64), theirs)
    np.testing.assert_array_equal(labels, targets)
