"""`dambench export`, and back by the command that it prints."""

import shlex
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import torch

from dambench.cli import export
from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.config import Choice
from dambench.store.runs import Store
from tests.cli.lab import DM, printed
from tests.ledger import add, config


def test_what_is_printed_imports_the_same_set(capsys: pytest.CaptureFixture[str]) -> None:
    run = printed(capsys, *DM)
    sha256 = run["synthetic_sha256"]
    for format in ("safetensors", "pt", "triple", "npz"):
        facts = printed(capsys, "export", run["run"][:4], "--format", format)
        assert facts["sha256"] == sha256
        assert facts["command"].startswith(f"dambench import {run['run']}")
        assert printed(capsys, *shlex.split(facts["command"])[1:])["sha256"] == sha256
    saved = torch.load(f"{run['run']}.pt", weights_only=True)
    assert saved["accs_all_exps"] == {run["network"]: [score["accuracy"] for score in run["scores"]]}

    facts = printed(capsys, "export", run["run"], "--format", "folder", "-o", "pictures")
    assert (facts["format"], facts["files"], facts["labels"]) == ("folder", 10, "hard")
    assert "were rounded to pixels of 8 bits" in facts["notes"][0]

    assert run_cli(["export", sha256[:9], "-o", "set.png", "--db", "none.db"]) == 0
    assert Path("set.png").is_file()
    assert not Path("none.db").exists()
    files.set_path(sha256).write_bytes(b"damaged")
    assert run_cli(["export", run["run"], "-o", "other.pt"]) == 2
    assert "is damaged: its content is not that of its name" in capsys.readouterr().err
    files.set_path(sha256).unlink()
    assert run_cli(["export", run["run"], "-o", "other.pt"]) == 2
    assert "is not on this machine: `dambench db bundle`" in capsys.readouterr().err
    assert not Path("other.pt").exists()


WRONG = {
    ("export", "nothing"): "No run has the id 'nothing'",
    ("export", "RUN", "--format", "mat"): "mat",
    ("export", "RUN", "-o", "a.tiff"): "'a.tiff' cannot be written: a set has the suffix .safetensors or .pt or",
    ("export", "RUN", "--format", "pt", "--images", "3"): "--images is for png",
    ("export", "RUN"): "The set of the run {run} is the whole dataset",
}


@pytest.mark.parametrize(("command", "said"), WRONG.items(), ids=[" ".join(command) for command in WRONG])
def test_what_cannot_be_exported_is_said(
    ledger_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], said: str
) -> None:
    (run,) = printed(capsys, "runs", "--filter", "method:whole")
    words = [run["id"] if word == "RUN" else word for word in command]
    if said.startswith("The set"):
        with closing(Store.open(ledger_path, write=True)) as store:
            store.tables.execute("update runs set set_sha256 = dataset_sha256 where id = ?", run["id"])
    before = sorted(Path.cwd().iterdir())
    assert run_cli(words) == 2
    assert said.format(run=run["id"]) in capsys.readouterr().err
    assert [path for path in Path.cwd().iterdir() if path not in before and "runs.db" not in path.name] == []


def test_the_settings_of_its_dataset_are_in_the_command(tmp_path: Path) -> None:
    folder = Choice("folder", {"size": 32, "range": "0..16", "mirrors": False})
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run = add(store, msgspec.structs.replace(config("dm"), dataset=folder))
    words = [*("--dataset", "folder", "--set", "dataset.size=32", "--set", "dataset.range=0..16")]
    assert export._find(run, None).dataset == (*words, "--set", "dataset.mirrors=false")
