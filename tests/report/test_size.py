"""Bytes of sets, energy and hard-label twins in reports."""

from msgspec.structs import replace

from dambench.core.events import AnyEvent, Finished, Snapshot
from dambench.core.protocol import PRESETS
from dambench.report import sections, wording
from dambench.report.quantities import QUANTITIES, TableView
from dambench.report.sections import cost, size
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.runs import Store
from tests.ledger import CARD, config, words

SOFT = {"images": 512, "soft labels": 16, "learning rate": 4}


def board(store: Store) -> Leaderboard:
    return leaderboard(store, ("method",), ("dataset", "ipc"))


def record(store: Store, protocol: str, parts: dict[str, int], joules: float | None = None, **made: bool) -> str:
    run_config = config(protocol=PRESETS[protocol])
    run = store.create(run_config, CARD)
    events: list[AnyEvent] = []
    for event in words(run_config, made="the same"):
        if isinstance(event, Snapshot):
            event = replace(event, parts=parts)
        if isinstance(event, Finished):
            costs = [replace(each, joules=joules, shared=made.get("shared")) for each in event.costs]
            event = replace(event, costs=costs)
        events.append(event)
    list(store.record(run, events))
    return run


def test_the_bytes_of_sets_are_a_section_of_their_own(store: Store) -> None:
    record(store, "datm-pad", SOFT)
    (part,) = size.SECTION.parts(board(store), ["method"], ["dataset", "ipc"])
    (line,) = part.lines
    assert [part.head[0], line[0]] == ["method", "dm"]
    shown = dict(zip(part.head[1:], (entry.number for entry in line[1]), strict=True))
    assert shown == {
        **{"dataset": "digits IPC 1", "in all": "532 B", "of the real set": "73.9 %", "images": "512 B"},
        **{"soft labels": "16 B", "learning rate": "4 B"},
    }
    (row,) = size.SECTION.records(board(store), ["method"], ["dataset", "ipc"]).dicts()
    assert (row["bytes"], row["real_bytes"], row["share"]) == (532, 720, 532 / 720)
    assert "size" in sections.usual()
    entry = _in_cell(board(store))
    assert (entry.number, entry.n) == ("532 B", "73.9 %")


def _in_cell(found: Leaderboard) -> wording.TableEntry:
    """What the first cell says of its bytes."""
    table = found.tables[0]
    return QUANTITIES["bytes"].entry(TableView(found, table, ("method",), ("dataset", "ipc")), next(iter(table.cells)))


def test_of_sets_from_before_nothing_is_made_up(store: Store) -> None:
    record(store, "quick", {})
    assert size.SECTION.parts(board(store), ["method"], ["dataset", "ipc"]) == []
    assert _in_cell(board(store)).number == wording.MISSING


def test_a_set_that_carries_more_than_its_protocol_uses_is_marked_and_explained(store: Store) -> None:
    record(store, "datm-pad", SOFT)
    record(store, "dsa-dm", SOFT)
    tables = {table.fixed["protocol"]: table for table in board(store).tables}
    marks = {
        str(protocol).partition("#")[0]: wording.TWIN in wording.entry(next(iter(table.cells.values()))).number
        for protocol, table in tables.items()
    }
    assert marks == {"datm-pad": False, "dsa-dm": True}
    notes = wording.signs(list(tables.values()), bold="Bold")
    assert any(note.startswith("¶: the set carries learning rate and soft labels that this protocol") for note in notes)
    assert not any("¶" in note for note in wording.signs([tables[PRESETS["datm-pad"].label]], bold="Bold"))


def test_energy_stands_beside_seconds_where_a_gpu_was_metered(store: Store) -> None:
    record(store, "quick", {}, joules=2500.0, shared=True)
    (part,) = cost.SECTION.parts(board(store), ["method"], ["dataset", "ipc"])
    entries = [entry.number for _, line in part.lines for entry in line]
    assert entries.count("2.5 kJ (shared)") == 2  # of distilling, and of the only network
    (row,) = cost.SECTION.records(board(store), ["method"], ["dataset", "ipc"]).dicts()
    assert (row["distil_joules"], row["evaluate_joules"], row["shared"]) == (2500.0, 2500.0, True)
    assert any(note.startswith("energy: of the GPU's whole board") for note in part.notes)


def test_without_a_meter_there_is_no_column_of_energy(store: Store) -> None:
    record(store, "quick", {})
    (part,) = cost.SECTION.parts(board(store), ["method"], ["dataset", "ipc"])
    assert "energy" not in part.head
