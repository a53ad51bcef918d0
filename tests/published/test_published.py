"""The published figures: each has a source, can be true, and is told from the others; files with faults are refused."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from dambench import published
from dambench.core import registry
from dambench.core.errors import BadInput
from dambench.core.protocol import PRESETS
from dambench.published import PublishedValue

ALL = published.load()

OURS = re.compile(r"(convnet-d[345]-w128|alexnet|vgg11|resnet18)(-bn)?|lenet|mlp-d2-w128")
"""Full names of networks here, without parts that are the default."""

TABLE = """
[[tables]]
paper = "A paper"
table = "Table 1"
where = "text of the paper"
status = "read"
entries = [{ENTRY}]
"""


def values_of(tmp_path: Path, text: str) -> list[PublishedValue]:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return published.read([path], methods={"dm": published.MethodFacts(name="DM", protocol="dsa-dm", paper="DM's")})


def with_entry(entry: str, *, more: str = "") -> str:
    return f'dataset = "mnist"\n{TABLE.replace("{ENTRY}", entry)}{more}'


GOOD = '{ method = "dm", ipc = 10, value = 97.5, std = 0.1 }'


def test_each_figure_has_a_source_and_a_value_that_can_be_one() -> None:
    for value in ALL:
        limits = published.QUANTITIES[value.quantity]
        assert limits.least <= value.value <= limits.most, value.key
        assert value.std is None or 0 <= value.std < 10, value.key
        assert all(len(text) >= 3 for text in (value.paper, value.table, value.where)), value.key
        assert value.recalled == (value.where == "from memory"), value.key
        assert "recalled" in value.source if value.recalled else value.where in value.source


def test_no_figure_stands_twice() -> None:
    assert max(Counter(value.key for value in ALL).values()) == 1


def test_a_method_is_one_of_ours_or_is_spelled_out() -> None:
    ours = {*registry.names("methods")}
    names = published.method_names()
    assert {value.method for value in ALL} <= set(names)
    for method, name in names.items():
        assert name, method
        assert name != method, f"{method} is no name that papers use"
    assert {"random", "herding", "kcenter", "dc", "dsa", "dm", "datadam", "mtt", "datm", "pad", "whole"} <= (
        {value.method for value in ALL} & ours
    )


def test_protocols_and_networks_are_ours_or_words() -> None:
    for value in ALL:
        assert value.protocol in PRESETS or " " in value.protocol or not value.protocol, value.protocol
        for network in (value.network, value.matched_on):
            assert not network or " " in network or OURS.fullmatch(network), network


def test_a_file_is_of_the_dataset_that_it_is_named_after() -> None:
    assert all(value.dataset == name for name in published.datasets() for value in published.load(name))
    assert {"mnist", "fashionmnist", "svhn", "cifar10", "cifar100", "tinyimagenet", "mhist"} <= {*published.datasets()}


@pytest.mark.parametrize(
    ("dataset", "method", "ipc", "network", "texts"),
    [
        ("cifar10", "dm", 10, "convnet-d3-w128", {"48.9 ± 0.6"}),
        ("cifar10", "dm", 500, "convnet-d3-w128", {"76.1 ± 0.3", "75.1 ± 0.3"}),  # two papers, two figures
        ("cifar10", "random", 50, "convnet-d3-w128", {"43.4 ± 1.0", "50.6 ± 0.3"}),
        ("cifar10", "kcenter", 50, "convnet-d3-w128", {"27.0 ± 1.4"}),
        ("cifar100", "pad", 100, "lenet", {"33.87"}),
        ("mnist", "dc", 1, "convnet-d3-w128", {"91.7", "91.7 ± 0.5"}),
        ("fashionmnist", "kcenter", 10, "convnet-d3-w128", {"54.7 ± 1.5"}),
        ("imagewoof", "datadam", 10, None, {"34.4 ± 0.4"}),
        ("mnist", "whole", None, "convnet-d3-w128", {"99.6 ± 0.0"}),
    ],
)
def test_some_figures_are_those_of_the_tables(
    dataset: str, method: str, ipc: int | None, network: str | None, texts: set[str]
) -> None:
    found = [v for v in published.load(dataset) if (v.method, v.ipc, v.quantity) == (method, ipc, "accuracy")]
    assert {v.text for v in found if network in (None, v.network)} == texts


def test_what_a_line_leaves_open_is_as_its_table_then_as_the_methods_authors_have_it(tmp_path: Path) -> None:
    plain, own, unstated = values_of(
        tmp_path,
        with_entry(
            f'{GOOD}, {{ method = "dm", ipc = 1, value = 89.7, protocol = "dc", sets = 2 }}, '
            '{ method = "dm", ipc = 50, value = 98.6, conditions = "not stated" }'
        ),
    )
    assert (plain.protocol, plain.text, plain.n, plain.original) == ("dsa-dm", "97.5 ± 0.1", "", False)
    assert (own.protocol, own.n) == ("dc", "2×?")
    assert unstated.protocol == ""


def test_the_users_own_figures_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path))
    (tmp_path / "published").mkdir()
    own = '{ method = "ours", ipc = 10, value = 98.0 }'
    (tmp_path / "published" / "mine.toml").write_text(with_entry(own, more='[methods.ours]\nname = "Ours"\n'))
    (value,) = [value for value in published.load("mnist") if value.method == "ours"]
    assert (value.name, value.dataset, value.text) == ("Ours", "mnist", "98.0")
    assert not [value for value in published.load("cifar10") if value.method == "ours"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            with_entry(GOOD).replace('paper = "A paper"\n', ""),
            "97.5, is a number without a source: its table lacks paper",
        ),
        (with_entry(GOOD).replace('status = "read"\n', ""), "is a number without a source: its table lacks status"),
        (with_entry(GOOD).replace('"text of the paper"', '""'), "where: expected `str` of length >= 3"),
        (with_entry(GOOD).replace('"read"', '"guessed"'), "status"),
        (with_entry(GOOD).replace("97.5", "975"), "has 975, and its accuracy lies from 0 to 100 %"),
        (with_entry(GOOD).replace("97.5", "nan"), "has nan"),
        (with_entry(GOOD).replace("0.1", "inf"), "has std inf: a finite number"),
        (with_entry(GOOD).replace('"dm"', '"dn"'), "the method 'dn' is not described"),
        (with_entry(f"{GOOD}, {GOOD}"), "dm at IPC 10 stands twice"),
        (with_entry(GOOD).replace("std", "sdt"), "sdt"),
        (with_entry(GOOD).replace("ipc = 10", 'ipc = "all"'), "ipc"),
        (with_entry(GOOD).replace('dataset = "mnist"', ""), "is of no dataset"),
        (with_entry(GOOD).replace('status = "read"', 'status = "read"\nquantity = "loss"'), "the quantity 'loss'"),
        ("dataset = ", "not valid TOML"),
    ],
)
def test_a_file_with_a_fault_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        values_of(tmp_path, text)
    sentence = str(refused.value)
    assert words in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(("number", "digits"), [(26.0, 0), (0.5, 1), (33.46, 2), (1e-9, 0), (math.pi, 15)])
def test_decimals_are_those_that_were_printed(number: float, digits: int) -> None:
    assert published.decimals(number) == digits
