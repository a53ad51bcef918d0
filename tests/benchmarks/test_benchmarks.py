"""The benchmarks work; what they measure is not looked at."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import readme, records
from benchmarks.contest import DEFAULT, KEPT, NAMES, ROOT, Contest, Form, Scene, Workers, hold, load
from benchmarks.worker import Bench, machine
from dambench.testing.problems import global_seed

QUICK = Scene("cpu", quick=True)


def silent(text: str) -> None:
    pass


def held(name: str) -> records.Record:
    """A contest at tiny sizes, all in this process, and its record."""
    contest = load(name, QUICK)
    with global_seed(0):
        results = hold(contest, Bench().ask, 1, silent)
    return records.record(name, contest, QUICK, results, machine("cpu"), 0.25, "a note")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("console", "floors", "opening", "queue", "report")))
        for name in NAMES
        if name != "start"
    ],
)
def test_every_form_of_a_benchmark_measures_and_is_recorded(name: str, tmp_path: Path) -> None:
    one = held(name)
    path = tmp_path / "records.jsonl"
    records.append(one, path)
    records.append(one | {"note": "another"}, path)
    assert records.read(path) == [one, one | {"note": "another"}]
    check(one)
    assert one["ratios"]


def check(one: records.Record) -> None:
    """Whether a record has what the tables need, and what a reader has to know."""
    assert one["benchmark"] in NAMES
    assert one["at"].endswith("+00:00")
    assert {"rounds", "device", "load_before", "note"} <= one.keys()
    said = {"cpu", "gpu", "cpus", "threads", "torch", "python", "cuda", "git_commit", "git_dirty", "dambench"}
    assert said <= one["machine"].keys()
    for form in one["forms"].values():
        assert form["allocator"] in (DEFAULT, KEPT)
        for spread in form["measured"].values():
            assert len(spread["values"]) == one["rounds"]
            assert 0 <= spread["min"] <= spread["median"]
    for name, ratio in one["ratios"].items():
        assert set(name.split(" / ")) <= one["forms"].keys()
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert all(isinstance(value, int | float) for value in one["figures"].values())


def test_the_records_that_are_kept_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    found = records.read()
    for one in found:
        check(one)
    records.show(found)
    assert capsys.readouterr().out.count("load") >= len(found)


def test_the_floor_is_counted_flops_at_the_speed_of_a_convolution() -> None:
    figures = held("distil")["figures"]
    for precision in ("fp32", "bf16"):
        floor = figures["tiny n=6, counted, GFLOP"] / figures[f"ceiling {precision}, GFLOP/s"]
        assert figures[f"tiny n=6, counted, floor {precision}, seconds"] == pytest.approx(floor)
    # Three blocks of width 4 on 32², 16² and 8² pixels and a classifier, 2 FLOPs for each weight and place.
    forward = 2 * (36 * 32**2 + 144 * 16**2 + 144 * 8**2 + 64 * 3)
    counted = figures["tiny n=6, counted, GFLOP"] * 1e9
    # 18 real images forwards, 6 synthetic ones forwards and back; the classifier's output is not gone back from.
    assert counted == pytest.approx(18 * forward + 6 * 2 * forward, rel=0.01)


def test_a_worker_has_its_allocator_and_its_own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    started: list[dict[str, str]] = []

    class Recorder:
        def __init__(self, benchmark: str, scene: Scene, environment: dict[str, str]):
            started.append(environment)
            self.machine: dict[str, str] = {}

        def __enter__(self) -> "Recorder":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def ask(self, form: str, warm: bool) -> dict[str, float]:
            return {"seconds": float(len(started))}

    monkeypatch.setattr("benchmarks.contest.Worker", Recorder)
    forms = tuple(
        Form(f"{side} {allocator} {fresh}", lambda: dict, side, allocator, fresh=fresh)
        for side in ("official", "ours")
        for allocator in (DEFAULT, KEPT)
        for fresh in (False, True)
    )
    with Workers("distil", QUICK) as workers:
        results = hold(Contest(forms), workers.ask, 3, silent)
    assert all(len(rounds) == 3 for rounds in results.values())
    assert len(started) == 4 + 3 * 4
    for environment in started:
        malloc = {name for name in environment if name.startswith("MALLOC_")}
        assert malloc in (set(), {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"})
        assert environment["DAMBENCH_HOME"] != os.environ["DAMBENCH_HOME"]


def test_a_worker_that_breaks_ends_the_contest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One that has begun as it should; a real one would import torch first.
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho '{\"machine\": {}}'\nread asked\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with Workers("testpass", QUICK) as workers, pytest.raises(RuntimeError, match="a worker ended with code 1"):
        workers.ask(Form("not there", lambda: dict), False)


def test_every_second_round_goes_backwards() -> None:
    forms = tuple(Form(name, lambda: dict) for name in "abc")
    asked: list[tuple[str, bool]] = []

    def ask(form: Form, warm: bool) -> dict[str, float]:
        asked.append((form.name, warm))
        return {}

    hold(Contest(forms), ask, 2, silent)
    assert "".join(name for name, warm in asked if warm) == "abc"
    assert "".join(name for name, warm in asked if not warm) == "abccba"


def run(*words: str) -> None:
    """`python -m benchmarks`, in this process, which has torch already; its workers are processes of their own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["benchmarks", *words])
        runpy.run_path(str(ROOT / "benchmarks" / "__main__.py"), run_name="__main__")


def test_one_command_asks_workers_and_prints_tables(capfd: pytest.CaptureFixture[str]) -> None:
    before = records.RECORDS.read_bytes() if records.RECORDS.exists() else b""
    run("testpass", "--quick", "--note", "just looking")
    said = capfd.readouterr().out
    assert "just looking" in said
    assert "w4, official / w4, ours" in said
    assert (records.RECORDS.read_bytes() if records.RECORDS.exists() else b"") == before


def test_a_record_says_how_many_commits_changed_the_measured_code_since(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        named = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    heads = []
    for number, name in enumerate(("engine", "engine", "docs", "engine")):
        (tmp_path / name).write_text(str(number))
        git("add", ".")
        git("commit", "-q", "-m", name)
        heads.append(git("rev-parse", "HEAD"))
    assert [records.commits_since(head, ["engine"], tmp_path) for head in heads] == [2, 1, 1, 0]
    assert records.commits_since("0" * 40, ["engine"], tmp_path) is None


def test_records_are_shown_with_their_ranges_and_their_age(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [one for one in records.read() if one["benchmark"] == "evaluation"][:1]
    records.show(shown)
    text = capsys.readouterr().out
    assert re.search(r"what +median +min +max", text)
    assert re.search(r"between this record and now(: \d+| is not known)", text)


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("speed")
    assert ended.value.code == 2
    assert "there is no benchmark 'speed'" in capsys.readouterr().err


@pytest.mark.slow
def test_all_benchmarks_run_by_one_command() -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert f"\n{name}: " in done.stdout
    assert "dambench run, digits / import torch" in done.stdout


# What the README says of speed.


def test_the_readme_s_figures_of_speed_are_those_of_the_newest_records() -> None:
    text = readme.README.read_text()
    assert readme.renewed(text, records.read()) == text, "python -m benchmarks.readme writes them anew"


def test_a_new_record_is_written_to_the_readme_where_its_sentences_are() -> None:
    text, newest = readme.README.read_text(), [json.loads(json.dumps(one)) for one in records.read()]
    (distil,) = [one for one in newest if one["benchmark"] == "distil"][-1:]
    distil["figures"]["MNIST n=128 DM, fp32 / floor fp32"] = 9.87
    distil["forms"]["MNIST n=128 DM, fp32"]["measured"]["seconds"] = {"median": 7.5, "values": [7.25, 7.5, 8.0]}
    other = readme.renewed(text, newest)
    assert "(DM 9.9)" in other
    assert "| 7.50 (7.25–8.00) |" in other
    changed = [new for old, new in zip(text.splitlines(), other.splitlines(), strict=True) if old != new]
    assert len(changed) == 2
    with pytest.raises(ValueError, match="no place for"):
        readme.renewed(text.replace("(BatchNorm", "(with BatchNorm"), newest)
