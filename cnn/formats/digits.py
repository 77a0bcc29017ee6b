"""The digits that scikit-learn ships."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from cnn.data import Data, build_data


def read_digits() -> Data:
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # the source counts 0 to 16
    labels = digits.target.astype(np.int64)
    test = np.arange(len(images)) % 5 == 4
    return build_data("digits", images[~test], labels[~test], images[test], labels[test])
