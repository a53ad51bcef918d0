"""Sets that are made anew from random halves of the training images, for an evaluator that needs them."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.cli.figure import columns_of_pairs
from dambench.core.config import RunConfig
from dambench.store.runs import Store
from tests.cli.lab import SMALL, killed_after, printed

MEASURED = {"seconds": 0, "peak_memory_bytes": 0}
PRIVACY = ["--evaluator", "privacy", "--set", "evaluator.halves=4"]


def rows(path: Path) -> list[Any]:
    with closing(Store.open(path)) as store:
        return list(
            store.query(
                "select id, seed, purpose, config, set_sha256, "
                "(select group_concat(tag) from tags where tags.run = runs.number) as tags from runs order by number"
            )
        )


def test_sets_of_halves_are_runs_that_are_made_once_and_are_in_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.db"
    made = printed(capsys, *SMALL, "--method", "dm")
    before = path.read_bytes()
    said = printed(capsys, "evaluate", made["run"], *PRIVACY, "--dry-run")
    assert path.read_bytes() == before
    assert (said["items"], said["kinds"]["LiRA"]) == (2 + 1 + 4 + 1, 1)
    assert 0 < said["halves_seconds"] < said["total_seconds"]
    first = printed(capsys, "evaluate", made["run"], *PRIVACY)
    written = rows(path)
    halves = written[1:5]
    assert [(row["purpose"], row["tags"]) for row in halves] == [("tuning", "half")] * 4
    configs = [msgspec.json.decode(row["config"], type=RunConfig) for row in halves]
    assert len({config.held_out.sha256 for config in configs if config.held_out}) == 4
    assert len({config.seed for config in configs}) == len({row["set_sha256"] for row in halves}) == 4
    assert {config.held_out.of_each_class for config in configs if config.held_out} == {65}
    assert all(config.method == configs[0].method and config.eval_repeats == 1 for config in configs)
    subjects = [score["network"] for score in first["scores"]]
    assert subjects == ["convnet-d1-w4"] * 2 + ["neighbours"] + ["convnet-d1-w4 halves"] * 4 + ["convnet-d1-w4 LiRA"]
    assert first["scores"][3]["members"] == 1347 - 650
    assert first["scores"][-1]["attacked"] == 4
    # Asked again, it is on record; measured again, the halves are.
    assert printed(capsys, "evaluate", made["run"], *PRIVACY)["run"] == first["run"]
    again = printed(capsys, "evaluate", made["run"], *PRIVACY, "--again")
    assert len(rows(path)) == len(written) + 1
    for score, other in zip(first["scores"], again["scores"], strict=True):
        assert {**score, **MEASURED} == {**other, **MEASURED}
    # A filter means those of halves only where it says so.
    capsys.readouterr()
    rounds = ["evaluate", "method:dm", "--evaluator", "time", "--dry-run", "--json"]
    assert run_cli(rounds) == 0
    answered = capsys.readouterr()
    assert len(answered.out.splitlines()) == 1
    assert "4 runs left alone. The first: The run" in answered.err
    assert run_cli(["evaluate", "purpose:tuning", *rounds[2:]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run_cli(["report", "--format", "json"]) == 0
    shown = capsys.readouterr().out
    assert made["run"] in shown
    assert not any(row["id"] in shown for row in halves)
    # What only some of its items have, others do not lack.
    assert run_cli(["report", "--metric", "privacy.nearer_pixels", "--short"]) == 0
    shown = capsys.readouterr().out
    assert "Nearest is one of its own, pixels in %" in shown
    assert "adds it" not in shown


def test_the_run_of_a_half_that_was_killed_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = printed(capsys, *SMALL, "--method", "dm")
    with killed_after(2):
        run_cli(["evaluate", made["run"], *PRIVACY])
    before = [row["id"] for row in rows(tmp_path / "runs.db")]
    monkeypatch.setattr("dambench.runner.processes._started", lambda pid: 0)
    assert run_cli(["evaluate", made["run"], *PRIVACY]) == 0
    after = rows(tmp_path / "runs.db")
    assert [row["id"] for row in after][: len(before)] == before
    assert len(after) == 1 + 4 + 1, "four halves in all"
    assert all(row["set_sha256"] for row in after)


def test_a_sheet_of_pairs_shows_real_images_beside_those_of_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = printed(capsys, *SMALL[:-4], "--method", "random")
    target = tmp_path / "pairs.svg"
    assert run_cli(["figure", "pairs", made["run"], "-o", str(target)]) == 0
    said = capsys.readouterr().err
    assert "a row per class: synthetic, started from, nearest by pixels, nearest by features, made without" in said
    assert target.read_text().startswith("<?xml")
    with closing(Store.open(tmp_path / "runs.db")) as store:
        columns = columns_of_pairs(store, store.run(made["run"]))
    for label in ("synthetic", "started from", "nearest by features"):
        assert (columns[label] == columns["nearest by pixels"]).all(), label
    assert columns["synthetic"].shape == columns["made without, nearest by pixels"].shape == (10, 1, 8, 8, 3)
    whole = printed(capsys, *SMALL[:-4], "--method", "whole")
    assert run_cli(["figure", "pairs", whole["run"], "-o", str(target)]) == 2
    assert "The set is all real images, each its own neighbour" in capsys.readouterr().err


def test_sets_that_cannot_be_made_anew_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, *SMALL[:-4], "--method", "random", "--ipc", "70")
    assert run_cli(["evaluate", made["run"], *PRIVACY]) == 0
    said = capsys.readouterr().err
    assert re.search("random takes 70 images per class, and half of class '.' of digits are 6[56]", said)
    assert len(rows(tmp_path / "runs.db")) == 2
