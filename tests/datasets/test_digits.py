from dambench import datasets
from dambench.config import Choice


def test_the_split_is_fixed_for_all_times() -> None:
    """Scores are comparable only on the same test images."""
    card = datasets.prepare(Choice("digits"), None)
    assert sum(card.train_counts) == 1347
    assert sum(card.test_counts) == 450
    assert max(card.test_counts) - min(card.test_counts) <= 3
    assert card.sha256 == "9bb79bee8862f32b3ade714113920803c126fcc53655d2c2307b11dc55d45040"
    assert not card.mirrors
