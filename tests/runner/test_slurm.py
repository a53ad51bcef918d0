"""What is said to Slurm and understood of it, with small programs in the place of its commands."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dambench.core.errors import BadInput
from dambench.runner import slurm
from dambench.runner.slurm import JobLook, SlurmCluster, SlurmSettings


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the path, with Slurm's commands, which say nothing; submitit seems to be there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for program in ("sbatch", "srun", "squeue", "scancel", "sacct"):
        _does(folder, program, "exit 0")
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there("json" if name == "submitit" else name))
    return folder


def _does(folder: Path, program: str, script: str) -> None:
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)


def _said(folder: Path, program: str) -> str:
    return (folder / f"{program}.said").read_text().strip()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90m", 90), ("2 h", 120), ("36h", 2160), ("2d", 2880), ("1:30:00", 90), ("30:00", 30), ("30:01", 31),
     ("2-12", 3600), ("1-0:30", 1470), ("1-00:00:30", 1441)],
)  # fmt: skip
def test_a_time_limit_is_read_as_slurm_and_as_people_write_it(text: str, minutes: int) -> None:
    assert slurm.minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "0:00", "-5", "soon", "5 weeks", "1:2:3:4", "\x1b[2J", "1.5h"])
def test_what_is_no_time_limit_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(BadInput, match=r"--time .* is no time: 90m, 36h or 2d") as error:
        slurm.minutes_of(text)
    assert "\x1b" not in str(error.value)


def test_before_anything_is_queued_slurm_is_asked_whether_it_would_take_it(programs: Path) -> None:
    _does(programs, "sbatch", f'echo "$@" > {programs}/sbatch.said')
    slurm.check(
        SlurmSettings(partition="gpu", minutes=90, gres="gpu:1", memory="8G", flags={"nice": "5", "spread-job": ""})
    )
    assert _said(programs, "sbatch") == (
        "--test-only --cpus-per-task=1 --gres=gpu:1 --mem=8G --nice=5 --partition=gpu --requeue --spread-job --time=90 "
        "--wrap true"
    )
    _does(programs, "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(BadInput, match=r"^Slurm would not take such a job: invalid partition specified: gpu$"):
        slurm.check(SlurmSettings(partition="gpu"))


def test_where_something_is_missing_one_sentence_says_what(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        BadInput, match=r"^--grace 200 is more than half of --time, 5 min: too little is left to work\.$"
    ):
        slurm.check(SlurmSettings(minutes=5, grace=200))
    (programs / "sbatch").unlink()
    with pytest.raises(BadInput, match=r"^--executor slurm needs Slurm's sbatch, which is not on the path of this"):
        slurm.check(SlurmSettings())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r'submitit, which is not installed: pip install "dambench\[slurm\]"$'):
        slurm.check(SlurmSettings())


def test_jobs_are_looked_for_in_slurms_queue_and_then_in_its_accounts(programs: Path, tmp_path: Path) -> None:
    _does(programs, "squeue", "echo '7_0|RUNNING|None|n1\n7_1|PENDING|Priority|\n9|PENDING|Resources|'")
    _does(
        programs, "sacct", f'echo "$@" > {programs}/sacct.said; echo "8_2|CANCELLED by 1000|None|n2\n8_3|TIMEOUT||n1"'
    )
    cluster = SlurmCluster(tmp_path)
    assert cluster.look(["7_0", "7_1", "8_2", "6_6"]) == {
        "7_0": JobLook("RUNNING", "", "n1"),
        "7_1": JobLook("PENDING", "Priority", ""),
        "8_2": JobLook("CANCELLED", "", "n2"),
    }
    assert "-j 6,8 " in _said(programs, "sacct")
    (programs / "sacct.said").unlink()
    assert set(cluster.look(["7_0", "9"])) == {"7_0", "9"}
    assert not (programs / "sacct.said").exists()
    _does(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert cluster.look(["8_2"]) == {}
    _does(programs, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        BadInput, match=r"^Slurm does not say how its jobs stand: .*Unable to contact slurm controller$"
    ):
        cluster.look(["7_0"])


def test_a_command_of_slurms_that_does_not_answer_is_given_up(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "COMMAND_SECONDS", 0.1)
    _does(programs, "squeue", "exec /bin/sleep 5")
    with pytest.raises(BadInput, match=r"^Slurm's squeue did not answer within 0 s\.$"):
        SlurmCluster(tmp_path).look(["7"])


def test_the_base_program_never_imports_submitit() -> None:
    code = (
        "import sys; sys.modules['submitit'] = None; import dambench.cli.commands, dambench.runner.slurm, "
        "dambench.runner.slurm_job, dambench.__main__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
