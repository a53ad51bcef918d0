"""Packages from outside that add something, and do it badly."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dambench import engine
from dambench.cli.app import run_cli
from dambench.cli.doctor import _from_outside
from dambench.core import registry
from dambench.core.config import Request, read
from dambench.core.errors import BadInput
from dambench.store.runs import Store
from dambench.testing import data_card
from tests.hostile import steering
from tests.ledger import add, config

assert engine

METHOD = '''
"""A method of somebody's."""
import os, subprocess
from dambench.core import config
from dambench.core.config import Recipe
MATCHES_ON_NETWORK = False
class Options(config.Options, frozen=True):
    sides: int = 4
def distill(problem, options, resume=None):
    from dambench.methods.random import distill
    yield from distill(problem, options)
'''
SPEAK = "print('spoken'); os.write(1, b'written\\n'); subprocess.run(['echo', 'echoed'])\n"
DATASET = """
from dambench.core import config
SOURCE, NETWORK, MIRRORS = "package", "", True
class Options(config.Options, frozen=True): pass
def fingerprint(options, data): return "1"
def load(options, data): return {}["missing"]
"""
NETWORK = """
from dambench.core import config
PARTS = {"depth": "d"}
class Options(config.Options, frozen=True):
    depth: int = 2
def fit(options, size): return options
def build(*said): return None
"""
EVALUATOR = """
from dambench.core import config
from dambench.core.events import Metric
METRICS = {"right": Metric(description="share")}
class Options(config.Options, frozen=True): pass
def evaluate(context, options, resume): yield
"""

FORMAT = """
SUFFIXES = (".txt", ".csv")
def render(board, rows, columns, short):
    print("printed")
    return f"{len(board.tables)} tables\\n"
"""

MODULES = {
    "speaks": METHOD.replace("    from dambench.methods", f"    {SPEAK}    from dambench.methods") + SPEAK,
    "sleeps": METHOD + "import time; time.sleep(0.5)\n",
    "leaves": METHOD + "raise SystemExit(3)\n",
    "raises": METHOD + "raise ValueError('\\x1b[31mred\\x1b[0m\\n[bold]')\n",
    "raises_oddly": METHOD + "class Odd(Exception):\n    def __str__(self): raise TypeError\nraise Odd\n",
    "no_python": "def (",
    "lacks_options": METHOD.replace("class Options(", "class Others("),
    "lacks_distill": METHOD.replace("def distill", "def distil"),
    "takes_less": METHOD.replace("(problem, options, resume=None)", "(problem, options)"),
    "odd_version": METHOD + "VERSION = 0\n",
    "worded_version": METHOD + "VERSION = '1'\n",
    "plain_options": METHOD + "class Options: pass\n",
    "no_defaults": METHOD.replace("sides: int = 4", "sides: int"),
    "no_json": METHOD.replace("sides: int = 4", "sides: object() = 4"),
    "plain_recipes": METHOD + "RECIPES = 'default'\n",
    "wrong_recipe": METHOD + "RECIPES = (Recipe(source='x', options={'sidez': 3}),)\n",
    "leaves_later": METHOD.replace("    yield from", "    raise SystemExit(0)\n    yield from"),
    "raises_later": METHOD.replace("    yield from", "    raise ValueError('[red]\\x1b[31m')\n    yield from"),
    "gives_else": METHOD.replace("    yield from", "    yield {'images': 1}\n    yield from"),
    "raises_then": METHOD.replace("sides: int = 4", "sides: int = 4\n    def __post_init__(self): 1 / self.sides"),
    "settles_oddly": METHOD + "def settle(options, card, ipc): return options, 'whitened'\n",
    "settles_nothing": METHOD + "def settle(options, card, ipc): return None\n",
    "takes_many": METHOD.replace("sides: int = 4", "sides: tuple[float, ...] = ()"),
    "dataset": DATASET,
    "wrong_source": DATASET.replace('"package"', '"the web"'),
    "many_files": DATASET + "FILES = 'abc'\n",
    "res": NETWORK + "1 / 0\n",
    "numbered": NETWORK.replace('"d"', "{1: 2}"),
    "plain": FORMAT,
    "odd_suffix": FORMAT.replace(".txt", "txt"),
    "renders_nothing": FORMAT.replace("def render", "def write"),
    "fails": FORMAT.replace("print(", "1 / 0 and print(").replace(".txt", ".no"),
    "measures": EVALUATOR,
    "nameless": EVALUATOR.replace('"right"', "5"),
    "unexplained": EVALUATOR.replace('"share"', "5"),
    "measures_nothing": EVALUATOR + "METRICS = {}\n",
    "nothing": NETWORK,
    "otherwise": NETWORK,
}

FAULTS = {
    "leaves": "to import it failed with SystemExit: 3",
    "raises": "to import it failed with ValueError: �[31mred�[0m [bold]",
    "raises_oddly": "to import it failed with Odd",
    "no_python": "SyntaxError",
    "not_there": "ModuleNotFoundError",
    "lacks_options": "has no Options (a class derived from dambench.core.config.Options)",
    "lacks_distill": "has no distill (a function)",
    "takes_less": "its distill does not take (problem, options, resume)",
    "odd_version": "its VERSION is 0, not a number from 1 to 1000000000",
    "worded_version": "its VERSION is not a whole number",
    "plain_options": "its Options is not a class derived from dambench.core.config.Options",
    "no_defaults": "its Options must have a default each",
    "no_json": "its Options must have a default each",
    "plain_recipes": "its RECIPES is not a tuple of dambench.core.config.Recipe",
    "wrong_recipe": "No option is called 'sidez'",
    "twice": "the package other 2.0 has one of this name, too",
    "a [red]name": "its name is not of the form",
}
"""Of methods."""


def _package(site: Path, name: str, version: str, groups: dict[str, dict[str, str]]) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[dambench.{kind}]\n" + "".join(f"{n} = {v}\n" for n, v in of.items()) for kind, of in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site"
    site.mkdir()
    for name, text in MODULES.items():
        (site / f"{name}.py").write_text(text)
    methods = [name for name, text in MODULES.items() if text.startswith(METHOD[:20]) or name == "no_python"]
    added = {name: name for name in methods} | {"not_there": "not_there", "a [red]name": "speaks", "dm": "speaks"}
    groups = {
        "methods": added | {"twice": "speaks"},
        "datasets": {name: name for name in ("dataset", "wrong_source", "many_files")},
        "networks": {"res": "res", "nothing": "nothing", "other": "otherwise", "numbered": "numbered"},
        "formats": {name: name for name in ("plain", "odd_suffix", "renders_nothing", "fails")},
        "evaluators": {name: name for name in ("measures", "nameless", "unexplained", "measures_nothing")},
    }
    _package(site, "odd", "1.0", groups)
    _package(site, "other", "2.0", {"methods": {"twice": "leaves"}})
    monkeypatch.syspath_prepend(str(site))
    for forget in (registry.names, registry._loaded):
        forget.cache_clear()
    yield
    for forget in (registry.names, registry._loaded):
        forget.cache_clear()
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_method_from_outside_that_cannot_be_used_is_listed_with_its_fault(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["methods", "--json"]) == 0
    said = capfd.readouterr()
    found = {entry["name"]: entry for entry in json.loads(said.out)}
    assert {name: FAULTS[name] in entry["fault"] for name, entry in found.items() if entry["fault"]} == dict.fromkeys(
        FAULTS, True
    )
    assert {"dm", "random", "speaks", "leaves_later"} <= found.keys()
    assert found["dm"]["options"]["$defs"]["Options"]["properties"].keys() > {"lr_images"}
    assert "The method 'dm' of the package odd 1.0 is not used: dambench has its own." in said.err
    assert "of the package odd 1.0 cannot be used: " in found["leaves"]["fault"]
    assert "spoken\nwritten\nechoed\n" in said.err.replace("note:", "\nnote:")
    assert run_cli(["methods"]) == 0
    table = capfd.readouterr().out
    assert not steering(table)
    assert all(fault[:30] in table for fault in FAULTS.values())


@pytest.mark.parametrize("name", FAULTS)
def test_a_run_of_one_that_cannot_be_used_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run_cli(["run", "--headless", "--method", name, "--dataset", "digits"]) == 2
    said = capsys.readouterr()
    assert FAULTS[name] in said.err
    assert said.err.splitlines()[-1].startswith("dambench: The method ")
    assert not said.out
    assert not steering(said.err)
    assert not Path("runs.db").exists()


def test_other_methods_run_beside_it_and_what_it_prints_is_no_data(capfd: pytest.CaptureFixture[str]) -> None:
    quick = ["--dataset", "digits", "--evaluate-on", "convnet-d1-w4", "--eval-repeats", "1", "--json"]
    assert run_cli(["run", "--headless", "--method", "speaks", *quick]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["state"] == "finished"
    assert [said.err.count(word) for word in ("spoken", "written", "echoed")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("leaves_later", "SystemExit: 0"),
        ("raises_later", "ValueError: [red]�[31m"),
        ("gives_else", "The method gives_else gave a dict where a Step or Progressed is due."),
    ],
)
def test_a_run_whose_method_fails_has_failed(capsys: pytest.CaptureFixture[str], name: str, error: str) -> None:
    arguments = ["--method", name, "--dataset", "digits", "--protocol", "brief", "--eval-repeats", "1"]
    assert run_cli(["run", "--headless", *arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["error"]) == ("failed", error)
    assert run_cli(["run", *arguments, "--dry-run"]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "raises_then", "--set", "method.sides=0"], "In method raises_then: ZeroDivisionError"),
        (
            ["--method", "takes_many", "--set", "method.sides=[1.0, nan]"],
            "In method takes_many: sides = [1.0, nan] has a number that is not finite",
        ),
        (["--method", "settles_oddly"], "The method 'settles_oddly' failed: TypeError: its settle gave something else"),
        (["--method", "settles_nothing"], "The method 'settles_nothing' failed: TypeError: cannot unpack"),
        (["--method", "dm", "--dataset", "dataset"], "The dataset 'dataset' failed: KeyError: 'missing'."),
        (["--method", "dm", "--dataset", "wrong_source"], "its SOURCE is not package, download or path"),
        (["--method", "dm", "--network", "nothing"], "The network 'nothing' failed: TypeError: it built NoneType"),
        (["--method", "dm", "--network", "res"], "to import it failed with ZeroDivisionError"),
        (["--method", "dm", "--dataset", "many_files"], "its FILES is not several texts"),
        (
            ["--method", "dm", "--network", "numbered"],
            "its PARTS spell 'depth', which is no option, or not as a prefix",
        ),
        (["--method", "dm", "--network", "other"], "its module 'otherwise' must be called as the network is"),
    ],
)
def test_a_dataset_or_network_that_fails_is_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    dataset = [] if "--dataset" in arguments else ["--dataset", "digits"]
    assert run_cli(["run", "--headless", *arguments, *dataset]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("runs.db").exists()


def test_what_else_lists_them_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    for command, faulty, fine in (
        (["networks"], {"res", "other", "numbered"}, "resnet"),
        (["data", "list"], {"wrong_source", "many_files"}, "digits"),
    ):
        assert run_cli([*command, "--json"]) == 0
        found = {entry["name"]: entry["fault"] for entry in json.loads(capsys.readouterr().out)}
        assert {name for name, fault in found.items() if fault} == faulty
        assert fine in found
        assert run_cli(command) == 0
        assert "cannot be used" in capsys.readouterr().out
    assert run_cli(["run", "--check", "--method", "dm", "--dataset", "digits", "--evaluate-on", "resnet18bn"]) == 0
    wrong = [detail for _, state, detail in _from_outside() if state == "wrong"]
    assert len(wrong) == len(FAULTS) + 3 + 1 + 2 + 3 + 2
    assert sum("the name 5, which is not of the form" in detail for detail in wrong) == 1


def test_a_format_from_outside_writes_reports_and_files_of_its_suffix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add(store, config("dm"), [0.5])
    assert run_cli(["report", "--format", "plain"]) == 0
    assert capsys.readouterr() == ("1 tables\n", "printed\n")
    assert run_cli(["report", "-o", "report.txt"]) == 0
    assert Path("report.txt").read_text() == "1 tables\n"
    assert run_cli(["report", "-o", "report.csv"]) == 0
    assert Path("report.csv").read_text().startswith("method,")
    for name, sentence in (
        ("fails", "The format 'fails' failed: ZeroDivisionError"),
        ("odd_suffix", "its SUFFIXES are not all of the form .md: txt, .csv"),
        ("renders_nothing", "has no render (a function)"),
    ):
        assert run_cli(["report", "--format", name]) == 2
        assert sentence in capsys.readouterr().err
    assert run_cli(["report", "--format", "plain", "--short"]) == 2
    assert "--short is for html, latex, markdown" in capsys.readouterr().err


def test_a_package_that_nobody_can_read_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(tmp_path / "site", "broken", "1.0", {"methods": {"x": "x"}})
    (tmp_path / "site/broken-1.0.dist-info/entry_points.txt").write_bytes(b"[dambench.methods]\n\xff = x\n")
    registry.names.cache_clear()
    assert run_cli(["methods", "--json"]) == 0
    said = capsys.readouterr()
    assert {"dm", "random"} <= {entry["name"] for entry in json.loads(said.out)}
    assert "note: The methods of other packages are not known: " in said.err
    assert "UnicodeDecodeError" in said.err
    assert any("UnicodeDecodeError" in detail for _, state, detail in _from_outside() if state == "wrong")
    assert run_cli(["run", "--method", "leaves", "--dataset", "digits", "--check"]) == 2


def test_who_waits_is_told_for_whom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SLOW_IMPORT", 0.05)
    assert run_cli(["run", "--method", "sleeps", "--dataset", "digits", "--check"]) == 0
    assert "The method 'sleeps' of the package odd 1.0 has been importing for 0 s." in capsys.readouterr().err


def test_stdout_is_its_own_again_after_what_was_said_aside(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(KeyError), registry.stdout_to_stderr():
        print("a")
        os.write(1, b"b\n")
        raise KeyError
    print("c", flush=True)
    os.write(1, b"d\n")
    assert capfd.readouterr() == ("c\nd\n", "a\nb\n")


def _asked(method: str, **more: object) -> engine.Job:
    request = {"method": method, "dataset": "digits", "ipc": 1, "device": "cpu", "network": "convnet-d1-w4"} | more
    return engine.prepare(read(Request, request, "the request"))


def _reopened(job: engine.Job, *, only_its_set: bool = False) -> list[str]:
    said: list[str] = []
    engine.reopen(job.config, job.card.sha256, "", {}, None, said.append, only_its_set=only_its_set)
    return said


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package of several modules; its method imports one of them, in a function."""
    folder = tmp_path / "site" / "theirs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    method = METHOD.replace("    from dambench.methods", "    from . import sums\n    from dambench.methods")
    (folder / "manifold.py").write_text(method)
    (folder / "sums.py").write_text("import theirs.tables\n")
    (folder / "tables.py").write_text("")
    (folder / "beside.py").write_text("")
    _package(tmp_path / "site", "theirs", "1.5", {"methods": {"manifold": "theirs.manifold"}})
    registry.names.cache_clear()
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        sys.modules.pop(name)


@pytest.mark.parametrize("changed", ["manifold", "sums", "tables"])
def test_a_run_says_which_code_from_outside_it_is_of_and_other_code_does_not_go_on_with_it(
    package: Path, changed: str
) -> None:
    job = _asked("manifold")
    (plugin,) = job.config.plugins
    assert (plugin.kind, plugin.name, plugin.package, plugin.version) == ("methods", "manifold", "theirs", "1.5")
    assert _asked("manifold").config.sha256 == job.config.sha256
    (package / "beside.py").write_text("# not its own")
    assert _reopened(job) == []
    path = package / f"{changed}.py"
    path.write_text(f"{path.read_text()}# another version\n")
    assert _asked("manifold").config.sha256 != job.config.sha256
    with pytest.raises(
        BadInput, match=r"The method manifold is other code now: the run began with theirs 1\.5, source "
    ):
        _reopened(job)
    assert _reopened(job, only_its_set=True) == []  # its set is there, and no code of the method is needed


def test_of_a_run_that_does_not_say_which_code_it_is_of_this_is_told_when_it_goes_on(package: Path) -> None:
    job = _asked("manifold")
    old = replace(job, config=msgspec.structs.replace(job.config, plugins=()))
    assert "it is not on record which code of it began the run" in _reopened(old)[0]


def test_another_version_of_a_method_does_not_go_on_with_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    job = _asked("random")
    assert (job.config.method_version, job.config.plugins) == (1, ())
    monkeypatch.setattr(registry.load("methods", "random"), "VERSION", 2)
    assert _asked("random").config.method_version == 2
    with pytest.raises(BadInput, match="The run began with version 1 of random, and this is version 2"):
        _reopened(job)
    # A run that only evaluates a set goes on: the set is there.
    made = msgspec.structs.replace(job.config, execution=msgspec.structs.replace(job.config.execution, made="0" * 64))
    assert _reopened(replace(job, config=made)) == []


def test_what_a_method_leaves_out_is_as_its_contract_has_it() -> None:
    method = registry.load("methods", "speaks")
    assert (method.PAPER, method.VERSION, method.RECIPES) == ("", 1, ())
    assert (method.MATCHES_ON_NETWORK, method.REDUCED_PRECISION) == (False, True)
    options = method.Options()
    assert method.settle(options, data_card(), 1) == (options, None)
    assert method.headline == "A method of somebody's"


def test_no_plug_in_of_ours_repeats_what_its_contract_has_as_well() -> None:
    for kind in registry.KINDS:
        for name, plugin in registry.load_all(kind).usable.items():
            if registry.is_built_in(kind, name):
                default, own = vars(type(plugin)), vars(plugin.module)
                assert not [key for key in default if key.isupper() and key in own and own[key] == default[key]]
