import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from dambench.cli.app import run_cli
from dambench.core.events import AnyEvent, Measured, Metric, Real, Started
from dambench.core.half_blocks import tiles
from dambench.runner import processes
from dambench.store.runs import Store
from tests.cli.lab import DM, printed
from tests.ledger import CARD, add, config, failed, words
from tests.report.test_measured import measure


def test_runs_lists_the_newest_first_with_mean_accuracy(ledger_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "runs")
    assert [row["method"] for row in found] == ["whole", "random", "dm"]
    assert found[2]["accuracy"] == pytest.approx(0.91)
    assert run_cli(["runs"]) == 0
    assert "91.00 %" in capsys.readouterr().out


def test_runs_lists_the_newest_and_all_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dambench.cli.runs.NEWEST", 3)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        made = [store.create(config("dm", seed=seed), CARD) for seed in range(3)]
        assert [row["id"] for row in printed(capsys, "runs")] == made[::-1]
        made.append(add(store, config("dm", seed=3), [0.5, 0.75]))
    assert run_cli(["runs", "--json"]) == 0
    shown = capsys.readouterr()
    assert [(row["id"], row["n"]) for row in json.loads(shown.out)] == [(made[3], 2), (made[2], 0), (made[1], 0)]
    assert "The newest 3; --all lists" in shown.err
    assert [row["id"] for row in printed(capsys, "runs", "--all")] == made[::-1]


def test_what_is_deleted_is_in_the_trash_until_it_is_restored_or_purged(
    ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (row["id"] for row in printed(capsys, "runs"))
    assert run_cli(["delete", first, second]) == 0
    assert [row["id"] for row in printed(capsys, "runs")] == [third]
    assert [row["id"] for row in printed(capsys, "runs", "--deleted")] == [first, second]
    assert run_cli(["show", first]) == 0
    assert "in the trash since" in capsys.readouterr().out
    assert run_cli(["restore", first]) == 0
    assert len(printed(capsys, "runs")) == 2
    assert printed(capsys, "db", "purge", "--dry-run")["runs"] == [second]
    assert printed(capsys, "runs", "--deleted")
    assert printed(capsys, "db", "purge")["runs"] == [second]
    assert printed(capsys, "runs", "--deleted") == []
    assert run_cli(["show", second]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["delete", "HALTED", "zzzzzz"], "No run has the id 'zzzzzz'"),
        (["delete", "HALTED", "ALIVE"], "goes on: `dambench stop"),
        (["delete", "GONE"], "is in the trash already"),
        (["restore", "HALTED"], "is not in the trash"),
        (["resume", "GONE"], "is in the trash: `dambench restore"),
    ],
)
def test_what_cannot_be_deleted_or_restored_changes_nothing(
    command: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        ids = {"HALTED": add(store, config("dm"), end=failed()), "GONE": add(store, config("dm"), end=failed())}
        ids["ALIVE"] = store.create(config("dm", seed=1), CARD, process=processes.this_process())
        store.delete(ids["GONE"])
        before = store.query("select id, deleted_at from runs")
        assert run_cli([ids.get(word, word) for word in command]) == 2
        assert said in capsys.readouterr().err
        assert store.query("select id, deleted_at from runs") == before


def test_a_lost_run_can_be_deleted(tmp_path: Path) -> None:
    lost = replace(processes.this_process(), started=1)
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run_id = store.create(config("dm"), CARD, process=lost)
        assert run_cli(["delete", run_id]) == 0
        assert store.run(run_id).deleted_at


def test_hostile_names_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]52;c;aGk=\x07[red]x[/] \u202e\x9b31m"
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run_id = store.create(config(), CARD, name=hostile, tags=[hostile])
        # Even where something else wrote them into the database.
        store.db.conn.execute("update runs set name = ?, dataset = ?, error = ?", [hostile] * 3)
    for command in (["runs"], ["show", run_id], ["report"]):
        assert run_cli(command) == 0
        out = capsys.readouterr().out
        assert not set("\x1b\x07\x9b\u202e") & set(out)
    assert run_cli(["show", hostile]) == 2
    assert not set("\x1b\x07\x9b\u202e") & set(capsys.readouterr().err)


def test_a_set_that_is_not_on_this_machine_is_said_to_be_missing(
    ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, "runs")
    for facts in (found[0], printed(capsys, "show", found[0]["id"])["run"]):
        assert not {"number", "age"} & {*facts}  # they are the database's own
    assert run_cli(["show", found[0]["id"]]) == 0
    assert "its tensors are not on this machine" in capsys.readouterr().out


def test_a_set_that_is_not_on_this_machine_is_shown_by_its_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = printed(capsys, *DM)["run"]
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "another machine"))
    assert run_cli(["show", run, "--preview", str(tmp_path / "set.png")]) == 0
    assert "its tensors are not on this machine" in capsys.readouterr().out
    with Image.open(tmp_path / "set.png") as picture:
        assert picture.size == (9, 90)
    for wrong in ([run, "--preview", str(tmp_path / "no" / "set.png")], ["none", "--preview", "set.png"]):
        assert run_cli(["show", *wrong]) == 2
    assert not (tmp_path / "no").exists()


def test_a_note_that_is_replaced_is_told_and_one_that_is_too_long_is_not_cut(
    ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(ledger_path)) as store:
        run = store.newest(1)[0].id
    assert [run_cli(["note", run, text]) for text in ("first", "second", "x" * 2001)] == [0, 0, 2]
    assert capsys.readouterr().err == (
        "Replaced: first\ndambench: The note has 2001 characters: it can have 2000 at most.\n"
    )
    with closing(Store.open(ledger_path)) as store:
        assert store.run(run).note == "second"


def test_a_run_without_a_set_has_no_preview(ledger_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(ledger_path, write=True)) as store:
        run = store.create(config("dm", seed=77), CARD)
    assert run_cli(["show", run]) == 0
    assert run_cli(["show", run, "--preview", "set.png"]) == 2
    assert "no set yet" in capsys.readouterr().err


def test_show_prints_the_accuracy_of_each_class_and_of_many_the_lowest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count, seed in ((3, 0), (25, 1)):
        with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
            run = store.create(config(seed=seed), CARD)
            metrics = {f"class_{n:02}": Metric(description="of one class") for n in range(count)}
            events: list[AnyEvent] = []
            for event in words(config(seed=seed)):
                if isinstance(event, Started):
                    event = replace(event, metrics={"accuracy": metrics})
                if isinstance(event, Measured):
                    of_classes: dict[str, Real] = {name: 1 - n / 100 for n, name in enumerate(metrics)}
                    event = replace(event, values=event.values | of_classes)
                events.append(event)
            list(store.record(run, events))
        capsys.readouterr()
        assert run_cli(["show", run]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" class_")]
        if count == 3:
            assert lines == [["class_00", "100.00", "%"], ["class_01", "99.00", "%"], ["class_02", "98.00", "%"]]
        else:
            assert [line[0] for line in lines] == [f"class_{n:02}" for n in range(24, 4, -1)]
        assert {row["metric"] for row in printed(capsys, "show", run)["measurements"]} == set(metrics)


def test_a_run_in_full_has_the_spread_within_its_set_and_says_that_it_is_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run = add(store, config("dm"), [0.5, 0.52, 0.54])
        single = add(store, config("random"), [0.5])
    assert run_cli(["show", run]) == 0
    printed = capsys.readouterr().out
    assert "mean 52.00 %, standard deviation 2.00 % within this set; between sets it takes other seeds" in printed
    assert run_cli(["show", single]) == 0
    assert "standard deviation" not in capsys.readouterr().out


def test_show_names_the_other_runs_that_measured_its_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        own = add(store, config("dm"))
        alone = add(store, config("dm", seed=1))
        attacked = measure(store, config("dm"), "robustness", {("convnet", 0): {"clean": 0.9}})
    assert run_cli(["show", own]) == 0
    assert f"\nIts set was also measured by {attacked} (robustness).\n" in capsys.readouterr().out
    assert printed(capsys, "show", attacked)["measured_elsewhere"] == [{"run": own, "evaluator": "accuracy"}]
    assert printed(capsys, "show", alone)["measured_elsewhere"] == []
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        store.delete(attacked)
    assert printed(capsys, "show", own)["measured_elsewhere"] == []


def test_show_tells_what_changed_since_the_nearest_earlier_run_or_since_one_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        first, second = (add(store, config("dm", seed=seed), [0.5, 0.75 + seed / 10]) for seed in range(2))
        other = add(store, config("random"))
    assert run_cli(["show", second]) == 0
    assert f"What changed since {first}, the nearest earlier run:\n  settings  seed  0 → 1\n" in capsys.readouterr().out
    assert printed(capsys, "show", second)["changes"]["before"] == first
    assert printed(capsys, "show", second, "--against", other)["changes"]["before"] == other
    assert printed(capsys, "show", first)["changes"] is None
    assert run_cli(["show", second, "--against", "zzzzzz"]) == 2
    assert "No run has the id 'zzzzzz'" in capsys.readouterr().err


def test_show_writes_the_nearest_real_images_as_a_picture(
    ledger_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = printed(capsys, "runs")[0]["id"]
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr("dambench.cli.figure.columns_of_pairs", lambda store, row: {"nearest by pixels": images})
    file = tmp_path / "nearest.png"
    assert run_cli(["show", run, "--nearest", str(file)]) == 0
    assert (tiles(file.read_bytes(), 8, 8)[:, :, :-1, :-1] == images).all()
    assert run_cli(["show", run, "--nearest", str(tmp_path / "nearest.txt")]) == 2
    assert ".png" in capsys.readouterr().err
