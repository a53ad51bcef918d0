import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.report.sections import SECTIONS
from dambench.store.runs import Store
from tests.ledger import add, config

LOW, HIGH = [0.60, 0.61, 0.62, 0.60, 0.61], [0.90, 0.91, 0.92, 0.90, 0.91]
PRINTED = ("markdown", "html", "latex")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add(store, config("random"), LOW)
        add(store, config("dm"), HIGH, recipe="the paper")
        add(store, config("whole"), [0.99] * 5)
        yield store


def _report(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(["report", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("form", PRINTED)
def test_a_report_has_the_sections_that_are_asked_for(capsys: pytest.CaptureFixture[str], form: str) -> None:
    both = _report(capsys, "--format", form)
    assert "What it took" in both
    assert "90.8" in both
    cost = _report(capsys, "--format", form, "--sections", "COST")
    assert "What it took" in cost
    assert "90.8" not in cost


def test_json_has_every_section_unless_some_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"tables", "costs"} <= json.loads(_report(capsys, "--format", "json")).keys()
    cost = json.loads(_report(capsys, "--format", "json", "--sections", "cost"))
    assert "tables" not in cost
    assert {line["method"] for line in cost["costs"]} == {"random", "dm", "whole"}


def test_csv_has_one_section(capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(csv.DictReader(io.StringIO(_report(capsys, "--format", "csv", "--sections", "cost"))))
    assert {(line["method"], line["device"], line["runs"]) for line in lines} == {
        (method, "a CPU, 2 threads", "1") for method in ("random", "dm", "whole")
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sections", "costs"], "No section is called 'costs'. Did you mean 'cost'?"),
        (["--sections", "cost,cost"], "each is named once, of summary, accuracy"),
        (["--sections", ","], "each is named once, of summary, accuracy"),
        (["--sections", "cost", "--short"], "--short is the tables of accuracy, and --sections asks for cost"),
        (["--sections", "all", "--format", "csv"], "and csv is one table: ask for one of summary, accuracy"),
    ],
)
def test_sections_that_cannot_be_had_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert run_cli(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.out == ""


def test_each_cell_has_the_runs_that_it_is_made_of(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [row["id"] for row in store.query("select id from runs where method = 'dm'")]
    ids.append(add(store, config("dm", seed=1), HIGH))
    lines = csv.DictReader(io.StringIO(_report(capsys, "--format", "csv")))
    assert {line["method"]: line["runs"] for line in lines}["dm"] == " ".join(ids)
    (table,) = json.loads(_report(capsys, "--format", "json"))["tables"]
    assert ids in [cell["runs"] for cell in table["cells"]]


@pytest.mark.parametrize("form", registry.names("formats"))
def test_all_sections_twice_are_the_same_bytes(capsys: pytest.CaptureFixture[str], form: str) -> None:
    which = ["--sections", "cost" if form == "csv" else "all", "--format", form]
    assert _report(capsys, *which) == _report(capsys, *which)


@pytest.fixture
def networks(store: Store) -> None:
    """`dm`, matched on the ConvNet, and `random` on three networks, two seeds each; `dc` lacks one of them."""
    for seed in range(2):
        for method, accuracy in (("random", 0.5), ("dm", 0.8), ("dc", 0.7)):
            for network, less in (("convnet-d1-w8", 0.0), ("resnet18", 0.2), ("vgg11", 0.3)):
                if (method, network) != ("dc", "vgg11"):
                    run = msgspec.structs.replace(config(method, seed=seed, ipc=10), evaluate_on=(network,))
                    add(store, run, [accuracy - less + seed / 100] * 2, made=f"{method} {seed}")


def _lines(text: str, title: str) -> dict[str, list[str]]:
    """The rows of a markdown table by their names."""
    part = text.partition(f"## {title}")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in part.splitlines() if line.startswith("|")
    ]
    return {name: cells for name, *cells in rows}


def test_the_mean_over_networks_is_over_those_that_no_method_was_matched_on(
    networks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _report(capsys, "--sections", "cross-architecture")
    lines = _lines(text, "Cross-architecture: Accuracy in %, digits IPC 10")
    assert lines["method"][:3] == ["convnet-d1-w8", "resnet18", "vgg11"]
    # `dc` lacks vgg11, so that resnet18 is the only network that all rows have.
    assert lines["random"][3:] == ["30.5 ± 6.4 (2 sets)", "0.7", "30.5 (resnet18)", "–"]
    assert lines["dm"][3:] == ["60.5 ± 6.4 (2 sets)", "0.7", "60.5 (resnet18)", "+20.0"]
    assert lines["dm"][0].startswith("80.5 ± 6.4†")
    assert lines["dc"][2:4] == ["–", "50.5 ± 6.4 (2 sets)"]
    assert "vgg11 is left out of the figures on unseen networks: dc lacks it." in text
    assert "digits IPC 1," not in text  # one network only


def test_cross_architecture_figures_are_in_every_format(networks: None, capsys: pytest.CaptureFixture[str]) -> None:
    for form in PRINTED:
        printed = _report(capsys, "--format", form, "--sections", "cross-architecture")
        assert printed.replace("$\\pm$", "±").count("30.5 ± 6.4") >= 1
    lines = list(csv.DictReader(io.StringIO(_report(capsys, "--format", "csv", "--sections", "cross-architecture"))))
    (line,) = (line for line in lines if (line["method"], line["network"]) == ("dm", "vgg11"))
    assert (line["unseen"], line["worst_network"], line["unseen_sets"]) == ("False", "resnet18", "2")
    assert float(line["unseen_mean"]) == pytest.approx(0.605)
    assert float(line["drop"]) == pytest.approx(0.2)
    records = json.loads(_report(capsys, "--format", "json"))["cross_architecture"]
    assert len(records) == len(lines)


def test_networks_that_agree_on_the_order_of_methods_have_a_rank_correlation_of_one(
    networks: None, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Order of methods" not in _report(capsys, "--sections", "rank-correlation")  # of three methods
    for network, accuracy in (("convnet-d1-w8", 0.9), ("resnet18", 0.1)):
        run = msgspec.structs.replace(config("mtt", ipc=10), evaluate_on=(network,))
        add(store, run, [accuracy])
    text = _report(capsys, "--sections", "rank-correlation")
    # Orders 1 2 3 4 and 2 3 4 1: 1 − 6 · 12 / 60 = −0.2; three pairs of six are concordant.
    assert _lines(text, "Order of methods between networks")["convnet-d1-w8"] == ["-0.20 / 0.00 (4)", "– (2)"]
    records = json.loads(_report(capsys, "--format", "json", "--sections", "rank-correlation"))["rank_correlation"]
    (one,) = (r for r in records if (r["ipc"], r["network"], r["other_network"]) == (10, "convnet-d1-w8", "resnet18"))
    assert (one["spearman"], one["kendall"], one["methods"]) == (pytest.approx(-0.2), 0.0, 4)


def test_each_score_has_a_line_with_its_run_seed_and_repeat(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = add(store, config("dm", seed=7), [0.5, 0.25])
    lines = list(csv.DictReader(io.StringIO(_report(capsys, "--format", "csv", "--sections", "scores"))))
    own = [line for line in lines if line["run"] == run and line["metric"] == "accuracy"]
    assert [(line["seed"], line["repeat"], float(line["value"])) for line in own] == [("7", "0", 0.5), ("7", "1", 0.25)]
    assert {line["metric"] for line in lines} == {"accuracy", "balanced_accuracy", "loss", "train_accuracy"}
    (sha256,) = {line["set_sha256"] for line in own}
    assert len(sha256) == 64
    assert len([line for line in lines if line["metric"] == "accuracy"]) == 5 + 5 + 5 + 2  # whole once
    records = json.loads(_report(capsys, "--format", "json"))["scores"]
    assert [record["value"] for record in records if record["run"] == run][:2] == [0.5, 0.5]
    for form in PRINTED:
        assert run in _report(capsys, "--format", form, "--sections", "scores")


def test_the_docs_explain_each_section() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    assert [name for name in SECTIONS if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("form", PRINTED)
def test_an_appendix_names_the_runs_of_each_cell(store: Store, capsys: pytest.CaptureFixture[str], form: str) -> None:
    other = add(store, config("dm", seed=3), HIGH)
    (first,) = (row["id"] for row in store.query("select id from runs where method = 'dm' and seed = 0"))
    assert f"{first} (seed 0), {other} (seed 3); between sets" in _report(capsys, "--format", form)


def test_the_full_set_stands_beside_the_condensed_ones(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    text = _report(capsys, "--sections", "condensed")
    lines = _lines(text, "Full against condensed, protocol quick\\#3528")
    assert lines["digits (full)"] == [
        "whole",
        "99.0 ± 0.0‡ (1×5)",
        "100.0 ± 0.0‡ (1×5)",
        "–",
        "1 s",
        "a CPU, 2 threads",
    ]
    assert list(lines)[2:] == ["digits (full)", "digits (condensed, IPC 1)"]
    assert "GPU memory –: trained on a CPU, where none was used. The whole process had up to 1 MB resident." in text


def test_gpu_memory_is_that_of_a_gpu(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.db.conn.execute("update environments set device = 'cuda', device_name = 'a GPU'")
    lines = _lines(_report(capsys, "--sections", "condensed"), "Full against condensed")
    assert lines["digits (full)"][3:] == ["1 MB", "1 s", "a GPU"]
    records = json.loads(_report(capsys, "--format", "json"))["condensed"]
    assert {(r["method"], r["gpu_memory_bytes"], r["condensed"]) for r in records} == {
        *((name, 10**6, 1) for name in ("random", "dm")),
        ("whole", 10**6, 0),
    }


@pytest.mark.parametrize("form", PRINTED)
def test_the_first_paragraph_says_what_the_tables_do_not_show(
    store: Store, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    text = _report(capsys, "--format", form).replace("\\", "")
    assert "1 method, random and whole on digits: 15 trained networks on 3 sets, from 3 runs." in text
    assert "All networks are convnet-d1-w8: nothing is shown of any other." in text
    assert "No method has the 3 sets that a claim about it takes: each number is about its sets alone." in text
    for seed in (1, 2):
        add(store, config("dm", seed=seed), HIGH)
    add(store, config("dc", ipc=10), HIGH)
    text = _report(capsys, "--format", form).replace("\\", "")
    assert "no claim about the method: random on digits IPC 1 and dc on digits IPC 10." in text
    assert "Without random, under the same protocol and on the same network: digits IPC 10." in text


def test_each_table_ends_with_a_verdict(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def verdict() -> str:
        (line,) = (line for line in _report(capsys).splitlines() if line.startswith("- Verdict: "))
        return line.removeprefix("- Verdict: ")

    assert verdict() == "at digits IPC 1, no method can be called better: each has fewer than 3 sets."
    for seed in (1, 2):
        add(store, config("dm", seed=seed), [value - seed / 100 for value in HIGH])
    assert verdict() == "at digits IPC 1, no method can be called better: dm alone has the 3 sets that it takes."
    for seed in (1, 2):
        add(store, config("random", seed=seed), LOW[seed:])
    add(store, config("dc"), HIGH)
    assert verdict() == "at digits IPC 1, dm is best, told from random (no claim about 1 other of fewer than 3 sets)."
    for seed in (0, 1, 2):
        add(store, config("dsa", seed=seed), [value - (3 - seed) / 200 for value in HIGH])
    assert "dm has the best mean, and dsa cannot be told from it" in verdict() or "dsa has the best mean" in verdict()
    (table,) = json.loads(_report(capsys, "--format", "json"))["tables"]
    assert table["verdict"].startswith("Verdict: at digits IPC 1, ")


def test_methods_that_the_best_is_not_told_from_are_not_said_to_be_alike(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of them may well be told from each other: only the comparisons with the best were made."""
    for seed in (0, 1, 2):
        add(store, config("dc", seed=seed), [0.80 + (seed == 0) / 20])
        add(store, config("dsa", seed=seed), [0.79 + (seed == 1) / 20])
    both = _report(capsys, "--filter", "method:dc|dsa")
    assert "dc and dsa cannot be told apart" in both
    for seed in (0, 1, 2):
        add(store, config("datadam", seed=seed), [0.78 + (seed == 2) / 20])
    three = _report(capsys, "--filter", "method:dc|dsa|datadam")
    assert "dc has the best mean, and datadam and dsa cannot be told from it" in three
    assert "told apart" not in three.partition("Verdict")[2].partition("\n")[0]


def test_the_worth_of_one_test_image_stands_below_a_table_that_is_coarse(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "digits: 10 test images, so that one is worth 10 points." in _report(capsys, "--short")
    assert "test images" not in _report(capsys, "--short", "--metric", "loss")
    store.db.conn.execute("update datasets set test_images = 977")
    assert "digits: 977 test images, so that one is worth 0.1 points." in _report(capsys, "--short")
    store.db.conn.execute("update datasets set test_images = 1001")
    assert "test images" not in _report(capsys, "--short")


def _experts(store: Store, run: str, seconds: float, *, trained: bool) -> None:
    """Let a run have had experts, which it trained itself or found."""
    number = store.run(run).number
    insert = "insert into costs (run, phase, seconds, peak_memory_bytes) values (?, 'experts', ?, 0)"
    store.db.conn.execute(insert, [number, seconds])
    if trained:
        message = "4 experts of convnet-d1-w8 on digits are trained, for 10 epochs: 1 MB in DAMBENCH_HOME, 1 GB free."
        insert = "insert into events (run, sequence, at, kind, body) values (?, 999, '', 'warned', ?)"
        store.db.conn.execute(insert, [number, json.dumps({"message": message})])


def test_experts_that_were_trained_by_another_run_are_marked_as_shared(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(_report(capsys, "--sections", "cost"), "What it took")
    assert lines["method"] == [
        "dataset",
        "runs",
        "distil",
        "peak",
        "trained network",
        "protocol",
        "each",
        "peak",
        "device",
    ]
    for seed, (seconds, trained) in enumerate(((60.0, True), (0.5, False))):
        _experts(store, add(store, config("mtt", seed=seed), HIGH), seconds, trained=trained)
    _experts(store, add(store, config("datm"), HIGH), 0.25, trained=False)
    text = _report(capsys, "--sections", "cost")
    lines = _lines(text, "What it took")
    assert {name: lines[name][2] for name in ("dm", "mtt", "datm")} == {"dm": "–", "mtt": "1 min 0 s §", "datm": "§"}
    assert "- §: shared. Some of these runs, or all, found experts that were trained before" in text
    records = json.loads(_report(capsys, "--format", "json"))["costs"]
    assert [(r["experts_used"], r["experts_trained"]) for r in records if r["method"] == "mtt"] == [(2, 1)]


def test_a_long_latex_table_goes_on_over_pages(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    short = _report(capsys, "--format", "latex", "--sections", "scores")
    assert r"\begin{tabular}" in short
    assert "longtable" not in short
    add(store, config("dm", seed=1), [0.5] * 31)
    text = _report(capsys, "--format", "latex", "--sections", "scores")
    assert text.splitlines()[0].endswith(r"Needs \usepackage{booktabs,longtable}.")
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") > 1, "it is too wide for one"
    assert text.count(r" & quick\#3528") == 15 + 31


def test_latex_has_the_titles_of_what_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = _report(capsys, "--format", "latex")
    assert r"\paragraph{What this shows, and what it does not.} 1 method, random and whole on digits" in text
    assert r"\paragraph{Runs of each cell.}" in text


def test_show_says_what_one_test_image_is_worth_where_that_is_much(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add(store, config("dm", seed=1), HIGH)
    assert run_cli(["show", run]) == 0
    assert "10 test images, so that one is worth 10 points." in capsys.readouterr().out
    assert run_cli(["show", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_images"] == 10
    store.db.conn.execute("update datasets set test_images = 10000")
    assert run_cli(["show", run]) == 0
    assert "test images" not in capsys.readouterr().out


def test_seconds_of_threads_that_were_used_in_another_way_are_not_put_together(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def devices() -> list[str]:
        records = json.loads(_report(capsys, "--format", "json"))["costs"]
        return [record["device"] for record in records if record["method"] == "dsa"]

    before = config("dsa")
    add(store, before, LOW)
    (alone,) = devices()
    assert alone.endswith(", 2 threads")
    assert ", 2 threads" not in _report(capsys, "--short", "--show", "seconds")
    where = msgspec.structs.replace(before.execution, cores=2, shared_by=1)
    add(store, msgspec.structs.replace(before, execution=where), HIGH)
    assert devices() == [alone, f"{alone} in each operation"]
    records = json.loads(_report(capsys, "--format", "json"))["costs"]
    assert all(record["device"] == f"{alone} in each operation" for record in records if record["method"] != "dsa")
    shown = _report(capsys, "--short", "--show", "seconds")
    assert "(1, 2 threads)" in shown
    assert ", 2 threads in each operation)" in shown
