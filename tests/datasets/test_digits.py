from dambench import datasets
from dambench.core.config import Choice


def test_the_split_is_fixed_for_all_times() -> None:
    """Scores are comparable only on the same test images."""
    card = datasets.prepare(Choice("digits"), None)
    assert sum(card.train_counts) == 1347
    assert sum(card.test_counts) == 450
    assert max(card.test_counts) - min(card.test_counts) <= 3
    assert card.sha256 == "f470f69c8c3166dde5a9d9725343c13b02c56c1ef173c909d9ecf3ff8e78e693"
    assert not card.mirrors
