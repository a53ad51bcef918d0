"""A database that comes from elsewhere may hold anything: what is wrong is said, and what is right is still taken."""

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dambench.cli.app import run_cli
from dambench.core import files
from dambench.core.errors import BadInput
from dambench.core.events import Checkpointed, Process, Resumed
from dambench.runner import processes
from dambench.store.merge import merge
from dambench.store.runs import Store
from dambench.training.environment import without_secrets
from tests.ledger import CARD, ENVIRONMENT, add, config, tables, words

FOREIGN: dict[str, object] = {"bytes": b"\xff\x00", "a text": "x", "nothing": None, "a number": -1.5, "JSON": "[]"}


@pytest.fixture
def loose(tmp_path: Path) -> tuple[Path, str, str]:
    """A database whose tables take any value, with two runs: a good one, and one to be spoilt."""
    path = tmp_path / "loose.db"
    with closing(Store.open(path, write=True)) as store:
        good = add(store, config("random"))
        spoilt = store.create(config("dm"), CARD, tags=["a"])
        said = list(words(config("dm")))
        kept = Checkpointed(iteration=1, sha256="c" * 64, size_bytes=9, seconds=0.1)
        list(store.record(spoilt, iter([*said[:3], kept, *said[3:]])))
        number = store.run(spoilt).number
        store.db.conn.execute("insert into samples (run, sequence, seconds) values (?, 100, 1.0)", [number])
        store.db.conn.execute("insert into previews values (?, 1, x'')", [number])
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("pragma journal_mode = delete")
        plain.execute("pragma writable_schema = on")
        plain.execute(
            "update sqlite_master set sql = replace(replace(replace(sql, ') strict, without rowid', ') without rowid'),"
            " ') strict', ')'), ' not null', '') where type = 'table'"
        )
        plain.commit()
    return path, good, spoilt


def _spoil(path: Path, table: str, column: str, value: object, run: str) -> bool:
    with closing(sqlite3.connect(path, isolation_level=None)) as plain:
        (number,) = plain.execute("select number from runs where id = ?", [run]).fetchone()
        mine = {row[1] for row in plain.execute(f"pragma table_info({table})")}
        which = "run" if "run" in mine else "number" if "number" in mine else ""
        where = f" where {which} = {number}" if which else ""
        try:
            return bool(plain.execute(f"update or ignore {table} set {column} = ?{where}", [value]).rowcount)
        except sqlite3.Error:
            return False


def _columns(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as plain:
        return [(t, row[1]) for t in tables(plain) for row in plain.execute(f"pragma table_info({t})")]


@pytest.mark.parametrize(
    ("what", "every"), [("bytes", 5), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in FOREIGN)]
)
def test_one_run_with_a_value_that_no_dambench_wrote_stops_no_other_from_being_merged(
    what: str, every: int, loose: tuple[Path, str, str], tmp_path: Path
) -> None:
    whole, good, spoilt = loose
    path, refused = tmp_path / "spoilt.db", 0
    with closing(Store.open(tmp_path / "mine.db", write=True)) as mine:
        for table, column in _columns(whole)[::every]:
            shutil.copyfile(whole, path)
            if not _spoil(path, table, column, FOREIGN[what], spoilt):
                continue
            mine.db.conn.execute("delete from runs")
            found = merge(mine, path)
            assert good in found.added or (table in ("datasets", "protocols") and len(found.refused) == 2), column
            assert len(found.added) + len(found.refused) == 2, (table, column)
            refused += len(found.refused)
            assert mine.query("pragma integrity_check") == [{"integrity_check": "ok"}]
    assert refused > 30 / every


COMMANDS = [["runs"], ["report"], ["show", "RUN"], ["logs", "RUN"], ["db", "check"]]


@pytest.mark.parametrize(
    ("what", "every"), [("bytes", 9), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in FOREIGN)]
)
def test_a_value_that_no_dambench_wrote_is_a_sentence_in_every_command(
    what: str, every: int, loose: tuple[Path, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _, spoilt = loose
    path, said = tmp_path / "spoilt.db", 0
    for table, column in _columns(whole)[::every]:
        shutil.copyfile(whole, path)
        _spoil(path, table, column, FOREIGN[what], spoilt)
        for command in COMMANDS:
            code = run_cli([*(spoilt if word == "RUN" else word for word in command), "--db", str(path)])
            assert code in (0, 1, 2)
            error = capsys.readouterr().err
            said += "is not as a dambench wrote it" in error
    assert said > 3


def test_the_check_of_a_database_names_the_rows_that_are_not_as_dambench_writes(
    loose: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, spoilt = loose
    assert run_cli(["db", "check", "--db", str(path)]) == 0
    assert "every row is such as dambench writes" in capsys.readouterr().out
    _spoil(path, "runs", "name", b"\xff", spoilt)
    _spoil(path, "events", "at", "yesterday", spoilt)
    assert run_cli(["db", "check", "--json", "--db", str(path)]) == 1
    told = [f["detail"] for f in json.loads(capsys.readouterr().out) if f["what"] == "contents"]
    assert any("name is" in fault and "no text" in fault for fault in told)
    assert any("'yesterday', which is no time" in fault for fault in told)


def test_only_a_log_that_was_written_here_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.log"
    secret.write_text("my secret\n")
    mine = files.log_folder() / "x.log"
    files.write_whole(mine, b"its words\n")
    (files.log_folder() / "link.log").symlink_to(secret)
    (files.log_folder() / "inside").mkdir()
    here = processes.this_process()
    shown = {
        (str(mine), here.host): True,
        (str(mine), "elsewhere"): False,
        (str(secret), here.host): False,
        (str(files.log_folder() / "link.log"), here.host): False,
        (str(files.log_folder() / ".." / ".." / "secret.log"), here.host): False,
        (f"{mine}\0", here.host): False,
        ("/etc/passwd", here.host): False,
    }
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run = add(store, config())
        for (log, host), expected in shown.items():
            store.db.conn.execute("update runs set log = ?, host = ?", [log, host])
            capsys.readouterr()
            assert run_cli(["logs", run]) == 0
            said = capsys.readouterr()
            assert ("its words" in said.out) == expected
            assert ("this is what it said" in said.err) == (not expected)
            assert "secret" not in said.out
            assert "root:" not in said.out


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", "", "a" * 31, "A" * 32])
def test_no_path_is_made_of_what_a_row_says(name: str) -> None:
    with pytest.raises(BadInput, match="no dambench has given it"):
        files.run_folder(name)
    with pytest.raises(BadInput, match="is not the SHA-256"):
        files.set_path(name)
    assert files.find_set(name) is None


def test_whoever_goes_on_with_a_run_in_another_environment_is_on_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Process(host=socket.gethostname(), boot="b", pid=1, started=1)
    said = list(words(config()))
    resumed = [
        Resumed(
            attempt=attempt,
            iteration=iteration,
            checkpoint="c" * 64,
            process=here,
            environment=msgspec.structs.replace(
                ENVIRONMENT, threads=threads, command_line=f"dambench resume {attempt}"
            ),
        )
        for attempt, iteration, threads in ((2, 1, 7), (3, 1, 7))
    ]
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        run = store.create(config(), CARD)
        list(store.record(run, iter(said[:4])))
        list(store.record(run, iter([resumed[0]]), attempt=2))
        list(store.record(run, iter([resumed[1], *said[4:]]), attempt=3))
    assert run_cli(["show", run]) == 0
    out = capsys.readouterr().out
    assert "threads 2" in out
    assert "attempt 2, from iteration 2 on, made with: threads 7\n" in out
    assert "attempt 3, from iteration 2 on, made with: the same\n" in out
    assert run_cli(["show", run, "--json"]) == 0
    attempts = json.loads(capsys.readouterr().out)["attempts"]
    assert [(a["attempt"], a["environment"]["threads"]) for a in attempts] == [(2, 7), (3, 7)]


def test_a_stored_command_line_carries_no_secret() -> None:
    said = (
        "run --token=abc --hf-token abc --password abc --set method.api_key=abc KEY=abc --ipc 10 -x --key --name mine"
    )
    assert " ".join(without_secrets(said.split())) == (
        "run --token=… --hf-token … --password … --set method.api_key=… KEY=… --ipc 10 -x --key --name mine"
    )
    urls = [
        "https://me:abc@host/x",
        "--data=s3://abc@bucket/x?a=1&token=abc&b=2",
        "hf_abcdefghijklmnop",
        "ghp_" + "a" * 36,
    ]
    assert without_secrets(urls) == ["https://…@host/x", "--data=s3://…@bucket/x?a=1&token=…&b=2", "…", "…"]
    usual = ["run", "--dataset", "cifar10", "--set", "method.lr_images=0.5", "--tag", "monkey=3", "--data", "/a/b@c"]
    assert without_secrets(usual) == usual
