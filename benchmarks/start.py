"""How long a run takes to begin: from the start of `dambench run` to the end of its first iteration.

Beside it, in the same rounds, Python that only imports torch: nothing can begin sooner. The dataset is prepared before.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.contest import DEFAULT, ROOT, Contest, Form, Measure, Results, Scene
from benchmarks.images import MNIST, TINY, Shape, labels, pixels
from dambench.core import files
from dambench.core.events import Stepped
from dambench.store.runs import Store

IMPORT = "import torch"
ITERATION = "seconds of the iteration"


# All that this benchmark knows of dambench.


def first_step(arguments: list[str]) -> dict[str, float]:
    """Run dambench for one iteration; when, after its start, it had taken it, and how long that took by itself."""
    folder = files.home()
    folder.mkdir(parents=True, exist_ok=True)
    db = folder / f"start-{time.time_ns()}.db"
    command = [sys.executable, "-m", "dambench", "run", "--headless", "--method", "dm", "--ipc", "10", "--db", str(db)]
    # What follows the iteration is not looked at, and short.
    command += ["--iterations", "1", "--evaluate-on", "convnet-d1-w1", "--eval-repeats", "1", *arguments]
    began = time.time()
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    store = Store.open(db)
    (row,) = store.query("select at from events where kind = 'stepped'")
    run_id = store.query("select id from runs")[0]["id"]
    (step,) = (event for _, event in store.tail(run_id) if isinstance(event, Stepped))
    store.close()
    return {"seconds": datetime.fromisoformat(row["at"]).timestamp() - began, ITERATION: step.seconds}


def arrays(shape: Shape) -> Path:
    """The images as a file that the dataset `arrays` reads."""
    path = files.home() / f"{shape.name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train, test = (pixels(shape, tests).numpy() for tests in (False, True))
        y_train, y_test = (labels(shape.classes, len(images)).numpy() for images in (train, test))
        np.savez(path, x_train=train, y_train=y_train, x_test=test, y_test=y_test)
    return path


# The contest.


def contest(scene: Scene) -> Contest:
    shape, network, batch = (TINY, "convnet-d1-w4", 10) if scene.quick else (MNIST, "convnet-d3-w128", 64)
    # The program is started as a user does, without settings for malloc, which it makes itself.
    device = ["--device", scene.device]

    def import_torch() -> Measure:
        def measure() -> dict[str, float]:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            return {"seconds": time.perf_counter() - began}

        return measure

    def digits() -> Measure:
        return lambda: first_step(["--dataset", "digits", *device])

    def mnist() -> Measure:
        data = ["--dataset", "arrays", "--data", str(arrays(shape)), "--network", network]
        return lambda: first_step([*data, "--set", f"method.batch_real={batch}", *device])

    runs: dict[str, Callable[[], Measure]] = {
        "dambench run, digits": digits,
        f"dambench run, {shape.name} shapes": mnist,
    }

    def figures(results: Results) -> dict[str, float]:
        found = {}
        for name in runs:
            rounds = list(zip(results[name], results[IMPORT], strict=True))
            after = [ours["seconds"] - torch["seconds"] for ours, torch in rounds]
            rest = [ours["seconds"] - torch["seconds"] - ours[ITERATION] for ours, torch in rounds]
            found[f"{name}: after import torch, seconds"] = median(after)
            found[f"{name}: and without the iteration, seconds"] = median(rest)
        return found

    forms = [Form(IMPORT, import_torch, allocator=DEFAULT)]
    # Warming up prepares the dataset.
    forms += [Form(name, prepare, allocator=DEFAULT) for name, prepare in runs.items()]
    return Contest(tuple(forms), tuple((name, IMPORT) for name in runs), figures=figures)
