"""The Ray executor where there is no Ray, or what was asked of it is wrong."""

import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest

from dambench.core.errors import BadInput
from dambench.runner.executors import Site, Wishes, open_executor
from dambench.store.runs import Store


def _open(tmp_path: Path, **options: str) -> None:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        open_executor("ray", Site(tmp_path / "runs.db", store, "ab" * 16), Wishes(options=options))


def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(BadInput, match=r'needs Ray, which is not installed: pip install "dambench\[ray\]"$'):
        _open(tmp_path)


@pytest.mark.parametrize("version", ["2.58.1", "3.0.0", "1.13"])
def test_a_ray_of_another_age_is_refused(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(BadInput, match=f"needs Ray 2.59 or newer, before 3, and this is {version}"):
        _open(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "long"}, "--partition is not of the Ray executor. It takes --address: .*; --gpus: "),
        ({"gpus": "two"}, "--gpus 'two' is not what a run can have: 1, a part of one as 0.5, or 0"),
        ({"gpus": "2"}, "--gpus '2' is not what a run can have"),
        ({"gpus": "nan"}, "--gpus 'nan' is not what a run can have"),
        ({"address": "ray://head:10001"}, "of Ray's client"),
        ({"address": "head"}, "'head' is no address: HOST:PORT"),
        ({"address": "head:99999"}, "'head:99999' is no address"),
        ({"address": "127.0.0.1:1"}, "There is no Ray cluster at '127.0.0.1:1': Connection refused"),
        ({"address": "no-such-host.invalid:6379"}, "There is no Ray cluster at 'no-such-host.invalid:6379': "),
    ],
)
def test_what_is_wrong_with_a_wish_is_one_sentence(
    options: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.60.0")
    with pytest.raises(BadInput, match=words):
        _open(tmp_path, **options)


def test_nothing_but_the_executor_imports_ray() -> None:
    code = (
        "import sys; sys.modules['ray'] = None; import dambench.runner.executors.ray, dambench.runner.remote, "
        "dambench.cli.commands, dambench.store.spool; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
