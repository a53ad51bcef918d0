from contextlib import closing
from pathlib import Path

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
