"""A Ray cluster of several nodes on this machine, and a queue that is carried out on it while things are killed.

    python ray_story.py FOLDER STORY ITERATIONS

It prints what came of it, as JSON. Run by test_ray.py in an environment of its own, which has Ray.
"""

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import update_wrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster

from dambench.core import files
from dambench.core.errors import BadInput
from dambench.runner import remote
from dambench.runner.executors import Outcome, Site, Wishes, open_executor
from dambench.runner.executors.ray import NAMESPACE, RayExecutor
from dambench.store.queue import Queue, Queued
from dambench.store.runs import Store

WORKER = "ab" * 16


def request(iterations: int) -> dict[str, Any]:
    return {
        **{"dataset": "digits", "network": "convnet-d1-w4", "iterations": iterations, "eval_repeats": 2},
        **{"device": "cpu", "threads": 1, "checkpoint_every": 0.0, "method": {"name": "dm", "batch_real": 8}},
    }


class Story:
    """A cluster whose head has the database, and two nodes with a home each."""

    def __init__(self, base: Path, iterations: int):
        self.base, self.path = base, base / "runs.db"
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 90 * 2**20, "include_dashboard": False},
        )
        self.nodes: dict[str, Any] = {}
        for name in ("a", "b"):
            self.add_node(name)
        self.store = Store.open(self.path, write=True)
        self.queue = Queue(self.store)
        facts: dict[str, Any] = {"method": "dm", "dataset": "digits", "ipc": 1, "network": "", "protocol": ""}
        facts |= {"settings": {}, "tag": "", "priority": 0, "place": 0.0, "after": [], "threads": 1, "device": "cpu"}
        facts |= dict.fromkeys(("seconds", "peak_memory_bytes", "disk_bytes"))
        new = [
            self.queue.new(request(iterations) | {"seed": seed}, key=str(seed), seed=seed, **facts) for seed in (0, 1)
        ]
        self.queue.add(new)
        self.executor = self.open()
        self.outcomes: list[tuple[str, str, str]] = []
        self.kills = 0

    def add_node(self, name: str) -> None:
        self.nodes[name] = self.cluster.add_node(
            num_cpus=1, object_store_memory=80 * 2**20, env_vars={"DAMBENCH_HOME": str(self.base / name)}
        )

    def open(self) -> RayExecutor:
        wishes = Wishes(options={"address": self.cluster.address})
        executor = open_executor("ray", Site(self.path, self.store, WORKER), wishes)
        assert isinstance(executor, RayExecutor)
        return executor

    def work(self, meanwhile: Callable[[], None], seconds: float = 400.0) -> None:
        """What a worker does, until the queue is empty."""
        until, handles = time.monotonic() + seconds, []
        while time.monotonic() < until:
            while one := self.queue.take(WORKER, self.executor.fits):
                handles.append(self.executor.start(one))
            for handle in list(handles):
                if outcome := self.executor.poll(handle):
                    handles.remove(handle)
                    self.note(handle.queued, outcome)
            if not handles and next(self.queue.ready(), None) is None:
                return
            meanwhile()
            time.sleep(0.1)
        raise AssertionError(f"it took longer than {seconds} s: {self.outcomes}")

    def note(self, one: Queued, outcome: Outcome) -> None:
        self.outcomes.append((one.id, outcome.state, outcome.reason))
        if outcome.state == "finished":
            self.queue.finish(one, outcome.run)
        elif outcome.state == "failed":
            self.queue.fail(one, outcome.reason)
        else:
            self.queue.release(one, outcome.reason, lost=True)

    def done(self) -> list[int]:
        return [row["done"] for row in self.store.query("select done from runs where phase = 'distil'")]

    def processes(self) -> dict[str, tuple[str, int]]:
        """The processes of runs: their node and pid, by run."""
        found = {}
        for name in self.nodes:
            for path in (self.base / name / "spool").glob("*/process.json"):
                with suppress(ValueError):
                    found[path.parent.name.partition(".")[0]] = name, int(json.loads(path.read_text())[2])
        return found

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def undisturbed(story: Story) -> None:
    story.work(lambda: None)


def workers(story: Story) -> None:
    """Kill what carries out a run, and then the process of a run, each time that they have got further."""
    next_at = [time.monotonic() + 15.0]

    def meanwhile() -> None:
        if story.kills >= 6 or time.monotonic() < next_at[0] or not any(story.done()):
            return
        for _, pid in list(story.processes().values())[: 1 + story.kills % 2]:
            with suppress(OSError):
                story.kill(_parent(pid) if story.kills % 2 else pid)
        next_at[0] = time.monotonic() + 6.0

    story.work(meanwhile)


def writer(story: Story) -> None:
    """Kill the writer again and again while two runs speak."""
    next_at = [0.0]

    def meanwhile() -> None:
        if story.kills >= 5 or time.monotonic() < next_at[0] or not any(story.done()):
            return
        actor = ray.get_actor(story.executor._place.name, namespace=NAMESPACE)
        with suppress(ray.exceptions.RayError):
            story.kill(ray.get(actor.pid.remote(), timeout=30))
        next_at[0] = time.monotonic() + 2.0

    story.work(meanwhile)


def node(story: Story) -> None:
    """Remove a node, abruptly, once its run has a checkpoint; another one comes later."""
    removed: list[float] = []

    def meanwhile() -> None:
        if not removed and story.done() and min(story.done()) > 20 and len(story.done()) == 2:
            story.cluster.remove_node(story.nodes.pop("a"), allow_graceful=False)
            removed.append(time.monotonic())
            story.kills += 1
            story.add_node("c")

    story.work(meanwhile)


def version(story: Story) -> None:
    """A host with another source of dambench."""
    here = remote.about_here()
    # What hosts are asked is that which this one's is made from: they are as they were, and this one is another.
    another = update_wrapper(lambda: here._replace(code="another"), lambda: here)
    story.executor.close()
    with patch.object(remote, "about_here", another):
        try:
            story.open()
        except BadInput as error:
            story.outcomes.append(("", "refused", str(error)))


def main(base: Path, name: str, iterations: int) -> None:
    home = base / "user" / ".ray"
    home.mkdir(parents=True, mode=0o700)
    (home / "auth_token").write_text(secrets.token_hex(32))
    began = time.monotonic()
    story = Story(base, iterations)
    opened = time.monotonic()
    with closing(story.store):
        {act.__name__: act for act in (undisturbed, workers, writer, node, version)}[name](story)
        took = time.monotonic() - opened
        left = story.queue.counts()
    with suppress(Exception):
        story.executor.close()
    story.cluster.shutdown()
    print(
        json.dumps(
            {
                "outcomes": story.outcomes,
                "kills": story.kills,
                "queue": left,
                "open_s": opened - began,
                "work_s": took,
                "home": str(files.home()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
