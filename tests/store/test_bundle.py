"""Bundles: runs with the files of their sets, for another machine."""

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.events import AnyEvent, Finished, Snapshot
from dambench.store import bundle
from dambench.store.runs import Store
from tests.ledger import CARD, PNG, config, costs, words


def _set(value: float, whitening: str = "") -> bytes:
    """The file of a set, as far as bundles look at it."""
    about = json.dumps({"whitening": whitening})
    return safetensors.numpy.save({"images": np.full((2, 1, 8, 8), value, np.float32)}, {"dambench": about})


def _run(store: Store, seed: int, content: bytes) -> str:
    """A finished run whose set has this content."""
    run, sha256 = config("dm", seed=seed), files.digest(content)
    made = Snapshot(iteration=2, sha256=sha256, size_bytes=len(content), shape=[2], dtype="float32", preview=PNG)
    run_id = store.create(run, CARD)
    ends: list[AnyEvent] = [made, Finished(set_sha256=sha256, costs=costs())]
    list(store.record(run_id, iter([*list(words(run))[:5], *ends])))
    return run_id


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of two runs with sets, one of them whitened, on a machine that then is another one."""
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "there"))
    zca = safetensors.numpy.save({"matrix": np.eye(2, dtype=np.float32)})
    sets = [_set(1.0), _set(2.0, files.digest(zca))]
    files.write_whole(files.whitening_path("d" * 64, files.digest(zca)), zca)
    for content in sets:
        files.write_whole(files.set_path(files.digest(content)), content)
    with closing(Store.open(tmp_path / "there.db", write=True)) as store:
        yield [_run(store, seed, content) for seed, content in enumerate(sets)]


def _bundle(target: str, *more: str) -> int:
    return run_cli(["db", "bundle", target, "--db", "there.db", *more])


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _kept(home: Path) -> dict[str, bytes]:
    """The sets and whitenings of a machine."""
    return {name: content for name, content in _tree(home).items() if name.endswith(".safetensors")}


@pytest.mark.parametrize("target", ["all.tar", "all"])
def test_a_bundle_brings_runs_sets_and_whitenings_to_another_machine_twice_as_good_as_once(
    target: str, there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bundle(target) == 0
    assert _bundle("again.tar") == 0
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))
    capsys.readouterr()
    assert run_cli(["db", "merge", target, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (sorted(found["added"]), found["sets"], found["missing"]) == (sorted(there), 2, [])
    assert _kept(tmp_path / "here") == _kept(tmp_path / "there")
    assert run_cli(["db", "merge", target, "again.tar", "there.db", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["added"], found["unchanged"], found["sets"]) == ([], 6, 0)


def test_the_same_runs_give_the_same_bytes_and_nothing_is_written_over(
    there: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bundle("a.tar") == _bundle("b.tar") == _bundle("folder") == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open("a.tar") as tar:
        assert {member.name: _content(tar, member) for member in tar} == _tree(tmp_path / "folder")
    before = _tree(tmp_path)
    for target in ("a.tar", "folder", "a.zip"):
        assert _bundle(target) == 2
    assert _bundle("folder", "--overwrite") == 2
    assert _bundle("none.tar", "--filter", "method:mtt") == 2
    assert _tree(tmp_path) == before
    assert _bundle("a.tar", "--overwrite", "--filter", "seed:1") == 0
    with closing(Store.open(tmp_path / "here.db", write=True)) as here:
        assert bundle.merge_all(here, [tmp_path / "a.tar"]).added == there[1:]


def test_what_is_missing_or_damaged_is_said_and_the_rest_is_bundled(
    there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (files.set_path(files.digest(content)) for content in (_set(1.0), _set(2.0)))
    first.unlink()
    capsys.readouterr()
    assert _bundle("missing.tar") == 0
    assert f"left out: sets/{first.name} of {there[0]}." in capsys.readouterr().err
    (second,) = (tmp_path / "there" / "sets").iterdir()
    second.write_bytes(second.read_bytes()[:-1])
    assert _bundle("damaged.tar") == 1
    assert f"{second} is left out" in capsys.readouterr().err
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))
    assert run_cli(["db", "merge", "damaged.tar", "missing.tar", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["sets"] == 1
    assert f"The sets of 2 runs are not here, and cannot be evaluated: {' '.join(sorted(there))}" in shown.err


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a file of the archive."""
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _rewritten(path: Path, change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> None:
    """The tar with each of its members changed."""
    with tarfile.open(path) as tar:
        members = [(member, _content(tar, member)) for member in tar]
    with tarfile.open(path, "w") as tar:
        for old in members:
            for member, content in change(*old):
                tar.addfile(member, io.BytesIO(content))


def _beside(**changes: Any) -> Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]:
    def change(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if member.name != "runs.db":
            return [(member, content)]
        more = tarfile.TarInfo(changes.pop("name"))
        for name, value in changes.items():
            setattr(more, name, value)
        return [(more, b""), (member, content)]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_beside(name="../evil"), "has a name that no bundle has"),
        (_beside(name="/tmp/evil"), "has a name that no bundle has"),
        (_beside(name="sets/../../evil.safetensors"), "has a name that no bundle has"),
        (_beside(name=f"sets/{'a' * 64}.safetensors", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain file"),
        (_beside(name=f"sets/{'a' * 64}.safetensors", type=tarfile.LNKTYPE, linkname="runs.db"), "no plain file"),
        (_beside(name="runs.db", type=tarfile.FIFOTYPE), "no plain file"),
        (_beside(name="runs.db"), "is in it twice"),
        (lambda member, content: [(member, content)] if member.name != "runs.db" else [], "it has no runs.db"),
        (
            lambda member, content: (
                [] if member.name == "runs.db.sha256" else [(member, b"not a database " * (len(content) // 15 + 1))]
            ),
            "is not a database",
        ),
    ],
)
def test_what_no_bundle_holds_is_refused_and_nothing_is_taken_in(
    change: Any,
    said: str,
    there: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _bundle("good.tar") == _bundle("bad.tar") == 0
    _rewritten(tmp_path / "bad.tar", change)
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))
    Store.open(tmp_path / "runs.db", write=True).close()
    before = hashlib.sha256((tmp_path / "runs.db").read_bytes()).hexdigest()
    capsys.readouterr()
    assert run_cli(["db", "merge", "good.tar", "bad.tar"]) == 2
    assert said in capsys.readouterr().err
    assert not _kept(tmp_path / "here")
    assert not (tmp_path.parent / "evil").exists()
    assert hashlib.sha256((tmp_path / "runs.db").read_bytes()).hexdigest() == before


@pytest.mark.parametrize("target", ["flipped.tar", "flipped"])
@pytest.mark.parametrize("name", ["runs.db", "runs.db.sha256"])
def test_any_flipped_byte_of_a_bundle_s_runs_is_noticed_before_anything_is_taken_in(
    target: str,
    name: str,
    there: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _bundle(target) == 0
    whole = tmp_path / target if target.endswith(".tar") else tmp_path / target / name
    begin, content = 0, whole.read_bytes()
    end = len(content)
    if target.endswith(".tar"):
        with tarfile.open(whole) as tar:
            begin, end = tar.getmember(name).offset_data, tar.getmember(name).offset_data + tar.getmember(name).size
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))
    draw = random.Random(0)
    for place in draw.sample(range(begin, min(end, begin + 64) if "sha" in name else end), 5):
        flipped = bytes([content[place] ^ 1 << draw.randrange(8)])
        whole.write_bytes(content[:place] + flipped + content[place + 1 :])
        capsys.readouterr()
        assert run_cli(["db", "merge", target]) == 2, place
        assert "its runs.db is damaged, or was changed" in capsys.readouterr().err
    whole.write_bytes(content)
    assert not (tmp_path / "runs.db").exists()
    assert not _kept(tmp_path / "here")
    assert run_cli(["db", "merge", target]) == 0


def test_a_bundle_of_before_that_has_no_digest_is_merged(there: list[str], tmp_path: Path) -> None:
    assert _bundle("old.tar") == 0
    _rewritten(
        tmp_path / "old.tar", lambda member, content: [] if member.name == "runs.db.sha256" else [(member, content)]
    )
    with closing(Store.open(tmp_path / "here.db", write=True)) as here:
        assert sorted(bundle.merge_all(here, [tmp_path / "old.tar"]).added) == sorted(there)


def test_a_set_that_is_not_what_its_name_says_is_left_out_and_the_others_are_taken_in(
    there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bundle("bad.tar") == 0
    wrong = files.digest(_set(1.0))

    def changed(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        stray = tarfile.TarInfo(f"sets/{'a' * 64}.safetensors")
        if wrong in member.name:
            return [(stray, b""), (member, content[:-1] + b"x")]
        return [(member, content)]

    _rewritten(tmp_path / "bad.tar", changed)
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))
    capsys.readouterr()
    assert run_cli(["db", "merge", "bad.tar", "--json"]) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["sets"], found["missing"], len(found["added"])) == (1, there[:1], 2)
    assert f"sets/{wrong}.safetensors of bad.tar is not taken in" in shown.err
    assert sorted(_kept(tmp_path / "here")) == [name for name in sorted(_kept(tmp_path / "there")) if wrong not in name]


def test_a_merge_that_is_cut_short_is_completed_by_doing_it_again(
    there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bundle("all.tar") == 0
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "here"))

    class Killed(BaseException):
        """What nothing catches."""

    def killed(*given: Any) -> None:
        raise Killed

    for place in ("dambench.store.bundle.whitening_of", "dambench.store.merge._merge_run"):
        with monkeypatch.context() as patched:
            patched.setattr(place, killed)
            with closing(Store.open(tmp_path / "runs.db", write=True)) as store, pytest.raises(Killed):
                bundle.merge_all(store, [tmp_path / "all.tar"])
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        assert store.query("select * from runs") == []
        assert sorted(bundle.merge_all(store, [tmp_path / "all.tar"]).added) == sorted(there)
    assert _kept(tmp_path / "here") == _kept(tmp_path / "there")


@pytest.mark.slow
def test_a_merge_killed_at_any_moment_leaves_whole_sets_and_all_runs_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMBENCH_HOME", str(tmp_path / "there"))
    with closing(Store.open(tmp_path / "there.db", write=True)) as store:
        for seed in range(20):
            content = _set(float(seed))
            files.write_whole(files.set_path(files.digest(content)), content)
            _run(store, seed, content)
    assert _bundle("all.tar") == 0
    draw, killed = random.Random(5), 0
    words = [sys.executable, "-m", "dambench", "db", "merge", "all.tar", "--db"]
    for attempt in range(30):
        home = tmp_path / f"home{attempt}"
        monkeypatch.setenv("DAMBENCH_HOME", str(home))
        with subprocess.Popen([*words, f"{attempt}.db"], stdout=subprocess.DEVNULL) as process:
            while not home.exists() and process.poll() is None:
                time.sleep(0.001)  # until the first set comes
            time.sleep(draw.uniform(0.0, 0.4))
            process.kill()
        killed += process.returncode == -9
        sets = list(home.glob("sets/*.safetensors"))
        assert all(files.sha256(path) == path.stem for path in sets)
        runs = 0
        if (tmp_path / f"{attempt}.db").exists():
            with closing(Store.open(tmp_path / f"{attempt}.db")) as store:
                runs = len(store.query("select id from runs"))
        assert (runs, len(sets)) == (20, 20) or runs == 0
        subprocess.run([*words, f"{attempt}.db"], check=True, stdout=subprocess.DEVNULL)
        assert _kept(home) == _kept(tmp_path / "there")
    assert killed > 5
