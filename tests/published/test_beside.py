"""Published figures beside measured ones: which belong to a cell, and what makes the two not comparable."""

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.config import Choice, RunConfig
from dambench.core.protocol import PRESETS
from dambench.published.beside import Comparable, beside, closest
from dambench.report.sections.published import line
from dambench.store.leaderboard import Leaderboard, leaderboard
from dambench.store.runs import Store
from tests.ledger import add, config, other_data

W128 = "convnet-d3-w128"
AS_PUBLISHED: dict[str, object] = {"iterations": 20_000, "batch_real": 256}


def run_on(
    dataset: str,
    method: str = "dm",
    ipc: int | None = 10,
    protocol: str = "dsa-dm",
    network: str = W128,
    options: dict[str, object] | None = None,
    seed: int = 0,
    evaluate_on: str = "",
) -> RunConfig:
    made = config(method, ipc, seed, PRESETS[protocol], network, options or {}, evaluate_on)
    return msgspec.structs.replace(made, dataset=Choice(dataset))


def measure(store: Store, run: RunConfig, accuracies: list[float]) -> None:
    add(store, run, accuracies, card=other_data("a", run.dataset.name))


def board_of(store: Store) -> Leaderboard:
    return leaderboard(store, ("method",), ("network", "ipc"))


def compared(store: Store) -> list[Comparable]:
    board = board_of(store)
    (cell,) = [cell for table in board.tables for cell in table.cells.values()]
    return beside(cell, {protocol.label: protocol for protocol in board.protocols})


def test_where_all_is_as_published_nothing_differs_but_the_number_of_networks(store: Store) -> None:
    measure(store, run_on("cifar10", options=AS_PUBLISHED), [0.48, 0.49])
    first = compared(store)[0]
    assert first.value.text == "48.9 ± 0.6"
    assert first.gap == pytest.approx(48.5 - 48.9)
    assert first.deviations == ()
    assert first.unstated == ()
    assert first.why == "nothing that is recorded differs; sets × networks 5×?, here 1×2"


def test_each_thing_that_was_not_the_same_is_named_with_both_values(store: Store) -> None:
    options: dict[str, object] = {"iterations": 200, "batch_real": 256}
    measure(store, run_on("cifar10", protocol="brief", network="convnet-d3-w64", options=options), [0.4] * 3)
    why = compared(store)[0].why
    assert f"protocol dsa-dm, here {PRESETS['brief'].label}" in why
    assert f"network {W128}, here convnet-d3-w64" in why
    assert f"matched on {W128}, here convnet-d3-w64" in why
    assert "iterations 20,000, here 200" in why
    assert "batch real" not in why


def test_soft_labels_the_best_test_and_zca_are_differences(store: Store) -> None:
    measure(store, run_on("cifar10", "datm", options={"iterations": 10_000}), [0.6] * 2)
    assert compared(store)[0].differs_in == "protocol, labels, selection, preprocessing"
    assert "labels soft, here hard" in compared(store)[0].why
    assert "selection best on the test set, here last epoch" in compared(store)[0].why


def test_a_subset_of_mosaics_is_no_plain_one(store: Store) -> None:
    measure(store, run_on("cifar10", "random", ipc=50, protocol="dc", options={"factor": 2}), [0.5])
    assert "factor 1, here 2" in compared(store)[0].why


def test_labels_of_a_teacher_are_soft(store: Store) -> None:
    measure(store, run_on("cifar10", protocol="soft", options=AS_PUBLISHED), [0.5])
    assert "labels hard, here soft" in compared(store)[0].why


def test_what_a_paper_does_not_state_is_no_agreement(store: Store) -> None:
    measure(store, run_on("mhist", "datadam", ipc=50), [0.6])
    first = compared(store)[0]
    assert (first.value.text, first.deviations) == ("62.0", ())
    assert first.differs_in == "protocol?, network?, labels?, selection?"
    assert first.why.startswith("cannot be called comparable, because it is not stated: protocol")


def test_of_two_figures_the_one_under_the_same_protocol_comes_first(store: Store) -> None:
    measure(store, run_on("cifar10", "random", ipc=50, protocol="dc"), [0.43])
    some = compared(store)
    assert [each.value.text for each in some[:2]] == ["43.4 ± 1.0", "50.6 ± 0.3"]
    assert len(closest(some, W128)) == 1


def test_the_methods_own_figure_comes_before_one_that_others_measured(store: Store) -> None:
    measure(store, run_on("cifar10", ipc=500, options=AS_PUBLISHED), [0.7])
    assert [each.value.text for each in compared(store)] == ["76.1 ± 0.3", "75.1 ± 0.3"]


def test_another_network_has_its_own_figures_or_none(store: Store) -> None:
    measure(store, run_on("cifar10", "mtt", ipc=50, evaluate_on="resnet18"), [0.6])
    assert {each.value.network for each in compared(store)} == {"resnet18"}
    assert 61.9 in {each.value.value for each in compared(store)}


def test_a_network_of_which_nothing_was_published_has_no_figure(store: Store) -> None:
    measure(store, run_on("cifar10", "dm", ipc=10, evaluate_on="mlp-d2-w128"), [0.3])
    assert compared(store) == []


def test_the_whole_set_stands_beside_the_whole_set(store: Store) -> None:
    measure(store, run_on("cifar10", "whole", ipc=None), [0.85])
    assert compared(store)[0].value.text == "84.8 ± 0.1"
    assert {each.value.ipc for each in compared(store)} == {None}


def test_a_users_folder_of_the_same_name_is_other_data(store: Store) -> None:
    run = msgspec.structs.replace(run_on("cifar10", options=AS_PUBLISHED), dataset=Choice("folder"))
    add(store, run, [0.48, 0.49], card=other_data("a", "cifar10"))
    assert compared(store) == []


def test_a_subset_of_imagenet_has_the_figures_of_its_name(store: Store) -> None:
    run = msgspec.structs.replace(run_on("cifar10", network="convnet-d5-w128"), dataset=Choice("imagenet"))
    add(store, run, [0.3, 0.3], card=other_data("a", "imagewoof"))
    assert compared(store)[0].value.text == "31.4"


def test_data_and_methods_of_which_nothing_was_published_have_no_figure(store: Store) -> None:
    add(store, config("dm"), [0.9])
    assert compared(store) == []
    assert line(board_of(store), next(iter(board_of(store).tables[0].cells.values()))) == ""


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(["report", "--sections", "published", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("form", [name for name in registry.names("formats") if name not in ("csv", "json")])
def test_a_report_shows_published_and_measured_with_gap_and_source(
    store: Store, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    measure(store, run_on("mnist"), [0.90, 0.92])
    add(store, config("random"), [0.5])
    text = report(capsys, "--format", form)
    for words in ("97.5", "-6.5", "recalled", "DM (Zhao and Bilen, WACV 2023)", "No published accuracy is known of"):
        assert words in text


def test_a_report_of_data_without_published_figures_has_no_such_section(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store, config("dm"), [0.9])
    assert "Published" not in report(capsys)


def test_json_and_csv_have_every_figure_and_say_which_is_closest(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(store, run_on("cifar10", ipc=500, options=AS_PUBLISHED), [0.7])
    own, rerun = json.loads(report(capsys, "--format", "json"))["published"]
    assert (own["published"], own["closest"], own["gap"]) == (pytest.approx(0.761), 1, pytest.approx(0.7 - 0.761))
    assert (rerun["published"], rerun["closest"], rerun["rerun"]) == (pytest.approx(0.751), 0, 1)
    assert rerun["not_stated"] == "protocol, labels, selection"
    lines = list(csv.DictReader(io.StringIO(report(capsys, "--format", "csv"))))
    assert [row["published_std"] for row in lines] == ["0.003", "0.003"]


def test_a_fault_in_the_users_figures_is_one_sentence(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(store, run_on("mnist"), [0.90, 0.92])
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path))
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "mine.toml").write_text('[[tables]]\nentries = [{method = "dm", ipc = 1, value = 9.0}]')
    assert run_cli(["report"]) == 2
    assert "dm at IPC 1, 9, is a number without a source" in capsys.readouterr().err
    board = board_of(store)
    assert "without a source" in line(board, next(iter(board.tables[0].cells.values())))
