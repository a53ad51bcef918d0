"""The bytes of all that a set needs, by hand."""

import pytest
import torch
from msgspec.structs import replace

from dambench.core import files
from dambench.core.events import AnyEvent, Snapshot
from dambench.engine.sets import bytes_of
from dambench.store.runs import Store
from dambench.store.set_bytes import set_bytes
from dambench.training.problem import Normalisation, SyntheticSet, Teacher, Whitening
from tests.ledger import CARD, config, words

NORMALISATION = Normalisation((0.5,), (0.25,))
FLOATS = torch.zeros(2, 1, 8, 8)
HARD = torch.tensor([0, 1])


def a_whitening() -> Whitening:
    content = Whitening.fit(
        torch.randint(256, (70, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    )
    path = files.home() / "whitening"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Whitening.read(path)


def test_images_labels_rates_and_whitenings_count_as_they_are_stored() -> None:
    hard = SyntheticSet(FLOATS, HARD, NORMALISATION, ("0", "1"))
    assert bytes_of(hard) == {"images": 2 * 64 * 4, "labels": 2 * 8}
    pixels = SyntheticSet(FLOATS.to(torch.uint8), HARD, NORMALISATION, ("0", "1"))
    assert bytes_of(pixels) == {"images": 2 * 64, "labels": 2 * 8}
    soft = SyntheticSet(FLOATS, torch.zeros(2, 2), NORMALISATION, ("0", "1"), lr=0.02)
    assert bytes_of(soft) == {"images": 2 * 64 * 4, "soft labels": 2 * 2 * 4, "learning rate": 4}


def test_a_whitening_is_its_mean_and_its_matrix() -> None:
    white = SyntheticSet(FLOATS, HARD, a_whitening(), ("0", "1"))
    assert bytes_of(white)["whitening"] == 4 * (64 + 64 * 64)


def test_a_teacher_is_its_file_and_without_it_nothing_is_known(store: Store) -> None:
    taught = SyntheticSet(FLOATS, HARD, NORMALISATION, ("0", "1"), teacher=Teacher("mlp", "b" * 64))
    assert bytes_of(taught) == {}
    content = taught.to_bytes()
    sha256 = files.digest(content)
    recorded(store, sha256, {})
    for path, data in ((files.set_path(sha256), content), (files.teacher_path("b" * 64), b"x" * 33)):
        assert set_bytes(store.query) == {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert set_bytes(store.query)[sha256].parts == bytes_of(taught) == {"images": 512, "labels": 16, "teacher": 33}


def recorded(store: Store, sha256: str, parts: dict[str, int]) -> str:
    run = store.create(config(), CARD)
    events: list[AnyEvent] = [
        replace(event, sha256=sha256, parts=parts) if isinstance(event, Snapshot) else event
        for event in words(config())
    ]
    list(store.record(run, events))
    return run


def test_the_share_of_the_real_set_counts_its_images_and_labels(store: Store) -> None:
    sha256 = "a" * 64
    run = recorded(store, sha256, {"images": 512, "soft labels": 16, "learning rate": 4})
    known = set_bytes(store.query)[sha256]
    # 10 images of 64 pixels, a byte each, and a label of 8 bytes each.
    assert (known.total, known.real, known.ratio) == (532, 720, 532 / 720)
    assert known.carries == ("soft labels", "learning rate")
    (made,) = store.describe(run)["sets"]
    assert made["needed_bytes"] == 532
    assert made["needs"] == "532 B, 73.9 % of the real set: images 512 B, soft labels 16 B, learning rate 4 B"


def test_of_an_older_run_the_file_is_looked_at_and_without_it_nothing_is_known(store: Store) -> None:
    soft = SyntheticSet(FLOATS, torch.zeros(2, 2), a_whitening(), ("0", "1"), lr=0.02)
    content = soft.to_bytes()
    sha256 = files.digest(content)
    recorded(store, sha256, {})
    assert set_bytes(store.query) == {}
    path = files.set_path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert set_bytes(store.query, [sha256])[sha256].parts == bytes_of(soft)
    for broken in (b"", content[:40], b"\xff" * 100, content[:8] + b"[" * 1000):
        path.write_bytes(broken)
        assert set_bytes(store.query) == {}


def test_the_whole_set_is_all_of_itself(store: Store) -> None:
    recorded(store, CARD.sha256, {})
    assert set_bytes(store.query)[CARD.sha256].ratio == 1


@pytest.mark.parametrize("stored", ["[1]", "no JSON", '{"images": -5}', '{"images": "many"}', "[" * 9999])
def test_what_a_database_from_elsewhere_says_is_not_believed(store: Store, stored: str) -> None:
    recorded(store, "a" * 64, {"images": 5})
    store.db.conn.execute("update artifacts set parts = ?", [stored])
    assert set_bytes(store.query) == {}
