"""The section of what evaluators other than of accuracy have measured."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec

from dambench.core.config import Choice, RunConfig
from dambench.core.events import AnyEvent, Finished, Measured, Metric, Real, Started
from dambench.evaluators import nas, robustness
from dambench.report.parts import Part
from dambench.report.sections.measured import SECTION
from dambench.store.leaderboard import leaderboard
from dambench.store.measured import measured
from dambench.store.metrics import metrics
from dambench.store.runs import Store
from dambench.tui.models.live_panes import with_end
from dambench.tui.models.run_page import measured_lines
from tests.ledger import CARD, add, config, words

Found = Mapping[tuple[str, int], Mapping[str, Real]]

METRICS = {"nas": nas.METRICS, "robustness": robustness.METRICS | robustness.metrics_of(robustness.Options())}


def measure(store: Store, of: RunConfig, evaluator: str, found: Found, **options: object) -> str:
    """Record an evaluation of what a run has made."""
    described: Mapping[str, Metric] = METRICS[evaluator]
    asked = msgspec.structs.replace(of, evaluator=Choice(evaluator, options))
    run = store.create(asked, CARD)
    list(store.record(run, _said(asked, evaluator, described, found)))
    return run


def _said(asked: RunConfig, evaluator: str, metrics: Mapping[str, Metric], found: Found) -> Iterator[AnyEvent]:
    for event in words(asked):
        if isinstance(event, Measured):
            score = event
            continue
        if isinstance(event, Started):
            event = msgspec.structs.replace(event, metrics={evaluator: dict(metrics)})
        if isinstance(event, Finished):
            for (subject, repeat), values in found.items():
                yield msgspec.structs.replace(
                    score, evaluator=evaluator, subject=subject, repeat=repeat, values=dict(values)
                )
        yield event


def parts(store: Store) -> list[Part]:
    board = replace(leaderboard(store, ("method",), ("dataset", "ipc")), measured=measured(store))
    return SECTION.parts(board, ("method",), ("dataset", "ipc"))


def lines(part: Part) -> dict[str, list[str]]:
    return {name: [entry.number for entry in entries] for name, entries in part.lines}


RANKED = {("set", 0): {"tau_b": 0.5, "spearman": 0.6, "spearman_low": 0.25, "spearman_high": 0.75, "k": 10.0}} | {
    ("ceiling", 0): {"tau_b": 0.7, "spearman": 0.8, "spearman_low": 0.5, "spearman_high": 0.875, "k": 10.0}
}
NETWORKS = {(f"convnet-{n}", 0): {"set_accuracy": 0.5, "status": float(n in (2, 5))} for n in range(7)} | {
    ("convnet-9", 0): {"status": 4.0}
}


def test_a_ranking_is_one_table_of_its_proxies_and_networks_that_came_to_nothing_are_words(store: Store) -> None:
    measure(store, config("dm"), "nas", RANKED | NETWORKS, reference_images=5000, epochs=1)
    ranking, networks = parts(store)
    title = "NAS: digits IPC 1, protocol quick"
    assert ranking.title.startswith(title)
    assert ranking.title.endswith(", 1 epoch on the set, the reference on 5,000 real images")
    assert lines(ranking) == {
        "Kendall's tau-b, the set": ["0.500 ± –"],
        "Kendall's tau-b, real images again": ["0.700 ± –"],
        "Spearman's rho, the set": ["0.600 (0.250 to 0.750)"],
        "Spearman's rho, real images again": ["0.800 (0.500 to 0.875)"],
        "k": ["10 ± –"],
    }
    assert "(a to b): of one network on one set, the 95 % interval that was measured with it." in ranking.notes
    assert not networks.lines
    assert "8 subjects were measured, convnet-0 to convnet-9" in networks.notes[0]
    assert networks.notes[1] == "Status, dm: 5 trained, 2 learned nothing on real images and 1 cannot be built."


def test_of_several_sets_an_interval_is_over_them_not_a_mean_of_theirs(store: Store) -> None:
    for seed in range(3):
        measure(store, config("dm", seed=seed), "nas", {("set", 0): RANKED["set", 0] | {"spearman": 0.6 + seed / 10}})
    (table,) = parts(store)
    assert lines(table)["Spearman's rho"] == ["0.700 ± 0.248"]


def test_budgets_of_an_attack_are_in_order_and_what_is_missing_is_measured_in_the_same_way(store: Store) -> None:
    values = {"clean": 0.9, "pgd_l2_1": 0.1, "pgd_l2_0-25": 0.5, "pgd_linf_2": 0.8, "pgd_linf_32": 0.3}
    dm = msgspec.structs.replace(config("dm"), evaluate_on=("mlp", "vgg11"), eval_repeats=3)
    measure(store, dm, "robustness", {("mlp", n): values for n in range(3)} | {("vgg11", 0): values}, steps=5)
    random = add(store, config("random"))
    (table,) = parts(store)
    assert table.title.endswith("PGD of 5 steps")
    assert list(lines(table))[::2] == [
        *("Accuracy without an attack in %, mlp", "Accuracy under PGD Linf 2/255, in %, mlp"),
        *("Accuracy under PGD Linf 32/255, in %, mlp", "Accuracy under PGD L2 0.25, in %, mlp"),
        "Accuracy under PGD L2 1, in %, mlp",
    ]
    assert table.commands == [
        (
            "measures random",
            f"dambench evaluate {random} --evaluator robustness --evaluate-on mlp,vgg11 --eval-repeats 3 --set "
            "evaluator.steps=5",
        )
    ]


def test_on_the_screen_of_a_run_what_comes_of_all_is_first_and_states_are_words(store: Store) -> None:
    run = measure(store, config("dm"), "nas", NETWORKS | RANKED)
    rows = store.query(
        "select measurements.*, unit, better, description, ? as run from measurements join metrics "
        "on metrics.evaluator = measurements.evaluator and metrics.name = metric",
        run,
    )
    shown = [str(line) for line in measured_lines(rows, run, 80)]
    assert "NAS" in shown[1]
    assert [line.split()[0] for line in shown[3:5]] == ["set", "set"]
    assert any("Status" in line and "cannot be built" in line for line in shown)
    assert any("Status" in line and "learned nothing on real images" in line for line in shown)
    assert not any("Status" in line and line.split()[-2].replace(".", "").isdigit() for line in shown)


def test_a_long_label_keeps_its_end_where_there_is_little_room() -> None:
    assert with_end("Accuracy on classes of step 1", 15, ascii=False) == "Accura…f step 1"
    assert with_end("Accuracy on classes of step 1", 15, ascii=True) == "Accura.. step 1"
    assert with_end("Memory", 8, ascii=False) == "Memory  "


def test_a_baseline_of_an_evaluator_s_figure_is_no_run_alone(store: Store) -> None:
    measure(store, config("dm"), "robustness", {("convnet-d1-w8", 0): {"clean": 0.9}})
    (metric,) = (one for one in metrics(store) if one.full_name == "robustness.clean")
    board = leaderboard(store, ("method",), ("dataset", "ipc"), metric=metric)
    commands = {one.command for one in board.baselines.missing}
    assert commands == {"# of a run of it: dambench evaluate ID --evaluator robustness (report --sections measured)"}
    assert all(one.words == () for one in board.baselines.missing)
