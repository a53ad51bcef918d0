import pytest
import torch

from dambench.matching.features import mean_feature_distance
from tests.lab import noise


def test_the_distance_is_the_sum_over_classes_and_features_of_squared_differences_of_means() -> None:
    real, synthetic = noise(3, 5, 4), noise(3, 2, 4, seed=1)
    expected = 0.0
    for c in range(3):
        for feature in range(4):
            of_real = sum(real[c, image, feature].item() for image in range(5)) / 5
            of_synthetic = sum(synthetic[c, image, feature].item() for image in range(2)) / 2
            expected += (of_real - of_synthetic) ** 2
    distance = mean_feature_distance(real, synthetic)
    assert distance.shape == ()
    assert distance.item() == pytest.approx(expected, rel=1e-12)


def test_one_class_and_one_image_is_the_squared_distance() -> None:
    real, synthetic = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[4.0, 2.0, 7.0]]])
    assert mean_feature_distance(real, synthetic).item() == 25.0


def test_sets_with_equal_means_have_no_distance() -> None:
    real = noise(2, 6, 3)
    synthetic = real.mean(1, keepdim=True) + torch.tensor([-1.0, 1.0]).view(1, 2, 1)
    assert mean_feature_distance(real, synthetic).item() == pytest.approx(0, abs=1e-20)


def test_the_distance_of_several_classes_is_the_sum_of_their_distances() -> None:
    real, synthetic = noise(4, 3, 5), noise(4, 2, 5, seed=1)
    alone = [mean_feature_distance(real[c : c + 1], synthetic[c : c + 1]).item() for c in range(4)]
    assert mean_feature_distance(real, synthetic).item() == pytest.approx(sum(alone), rel=1e-12)


def test_the_gradient_is_right() -> None:
    real, synthetic = noise(2, 3, 4), noise(2, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda images: mean_feature_distance(real, images), synthetic)
