"""Ray executor: each run is an actor somewhere in a Ray cluster, and one more writes the database, on its host.

What a run says comes by way of a spool (`store/spool.py`), so that an actor, the writer or a host may be killed at any
time. Here actors are begun, found again by their names, and asked to stop. Where no address is given, a cluster of this
host alone is begun, which ends with its worker.
"""

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from dambench.core import files
from dambench.core.errors import BadInput, NotKept
from dambench.core.sanitize import display
from dambench.runner import remote
from dambench.runner.executors import Outcome, Site, Wishes, environment_of
from dambench.runner.remote import THREADS, Ended, Order
from dambench.store.queue import Queued
from dambench.store.records import AttemptSuperseded
from dambench.store.rows import SqlRow
from dambench.store.spool import Answer, Batch, Begun, Intake, Seed, Unreachable

INSTALL = 'pip install "dambench[ray]"'
OLDEST, NEWEST = (2, 59), (3, 0)
"""Ray from the first version on whose local clusters ask for a token, and before the one that may be another thing."""
NAMESPACE = "dambench"
OBJECT_STORE_BYTES = 200 * 2**20
"""What passes through it are batches and pieces of files."""
REACH_SECONDS = 5.0
"""Within which the host of an address must answer."""
PROBE_SECONDS = 120.0
"""Within which each host must say what it has."""
ANSWER_SECONDS = 60.0
"""After which a batch is sent again."""
COLLECT_SECONDS = 300.0
"""For which the actor of a run that has ended waits for somebody to ask how."""
LOOK_SECONDS = 5.0
OPTIONS = {"address": "HOST:PORT of a cluster, or auto", "gpus": "GPUs of a run, as 1 or 0.5"}


class Writer:
    """The actor that writes the database, on its host.

    Args:
        path: the database.
        home: DAMBENCH_HOME of its host, where the files of runs go.
    """

    def __init__(self, path: str, home: str):
        os.environ["DAMBENCH_HOME"] = home
        self._intake = Intake(Path(path))

    def call(self, name: str, *values: Any) -> tuple[str, Any]:
        """Call a method of the intake. What goes wrong comes back in words: not every exception can be sent."""
        try:
            return "", getattr(self._intake, name)(*values)
        except AttemptSuperseded:
            return "superseded", None
        except BadInput as error:
            return "bad", str(error)
        except NotKept as error:
            return "not kept", str(error)

    def pid(self) -> int:
        """Its process, for tests."""
        return os.getpid()


class WriterPlace(NamedTuple):
    """All that is needed to find the writer of a database, or to begin it anew."""

    path: str
    home: str
    node: str
    """Ray's id of the database's host."""
    code: str
    """The source of dambench: an actor of another one stays what it was."""

    @property
    def name(self) -> str:
        key = "\n".join((self.path, self.home, self.code))
        return f"writer-{blake2b(key.encode(), digest_size=12).hexdigest()}"


class RayLink:
    """The way from a host of the cluster to the writer."""

    def __init__(self, place: WriterPlace):
        self._place = place
        self._actor: Any = None

    def _call(self, name: str, *values: Any) -> Any:
        import ray

        try:
            if self._actor is None:
                self._actor = writer(self._place)
            wrong, answer = ray.get(self._actor.call.remote(name, *values), timeout=ANSWER_SECONDS)
        except (ray.exceptions.RayError, TimeoutError, ConnectionError, ValueError) as error:
            self._actor = None
            raise Unreachable(f"the writer does not answer: {type(error).__name__}") from error
        match wrong:
            case "superseded":
                raise AttemptSuperseded
            case "bad":
                raise BadInput(answer)
            case "not kept":
                raise NotKept(answer)
        return answer

    def begin(self, run: str, held: Sequence[int]) -> Begun:
        return Begun(*self._call("begin", run, list(held)))

    def seed(self, run: str, claim: int, also: Sequence[str]) -> Seed:
        return Seed(*self._call("seed", run, claim, list(also)))

    def take(self, batch: Batch) -> Answer:
        return Answer(*self._call("take", batch))

    def lacks(self, run: str, claim: int, name: str) -> int | None:
        missing: int | None = self._call("lacks", run, claim, name)
        return missing

    def add(self, run: str, claim: int, name: str, offset: int, content: bytes, last: bool) -> int | None:
        here: int | None = self._call("add", run, claim, name, offset, content, last)
        return here

    def fetch(self, name: str, offset: int) -> bytes:
        return bytes(self._call("fetch", name, offset))

    def standing(self, run: str) -> SqlRow:
        return dict(self._call("standing", run))


def writer(place: WriterPlace) -> Any:
    """The writer's actor, which is begun if there is none. It begins again by itself where it was killed."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(Writer)
        .options(
            name=place.name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
        )
        .remote(place.path, place.home)
    )


class Runner:
    """The actor of one run, on the host that carries it out."""

    def __init__(self, order: Order, place: WriterPlace):
        self._ended: Ended | None = None
        self._over, self._asked = threading.Event(), threading.Event()
        self._order, self._place = order, place
        threading.Thread(target=self._carry_out, name="run", daemon=True).start()

    def _carry_out(self) -> None:
        try:
            self._ended = remote.carry_out(self._order, RayLink(self._place), self._asked.is_set)
        except Exception as error:  # a fault of ours: nobody must wait for ever
            self._ended = Ended("failed", display(f"{type(error).__name__}: {error}", 400))
        self._over.set()
        time.sleep(COLLECT_SECONDS)
        os._exit(0)  # nobody asks: what there is to know is in the database

    def wait(self) -> tuple[str, str]:
        """Wait until the run has ended, and say how."""
        self._over.wait()
        assert self._ended is not None
        return self._ended

    def stop(self) -> None:
        """Ask the run to stop with a checkpoint."""
        self._asked.set()


def runner_name(run: str) -> str:
    return f"run-{run}"


@dataclass
class RayHandle:
    """A queued run, and the actor that carries it out."""

    queued: Queued
    actor: Any
    answer: Any
    """What the actor says once the run has ended."""
    cpus: float
    gpus: float


def open(site: Site, wishes: Wishes) -> "RayExecutor":
    """Open it: reach the cluster, or begin one, and see that all its hosts have the same dambench.

    Raises:
        BadInput: Ray is not installed, the cluster is not there, or a host of it has another dambench or Python.
    """
    for option in wishes.options:
        if option not in OPTIONS:
            known = "; ".join(f"--{name}: {what}" for name, what in OPTIONS.items())
            raise BadInput(f"--{display(option, 40)} is not of the Ray executor. It takes {known}.")
    gpus = _gpus(wishes.options.get("gpus", ""))
    if any(not re.fullmatch("cpu|cuda|auto", device) for device in wishes.devices) or len(wishes.devices) > 1:
        raise BadInput(
            f"--device {display(','.join(wishes.devices), 60)}: which GPU a run gets is Ray's choice. It can be "
            "cpu, cuda or auto."
        )
    _check_installed()
    address = wishes.options.get("address", "")
    cluster = _Cluster(address)
    try:
        _check_hosts(cluster)
        return RayExecutor(site, cluster, wishes.workers, gpus, wishes.devices[0] if wishes.devices else "")
    except BaseException:
        cluster.close()
        raise


def _gpus(text: str) -> float | None:
    if not text:
        return None
    with suppress(ValueError):
        gpus = float(text)
        if 0 <= gpus <= 1:
            return gpus
    raise BadInput(f"--gpus {display(text, 40)!r} is not what a run can have: 1, a part of one as 0.5, or 0.")


def _check_installed() -> None:
    from importlib import metadata

    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise BadInput(f"--executor ray needs Ray, which is not installed: {INSTALL}") from None
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not OLDEST <= number < NEWEST:
        raise BadInput(f"--executor ray needs Ray 2.59 or newer, before 3, and this is {version}: {INSTALL}")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals as they are: Ray has ideas of its own."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


class _Cluster:
    """A connection to a Ray cluster; only one at a time in a process.

    Raises:
        BadInput: it cannot be reached.
    """

    def __init__(self, address: str):
        self.address = address
        shown = display(address, 80)
        if address.startswith("ray://"):
            raise BadInput(
                f"--address {shown!r} is of Ray's client: name the HOST:PORT that `ray start` has said. The host of "
                "the database is itself one of the cluster's."
            )
        if address and address != "auto":
            _reach(address)
        # A token is asked for everywhere, nothing is sent to Ray's makers, and there is no dashboard.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        with suppress(OSError):
            (Path.home() / ".ray").mkdir(mode=0o700, exist_ok=True)
        how: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
        if address:
            how["address"] = address
        else:
            how |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        with _own_signals():
            import ray

            try:
                ray.init(**how)
            except Exception as error:  # of many kinds
                lines = str(error).strip().splitlines() or [type(error).__name__]
                what = f"The Ray cluster {shown!r} cannot be used" if address else "A Ray cluster cannot be begun"
                hint = (
                    f" This host must be one of it (`ray start --address={shown}` here), and have its token in "
                    "~/.ray/auth_token."
                    if address
                    else ""
                )
                raise BadInput(f"{what}: {display(lines[0], 300)}.{hint}") from None
        self._ray = ray
        self._looked, self._nodes = 0.0, list[dict[str, Any]]()

    def nodes(self) -> list[dict[str, Any]]:
        """The hosts that are there now, as Ray describes them."""
        if not self._looked or time.monotonic() - self._looked > LOOK_SECONDS:
            with self.reached():
                self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._nodes

    def total(self, resource: str) -> float:
        """How much of a resource, CPU or GPU, all hosts have."""
        return sum(float(node["Resources"].get(resource, 0.0)) for node in self.nodes())

    def largest(self, resource: str) -> float:
        return max((float(node["Resources"].get(resource, 0.0)) for node in self.nodes()), default=0.0)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Ask the cluster.

        Raises:
            NotKept: it is not there any more.
        """
        try:
            yield
        except (self._ray.exceptions.RaySystemError, ConnectionError, RuntimeError) as error:
            raise NotKept(f"The Ray cluster does not answer any more: {display(str(error), 200)}") from error

    def here(self) -> str:
        """Ray's id of this host."""
        return str(self._ray.get_runtime_context().get_node_id())

    def close(self) -> None:
        with suppress(Exception), _own_signals():
            self._ray.shutdown()


def _reach(address: str) -> None:
    """See that somebody listens at an address.

    Raises:
        BadInput: nobody does.
    """
    shown = display(address, 80)
    match = re.fullmatch(r"\[?([^\]/]+?)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise BadInput(f"--address {shown!r} is no address: HOST:PORT, as `ray start --head` says it, or auto.")
    try:
        with socket.create_connection((match[1], int(match[2])), timeout=REACH_SECONDS):
            pass
    except OSError as error:
        why = "nobody answers" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise BadInput(
            f"There is no Ray cluster at {shown!r}: {display(why, 100)}. `ray start --head` on that host begins one."
        ) from None


def _check_hosts(cluster: _Cluster) -> None:
    """See that all hosts have the same dambench and Python.

    Raises:
        BadInput: one of them has not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = [
        (
            str(node["NodeManagerHostname"]),
            ray.remote(remote.about_here.__wrapped__)
            .options(
                num_cpus=0,
                max_retries=1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(),
        )
        for node in cluster.nodes()
    ]
    until = time.monotonic() + PROBE_SECONDS
    for host, answer in asked:
        try:
            theirs = ray.get(answer, timeout=max(0.1, until - time.monotonic()))
        except Exception as error:  # whatever a host that has another Python or no dambench says
            lacks = "ModuleNotFoundError" in str(error)
            why = "it has no dambench" if lacks else f"it does not say what it has: {type(error).__name__}"
            raise BadInput(
                f"The host {display(host, 60)} of the Ray cluster cannot be used: {why}. Install dambench "
                f"{remote.about_here().dambench} there, in the Python that runs Ray."
            ) from None
        if wrong := remote.difference(remote.about_here(), theirs, host):
            raise BadInput(f"The host {wrong}")


class RayExecutor:
    """Where runs are actors of a Ray cluster.

    Args:
        workers: how many runs at once; None: as many as the cluster has room for.
        gpus: of each run; None: one where the cluster has any.
        device: that runs are to use, where they do not say.
    """

    def __init__(self, site: Site, cluster: _Cluster, workers: int | None, gpus: float | None, device: str):
        self._site, self._cluster, self._gpus, self._device = site, cluster, gpus, device
        self.slots = workers or max(1, int(cluster.total("CPU")))
        self.devices = [
            f"{display(str(node['NodeManagerHostname']), 60)}: "
            + ", ".join(f"{node['Resources'].get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
            for node in cluster.nodes()
        ]
        self._place = WriterPlace(
            str(site.path.absolute()), str(files.home().absolute()), cluster.here(), remote.about_here().code
        )
        self._handles: list[RayHandle] = []

    def _needs(self, queued: Queued) -> tuple[float, float]:
        """The CPUs and GPUs of a run."""
        device = queued.device or self._device
        gpus = 0.0 if device == "cpu" else self._gpus
        if gpus is None:
            gpus = 1.0 if device.startswith("cuda") or self._cluster.total("GPU") else 0.0
        return float(queued.threads or 1), gpus

    def fits(self, queued: Queued) -> bool:
        cpus, gpus = self._needs(queued)
        if len(self._handles) >= self.slots:
            return False
        if cpus > self._cluster.largest("CPU") or gpus > self._cluster.largest("GPU"):
            return False
        taken = sum(handle.cpus for handle in self._handles), sum(handle.gpus for handle in self._handles)
        return taken[0] + cpus <= self._cluster.total("CPU") and taken[1] + gpus <= self._cluster.total("GPU")

    def start(self, queued: Queued) -> RayHandle:
        import ray

        cpus, gpus = self._needs(queued)
        with self._cluster.reached():
            actor = (
                ray.remote(Runner)
                .options(
                    name=runner_name(queued.run),
                    namespace=NAMESPACE,
                    get_if_exists=True,  # where it goes on already it is followed
                    lifetime="detached",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    max_concurrency=4,
                    max_restarts=0,
                    scheduling_strategy="SPREAD",
                )
                .remote(self._order(queued, gpus), self._place)
            )
            handle = RayHandle(queued, actor, actor.wait.remote(), cpus, gpus)
        self._handles.append(handle)
        return handle

    def _order(self, queued: Queued, gpus: float) -> Order:
        request, of = dict(queued.request), ""
        if queued.command == "run":
            if str(request.get("device", "auto")) == "auto" and self._device:
                request["device"] = self._device
            if str(request.get("device", "")).startswith("cuda"):
                request["device"] = "cuda"  # of those that Ray gives it, it is the first
        elif queued.command == "evaluate":
            made = self._site.store.with_uid(str(queued.request.get("of", "")))
            if made is None:
                raise BadInput("The run whose set is to be evaluated is not in the database.")
            of = made.id
        ours = {name: os.environ[name] for name in THREADS if name in os.environ}
        environment = ours | environment_of(queued)
        return Order(queued.run, queued.command, request, of, environment, remote.about_here())

    def poll(self, handle: RayHandle) -> Outcome | None:
        import ray

        with self._cluster.reached():
            if not ray.wait([handle.answer], timeout=0)[0]:
                return None
        outcome = self._answered(handle)
        self._handles.remove(handle)
        self._end(handle)
        return outcome

    @staticmethod
    def _end(handle: RayHandle) -> None:
        """End the actor of a run that has ended, so that its name is free when the run is gone on with."""
        import ray

        with suppress(Exception):
            ray.kill(handle.actor)
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until:
            try:
                ray.get_actor(runner_name(handle.queued.run), namespace=NAMESPACE)
            except Exception:  # there is none of that name
                return
            time.sleep(0.02)

    @staticmethod
    def _answered(handle: RayHandle) -> Outcome:
        import ray

        try:
            state, reason = ray.get(handle.answer)
        except ray.exceptions.RayActorError:
            return Outcome("lost", "its host, or what carried it out there, is gone")
        except ray.exceptions.RayError as error:
            return Outcome("lost", display(f"Ray: {str(error).strip().splitlines()[0]}", 300))
        return Outcome(state, reason, run=handle.queued.run if state == "finished" else "")

    def stop(self, handle: RayHandle) -> None:
        with self._cluster.reached():
            handle.actor.stop.remote()

    def close(self) -> None:
        if not self._handles:  # nobody writes any more, as far as we know; another writer begins where one does
            with suppress(Exception):
                import ray

                ray.kill(ray.get_actor(self._place.name, namespace=NAMESPACE))
        self._handles.clear()
        self._cluster.close()
