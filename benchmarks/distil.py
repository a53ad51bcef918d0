"""One iteration of distillation: DM and DataDAM, ours and the official form.

Everything of an iteration is in it: drawing the real images, augmentation, a new network, the loss, its gradient and
the step of the images.

The floor is what the machine would need for the convolutions alone: the FLOPs that torch counts in the official form
(real forward, synthetic forward, gradient of the images) at the speed of the network's own inner convolution, measured
in the same rounds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.contest import (
    DEFAULT,
    KEPT,
    OFFICIAL,
    PROCESSOR,
    Contest,
    Form,
    Measure,
    Results,
    Scene,
    middle,
    of_processor,
    timed,
)
from benchmarks.images import CIFAR10, MNIST, TINY, Shape, card, real_set
from benchmarks.official import Distillation
from dambench import networks
from dambench.core.config import Execution, Precision, read
from dambench.methods import datadam, dc, dm, dsa
from dambench.training.policy import Policy, choose_precision, micro_batch
from dambench.training.problem import Problem, Seeds, Step

PRECISIONS: dict[str, tuple[Precision, ...]] = {"cpu": ("fp32", "bf16"), "cuda": ("tf32", "bf16", "fp32")}
"""In which ours computes, by kind of device, the default first; and of which the machine's ceiling is measured."""


def modes(scene: Scene) -> list[str]:
    """How ours computes: a precision, and `compiled` if the network is; the default first."""
    ways = ("",) if scene.quick else ("", " compiled")  # compiling takes longer than all else that is quick
    # On a GPU it takes most of the time, and float32 is there to compare with only.
    return [p + way for p in precisions(scene) for way in ways if not (scene.cuda and way and p == "fp32")]


def precisions(scene: Scene) -> tuple[Precision, ...]:
    return PRECISIONS["cuda" if scene.cuda else "cpu"]


CASES = (("DataDAM", "instance"), ("DM", "instance"), ("DataDAM", "batch"))
"""Method and norm; the released DataDAM uses BatchNorm, and its paper says InstanceNorm."""


@dataclass(frozen=True)
class Setting:
    shape: Shape
    batch_real: int
    """Real images per class."""
    ipc: int = 10
    width: int = 128

    @property
    def label(self) -> str:
        return f"{self.shape.name} n={self.batch_real}"


QUICK = Setting(TINY, 6, ipc=2, width=4)


# Ours: all that this benchmark knows of dambench.


def policy(mode: str, device: str, chunk: int = 0) -> Policy:
    """`bf16 compiled` → how to compute."""
    execution = Execution(
        device=device,
        compiled=mode.endswith(" compiled"),
        real_chunk=chunk,
        synthetic_chunk=chunk,
    )
    return Policy.of(execution, choose_precision(mode.split()[0], device), False)


def problem_of(shape: Shape, ipc: int, name: str, how: Policy, *, dry_run: bool = False) -> Problem:
    """What a method is given to work on with a network of that name; this process computes in that way from now on."""
    how.apply()
    known = card(shape)
    return Problem(
        real=real_set(shape, str(how.device)),
        card=known,
        ipc=ipc,
        seeds=Seeds(0),
        build_network=lambda: networks.build(name, known),
        policy=how,
        dry_run=dry_run,
    )


def ours(method: str, norm: str, mode: str, setting: Setting, device: str) -> Callable[[], Step]:
    """What takes the next iteration each time it is called."""
    shape = card(setting.shape)
    name = f"convnet-d3-w{setting.width}{'-bn' if norm == 'batch' else ''}"
    how = policy(mode, device, micro_batch(device, networks.map_bytes(name, shape)))
    problem = problem_of(setting.shape, setting.ipc, name, how)
    module = METHODS[method]
    asked = {"iterations": 10**9, "batch_real": setting.batch_real}
    if "updates" in module.Options.__struct_fields__:
        asked["updates"] = 1
    steps: Iterator[Step] = module.distill(problem, read(module.Options, asked, method))
    return lambda: next(steps)


METHODS = {"DM": dm, "DataDAM": datadam, "DC": dc, "DSA": dsa}


# The official form.


def official(method: str, norm: str, setting: Setting, device: str) -> Distillation:
    return Distillation(
        method,
        setting.shape,
        ipc=setting.ipc,
        batch_real=setting.batch_real,
        width=setting.width,
        norm=norm,
        device=device,
    )


def flops(setting: Setting, device: str) -> Measure:
    """Counted once, for DataDAM; DM's differ by the classifier, which it leaves out."""
    # Here, since it brings triton along, which a measurement of memory is not to see.
    from torch.utils.flop_counter import FlopCounterMode

    distillation = official("DataDAM", "instance", setting, device)
    with FlopCounterMode(display=False) as counter:
        distillation.step()
    return lambda: {"FLOP": float(counter.get_total_flops())}


def ceiling(precision: Precision, scene: Scene) -> Measure:
    """The inner convolution of the ConvNet, 128 → 128 channels on 16×16 pixels: seconds and its FLOPs per second.

    On a CPU 16 images, whose activations stay in the cache; on a GPU as many as an iteration has, channels last.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    Policy(torch.device(scene.device), precision=precision).apply()
    batch = 1 if scene.quick else 1280 if scene.cuda else 16
    order = torch.channels_last if scene.cuda else torch.contiguous_format
    images = torch.randn(batch, 128, 16, 16).to(scene.device, dtype, memory_format=order)
    convolution = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False)
    convolution = convolution.to(scene.device, dtype).to(memory_format=order).requires_grad_(False)
    work = 2 * 9 * 128 * 128 * 16 * 16 * batch

    def measure() -> dict[str, float]:
        seconds = min(
            timed(lambda: convolution(images), scene.device)["seconds"] for _ in range(3 if scene.quick else 30)
        )
        spent = min(of_processor(lambda: convolution(images), scene.device)[PROCESSOR] for _ in range(30))
        return {"seconds": seconds, "FLOP/s": work / seconds, "FLOP/processor s": work / spent}

    return measure


# The contest.


def contest(scene: Scene) -> Contest:
    settings = [QUICK if scene.quick else Setting(CIFAR10, 256) if scene.cuda else Setting(MNIST, 128)]
    # A GPU does an iteration in milliseconds.
    repeats = 10 if scene.cuda and not scene.quick else 1
    warmups = 0 if scene.quick else 2

    def the_official(method: str, norm: str, setting: Setting) -> Callable[[], Measure]:
        def prepare() -> Measure:
            distillation = official(method, norm, setting, scene.device)
            return lambda: timed(distillation.step, scene.device, repeats)

        return prepare

    def of_ours(method: str, norm: str, mode: str, setting: Setting) -> Callable[[], Measure]:
        def prepare() -> Measure:
            step = ours(method, norm, mode, setting, scene.device)

            def measure() -> dict[str, float]:
                policy(mode, scene.device).apply()  # the modes share a process
                return timed(step, scene.device, repeats)

            return measure

        return prepare

    forms: list[Form] = []
    ratios: list[tuple[str, str]] = []
    floors: dict[str, tuple[str, str]] = {}  # by form, where its FLOPs were counted, and the precision of its floor
    for setting in settings:
        count = f"{setting.label}, counted"
        for method, norm in CASES:
            what = f"{setting.label} {method}{' BatchNorm' if norm == 'batch' else ''}"
            baselines = []
            for allocator in scene.allocators:
                name = f"{what}, official{'' if allocator == KEPT else f' {DEFAULT}'}"
                baselines.append(name)
                floors[name] = (count, modes(scene)[0].split()[0])
                forms.append(Form(name, the_official(method, norm, setting), OFFICIAL, allocator, warmups))
            if len(baselines) > 1:
                ratios.append((baselines[0], baselines[1]))
            for mode in modes(scene):
                name = f"{what}, {mode}"
                floors[name] = (count, mode.split()[0])
                forms.append(Form(name, of_ours(method, norm, mode, setting), warmups=warmups))
                ratios += [(baseline, name) for baseline in baselines]
        forms.append(Form(count, partial(flops, setting, scene.device), OFFICIAL, warmups=0))
    for precision in precisions(scene):
        forms.append(Form(f"convolution, {precision}", partial(ceiling, precision, scene), warmups=warmups))

    def figures(results: Results) -> dict[str, float]:
        found: dict[str, float] = {}
        best = {p: max(m["FLOP/s"] for m in results[f"convolution, {p}"]) for p in precisions(scene)}
        found |= {f"ceiling {precision}, GFLOP/s": speed / 1e9 for precision, speed in best.items()}
        for count in dict.fromkeys(count for count, _ in floors.values()):
            of_iteration = middle(results, count, "FLOP")
            found[f"{count}, GFLOP"] = of_iteration / 1e9
            found |= {f"{count}, floor {p}, seconds": of_iteration / speed for p, speed in best.items()}
        for name, (count, precision) in floors.items():
            floor = found[f"{count}, floor {precision}, seconds"]
            found[f"{name} / floor {precision}"] = middle(results, name) / floor
        return found

    return Contest(tuple(forms), tuple(ratios), figures=figures)
