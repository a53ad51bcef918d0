"""Matching by mean features."""

from torch import Tensor


def mean_feature_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """How far the class means of two sets of features are apart: Σ_c ‖mean(real_c) − mean(synthetic_c)‖².

    DM (WACV 2023), the matching loss: the squared difference is summed over features and over classes.

    Args:
        real: (classes, n, features); synthetic: (classes, m, features).

    Returns:
        A scalar.
    """
    return (real.mean(1) - synthetic.mean(1)).square().sum()
