"""One iteration of the methods of today beside DM's: same network, batch and IPC; DANCE and NCFM in the official form.

Those that store mosaics look at four images for each that DM has, and at them twice where there is a loss under a
trained network. So DM is there with mosaics, too. What is compared is the processor's time, not the clock's, so that
others who work on the machine matter less. Networks are not trained: weights do not change what an iteration takes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

from benchmarks.contest import OFFICIAL, PROCESSOR, Contest, Form, Measure, Scene, of_processor
from benchmarks.distil import policy, problem_of
from benchmarks.images import CIFAR10, TINY, Shape, card
from benchmarks.official_mosaics import Condensation
from dambench import networks
from dambench.core.config import read
from dambench.methods import atom, dance, datadam, dm, dsdm, idm, m3d, ncfm, tgdd
from dambench.training.policy import micro_batch
from dambench.training.problem import Step


@dataclass(frozen=True)
class Setting:
    shape: Shape = CIFAR10
    batch_real: int = 128
    ipc: int = 10
    width: int = 64
    frequencies: int = 1024


QUICK = Setting(TINY, 6, ipc=2, width=4, frequencies=16)

CASES: tuple[tuple[str, ModuleType, dict[str, object]], ...] = (
    ("DM", dm, {}),
    ("DM, mosaics", dm, {"factor": 2, "init": "mix"}),
    ("DANCE", dance, {}),
    ("TGDD", tgdd, {}),
    ("NCFM", ncfm, {}),
    ("NCFM, its sampling network", ncfm, {"sampled_by": "network"}),
    ("M3D", m3d, {}),
    ("DSDM", dsdm, {}),
    ("DataDAM", datadam, {"power": 4.0, "balance": 0.01}),
    ("ATOM", atom, {"balance": 0.01}),
    ("IDM, without training", idm, {"trained": 0}),
)

BESIDE_DM = (
    "DM, mosaics",
    "DANCE",
    "TGDD",
    "NCFM",
    "NCFM, its sampling network",
    "M3D",
    "DSDM",
    "IDM, without training",
)


def ours(method: ModuleType, more: dict[str, object], setting: Setting, device: str) -> Callable[[], Step]:
    """What takes the next iteration each time it is called."""
    shape = card(setting.shape)
    name = f"convnet-d3-w{setting.width}"
    how = policy("fp32", device, micro_batch(device, networks.map_bytes(name, shape)))
    problem = problem_of(setting.shape, setting.ipc, name, how, dry_run=True)
    asked: dict[str, object] = {
        "iterations": 10**9,
        "batch_real": setting.batch_real,
        "frequencies": setting.frequencies,
    }
    known = {option: value for option, value in asked.items() if option in method.Options.__struct_fields__}
    events: Iterator[object] = method.distill(problem, read(method.Options, known | more, "the benchmark"))
    return lambda: next(event for event in events if isinstance(event, Step))


def contest(scene: Scene) -> Contest:
    setting = QUICK if scene.quick else replace(Setting(), width=128) if scene.cuda else Setting()

    def of_ours(method: ModuleType, more: dict[str, object]) -> Measure:
        step = ours(method, more, setting, scene.device)
        return lambda: of_processor(step, scene.device)

    def of_theirs(method: str) -> Measure:
        theirs = Condensation(
            method,
            setting.shape,
            ipc=setting.ipc,
            batch_real=setting.batch_real,
            width=setting.width,
            frequencies=setting.frequencies,
            device=scene.device,
        )
        return lambda: of_processor(theirs.step, scene.device)

    warmups = 0 if scene.quick else 1
    forms = [Form(name, partial(of_ours, method, more), warmups=warmups) for name, method, more in CASES]
    for name in ("DANCE", "NCFM"):
        forms.append(Form(f"{name}, official", partial(of_theirs, name), OFFICIAL, warmups=warmups))
    ratios = [(name, "DM") for name in BESIDE_DM]
    ratios += [("ATOM", "DataDAM"), ("DANCE, official", "DANCE"), ("NCFM, official", "NCFM")]
    compared = "seconds" if scene.cuda else PROCESSOR
    return Contest(tuple(forms), tuple(ratios), compared=compared)
