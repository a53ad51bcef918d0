"""What `dambench.testing` says of plug-ins that do not keep a promise."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from dambench.cli.app import run_cli
from dambench.core import registry
from dambench.core.errors import BadInput
from dambench.testing import check_dataset, check_evaluator, check_method, check_network
from dambench.testing.methods import method_faults

METHOD = '''
"""Noise: images without a meaning."""
import torch
from dambench.core import config
from dambench.core.config import Recipe
from dambench.training.problem import Step
MATCHES_ON_NETWORK = False
class Options(config.Options, frozen=True):
    iterations: int = 4
    """Steps."""
def distill(problem, options, resume=None):
    images = resume["images"] if resume else torch.zeros(problem.random_subset().shape)
    for iteration in range(resume["iteration"] + 1 if resume else 1, options.iterations + 1):
        images = images + torch.randn(images.shape, generator=problem.generator("noise", iteration))
        state = {"iteration": iteration, "images": images}
        yield Step(iteration, problem.synthetic_set(images), {"norm": images.norm()}, lambda: state)
'''

BROKEN = {
    "no docstring": ('"""Noise: images without a meaning."""', "", "Its module has no docstring"),
    "undocumented": ('    """Steps."""\n', "", "Its option iterations is not explained"),
    "hidden recipe": (
        "def distill",
        "RECIPES = (Recipe(source='measured'), Recipe(source='measured'))\ndef distill",
        "Its recipe 'default' (number 2) is hidden by an earlier one",
    ),
    "labels": ("synthetic_set(images)", "synthetic_set(images, problem.labels().flip(0))", "Its labels are [2, "),
    "not finite": (
        "problem.synthetic_set(images)",
        "problem.synthetic_set(images / 0)",
        "Not all pixels of its set are",
    ),
    "loss": ('"norm": images.norm()', '"norm": images.sum(1)', "Its loss 'norm' is not a tensor of shape ()."),
    "no step": ("options.iterations + 1)", "1)", "It yields no Step."),
    "too few": ("options.iterations + 1)", "options.iterations)", "Its iterations are [1, 2, 3], 4 were due."),
    "global generator": (', generator=problem.generator("noise", iteration)', "", "It draws from torch's global"),
    "no seed": (', generator=problem.generator("noise", iteration)', "", "Two runs of one seed give different sets"),
    "no state": (
        '"images": images}',
        '"images": images * 0}',
        "Resumed after iteration 1, after iteration 2 its images",
    ),
    "starts anew": ('resume["iteration"] + 1 if resume else 1', "1", "it makes the iterations [1, 2, 3]"),
    "real images": (
        "    images = resume",
        "    problem.real.images.zero_()\n    images = resume",
        "changes the real images",
    ),
    "network": ("    images = resume", "    problem.new_network(1)\n    images = resume", "and it builds a network."),
    "no network": ("MATCHES_ON_NETWORK = False\n", "", "Its MATCHES_ON_NETWORK is True, and it never builds its"),
    "failure": ("    images = resume", "    {}['key']\n    images = resume", "It failed with KeyError: 'key'."),
    "contract": (
        "(problem, options, resume=None)",
        "(problem, options)",
        "its distill does not take (problem, options",
    ),
}

NETWORK = '''
"""Linear: one layer."""
import torch
from torch import nn
from dambench.core import config
from dambench.training.problem import Network
class Options(config.Options, frozen=True): pass
def build(channels, size, classes, options): return Linear(channels * size[0] * size[1], classes)
class Linear(Network):
    num_levels = 1
    def __init__(self, pixels, classes):
        super().__init__()
        self.classifier = nn.Linear(pixels, classes)
    def iter_feature_maps(self, images):
        yield images.tanh().flatten(1)
'''

DATASET = '''
"""Noise: images that cannot be told apart."""
import numpy as np
from dambench.core import config
from dambench.datasets import Raw
class Options(config.Options, frozen=True): pass
def fingerprint(options, data): return "1"
def load(options, data):
    images, labels = np.random.default_rng(0).integers(256, size=(9, 1, 8, 8), dtype=np.uint8), np.arange(9) % 3
    return Raw(images, labels, images, labels, ["a", "b", "c"])
'''


EVALUATOR = '''
"""Agreement: how often a network is right."""
from dambench.core import config
from dambench.core.events import Metric
from dambench.evaluators import accuracy, measure_networks
METRICS = {"agreement": Metric(description="share that is right")}
class Options(config.Options, frozen=True): pass
def evaluate(context, options, resume=()):
    return measure_networks(context, lambda n: {"agreement": accuracy.scores(context, n)["accuracy"]}, resume)
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a text the plug-in `mine` of a kind."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(kind: str, text: str) -> None:
        (tmp_path / "mine.py").write_text(text)
        entries = EntryPoints([EntryPoint("mine", "mine", f"dambench.{kind}")])
        monkeypatch.setattr(registry, "entry_points", lambda **chosen: entries.select(**chosen))

    _forget()
    yield installed
    _forget()


def _forget() -> None:
    registry.names.cache_clear()
    registry._loaded.cache_clear()
    sys.modules.pop("mine", None)


def test_plug_ins_that_keep_every_promise_are_let_pass(install: Any) -> None:
    for kind, text, check in (
        ("methods", METHOD, check_method),
        ("networks", NETWORK, check_network),
        ("datasets", DATASET, check_dataset),
        ("evaluators", EVALUATOR, check_evaluator),
    ):
        _forget()
        install(kind, text)
        check("mine")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_of_a_method_is_a_sentence(install: Any, case: str) -> None:
    right, wrong, sentence = BROKEN[case]
    assert right in METHOD
    install("methods", METHOD.replace(right, wrong))
    assert any(sentence in fault for fault in method_faults("mine")), method_faults("mine")
    with pytest.raises(AssertionError):
        check_method("mine")


def test_a_broken_promise_of_a_network_or_a_dataset_is_a_sentence(install: Any) -> None:
    install("networks", NETWORK.replace("images.tanh()", "images.detach()"))
    with pytest.raises(AssertionError, match="No finite gradient reaches the images"):
        check_network("mine")
    _forget()
    install("datasets", DATASET.replace("default_rng(0)", "default_rng()"))
    with pytest.raises(AssertionError, match="Prepared twice, it is not the same"):
        check_dataset("mine")


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("METRICS = {", "METRICS = {} and {", "its METRICS are empty"),
        ('n: {"agreement"', 'n: {"accord"', r"It measures \['accord'\], and its METRICS are \['agreement'\]"),
        (", resume)", ")", r"It measures \('convnet-d1-w8', 0\) again"),
        ("    return", "    import torch; torch.rand(1)\n    return", "global generator"),
        (
            '"agreement": accuracy',
            '"agreement": __import__("random").random() + accuracy',
            "Two measurements of one set",
        ),
    ],
)
def test_a_broken_promise_of_an_evaluator_is_a_sentence(install: Any, right: str, wrong: str, sentence: str) -> None:
    assert right in EVALUATOR
    install("evaluators", EVALUATOR.replace(right, wrong))
    with pytest.raises(AssertionError, match=sentence):
        check_evaluator("mine")


def test_the_command_line_says_the_same(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install("methods", METHOD)
    assert run_cli(["methods", "check", "mine", "--set", "method.iterations=3"]) == 0
    assert capsys.readouterr().out == "mine keeps its contract and all 12 promises of methods.\n"
    for text in (
        METHOD.replace("4\n", "4\n    extra: int = 1\n"),
        "raise ValueError",
        METHOD.replace("distill", "distil"),
    ):
        _forget()
        install("methods", text)
        assert run_cli(["methods", "check", "mine"]) == 1
        assert len(capsys.readouterr().out.splitlines()) == 1
    assert run_cli(["methods", "check", "min"]) == 2


def test_what_is_checked_leaves_nothing_behind(install: Any, tmp_path: Path) -> None:
    install("datasets", DATASET)
    check_dataset("mine")
    check_method("herding")
    assert not (tmp_path / "home").exists()


def test_a_name_that_nobody_has_is_no_plug_in_with_faults() -> None:
    with pytest.raises(BadInput, match="No method is called 'dn'"):
        check_method("dn")
