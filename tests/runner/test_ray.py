"""Two nodes of Ray on this machine: whatever is killed, no row is lost or doubled, and scores are the same."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dambench.store.runs import Store
from tests.environment import python_with

ROOT = Path(__file__).parents[2]
SECONDS = 600.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has Ray besides all that is installed here: DAMBENCH_RAY_PYTHON, or made now."""
    if ready := os.environ.get("DAMBENCH_RAY_PYTHON"):
        return Path(ready)
    return python_with("ray>=2.59,<3", tmp_path_factory.mktemp("ray") / "environment")


def _environment(base: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAMBENCH_", "RAY_"))}
    return kept | {
        "HOME": str(base / "user"),
        "DAMBENCH_HOME": str(base / "head"),
        "DAMBENCH_DB": str(base / "runs.db"),
        "DAMBENCH_DISK": "local",
        "XDG_CACHE_HOME": str(base / "cache"),
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "7",  # what a run is told is what holds
    }


def _play(python: Path, base: Path, story: str, iterations: int) -> dict[str, Any]:
    base.mkdir()
    command = [str(python), "-m", "tests.runner.ray_story", str(base), story, str(iterations)]
    done = subprocess.run(
        command, cwd=base, env=_environment(base), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(story, found)
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """What is in a database of its runs, which must be whole, by seed."""
    with closing(Store.open(path)) as store:
        assert store.query("pragma integrity_check") == [{"integrity_check": "ok"}]
        found = []
        for row in store.query("select * from runs order by seed"):
            number = row["number"]
            steps = store.query(
                "select json_extract(body, '$.iteration') i, json_extract(body, '$.losses') losses from events "
                "where run = ? and kind = 'stepped' order by i",
                number,
            )
            assert [step["i"] for step in steps] == list(range(1, len(steps) + 1))
            (environment,) = store.query("select threads from environments where run = ?", number)
            found.append(
                {
                    "seed": row["seed"],
                    "state": row["state"],
                    "set": row["set_sha256"],
                    "steps": steps,
                    "threads": environment["threads"],
                    "scores": store.query("select repeat, accuracy, loss from scores where run = ? order by 1", number),
                }
            )
        return found


def _local(base: Path, iterations: int) -> list[dict[str, Any]]:
    """The same two runs on this machine, which nobody interrupts."""
    base.mkdir()
    words = ["run", "--headless", "--dataset", "digits", "--method", "dm", "--network", "convnet-d1-w4"]
    words += ["--iterations", str(iterations), "--eval-repeats", "2", "--device", "cpu", "--threads", "1"]
    words += ["--set", "method.batch_real=8", "--seeds", "0,1"]
    subprocess.run([sys.executable, "-m", "dambench", *words], cwd=base, env=_environment(base), check=True)
    return _rows(base / "runs.db")


@pytest.mark.parametrize(
    ("story", "iterations"), [("undisturbed", 30), ("workers", 400), ("writer", 400), ("node", 400)]
)
def test_whatever_is_killed_the_queue_is_carried_out_as_on_one_machine(
    story: str, iterations: int, python: Path, tmp_path: Path
) -> None:
    found = _play(python, tmp_path / "ray", story, iterations)
    assert found["queue"] == {"finished": 2}
    assert found["kills"] >= {"undisturbed": 0, "workers": 4, "writer": 5, "node": 1}[story]
    if story == "writer":
        assert {state for _, state, _ in found["outcomes"]} == {"finished"}  # the runs did not notice
    rows = _rows(tmp_path / "ray" / "runs.db")
    assert [row["threads"] for row in rows] == [1, 1]
    assert rows == _local(tmp_path / "local", iterations)


def test_a_host_with_another_dambench_is_refused_before_anything_is_begun(python: Path, tmp_path: Path) -> None:
    found = _play(python, tmp_path / "ray", "version", 1)
    assert found["queue"] == {"waiting": 2}
    ((_, state, reason),) = found["outcomes"]
    assert state == "refused"
    assert reason.endswith("has another source of dambench 0.1.0 than this host: install the same on both.")
