from contextlib import closing
from pathlib import Path

import pytest

from dambench.cli.app import run_cli
from dambench.store.runs import Store
from dambench.tui.models.queueing import queue, wishes_of_form


def test_what_is_queued_before_its_data_are_prepared_is_not_queued_twice(tmp_path: Path) -> None:
    form = {"method": "dm", "dataset": "mnist", "ipc": "1", "seeds": "0-1"}
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        first = queue(store, wishes_of_form(form), "")
        again = queue(store, wishes_of_form(form | {"seeds": "1-2"}), "")
        other = queue(store, wishes_of_form(form | {"ipc": "2"}), "")
    assert (len(first.new), len(again.new), len(other.new)) == (2, 1, 2)
    assert [one.id for one in again.there] == [first.new[1].id]
    assert len({one.key for one in (*first.new, *again.new, *other.new)}) == 5


def test_what_was_queued_before_its_data_are_prepared_is_known_again_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = {"method": "random", "dataset": "digits", "ipc": "1", "seeds": "0-1"}
    path = tmp_path / "runs.db"
    with closing(Store.open(path, write=True)) as store:
        first = queue(store, wishes_of_form(form), "").new
    words = ["--method", "random", "--dataset", "digits", "--ipc", "1", "--eval-repeats", "5", "--seeds", "1-2"]
    assert run_cli(["queue", "add", *words, "--db", str(path)]) == 0
    assert "1 run queued, 1 were there already" in capsys.readouterr().err
    with closing(Store.open(path, write=True)) as store:
        known = wishes_of_form(form, {"seeds": [0, 1], "config_sha256": ["a", "b"], "data": {"sha256": "c"}})
        for wishes in (known, wishes_of_form(form)):
            again = queue(store, wishes, "")
            assert not again.new
            assert sorted(one.id for one in again.there) == sorted(one.id for one in first)
