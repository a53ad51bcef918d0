"""What only a CUDA device can show: `make test-gpu`. Needs no network and no data but digits."""

import copy
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dambench import networks
from dambench.core.config import Precision, Request, read
from dambench.core.events import Finished, Measured, Sampled, Started, Warned
from dambench.core.protocol import DSA, Budget, Protocol
from dambench.engine.loop import run
from dambench.engine.settle import prepare
from dambench.matching.experts import Trajectories
from dambench.matching.optimised import LearnedImages
from dambench.matching.trajectories import TrajectoryMatching
from dambench.methods import datadam, dm
from dambench.runner.monitor import sampled
from dambench.testing import data_card, tiny_problem
from dambench.training.augmentation import augment, draw
from dambench.training.cuda_graph import WARM_UPS, Replayed
from dambench.training.policy import Policy
from dambench.training.problem import Network, Normalisation, Problem, RealSet, Seeds, Step, SyntheticSet
from dambench.training.train import predict, train, train_together
from tests.lab import adaptations, end_of, generator, noise, synthetic_set
from tests.matching.test_trajectories import experts_of, options, soft

pytestmark = [
    pytest.mark.gpu,
    # Of torch 2.9 to 2.12.
    pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32"),
]

CUDA = torch.device("cuda:0")
CARD = data_card((4, 4, 4), channels=3, size=(12, 14))


def _run(device: str, **more: Any) -> tuple[str, list[float]]:
    method = {"name": "dm", "batch_real": 32, "iterations": 20}
    request = Request(method=method, dataset="digits", ipc=2, device=device, eval_repeats=2, **more)
    events = list(run(prepare(request)))
    assert isinstance(events[-1], Finished), events[-1]
    assert all(cost.peak_memory_bytes > 0 for cost in events[-1].costs if cost.phase != "prepare")
    reserved = [cost.peak_reserved_bytes >= cost.peak_memory_bytes for cost in events[-1].costs]
    assert all(reserved) or device == "cpu"
    return events[-1].set_sha256, [float(event.values["accuracy"]) for event in events if isinstance(event, Measured)]


def test_a_run_on_the_gpu_learns_as_on_the_cpu() -> None:
    on_gpu, on_cpu = _run("cuda:0")[1], _run("cpu")[1]
    assert sum(on_gpu) / 2 == pytest.approx(sum(on_cpu) / 2, abs=0.1)


def test_deterministic_runs_on_the_gpu_give_the_same_bits() -> None:
    try:
        assert _run("cuda:0", deterministic=True) == _run("cuda:0", deterministic=True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_run_on_the_gpu_is_sampled_or_says_why_not() -> None:
    request = Request(method={"name": "random"}, dataset="digits", ipc=1, device="cuda:0", eval_repeats=5)
    events = list(sampled(run(prepare(request))))
    assert isinstance(events[0], Started)
    assert events[0].environment.device_uuid
    samples = [event for event in events if isinstance(event, Sampled)]
    assert samples
    notes = [event.message for event in events if isinstance(event, Warned)]
    known = [sample for sample in samples if sample.gpu_memory_used_bytes]
    assert known or any("No samples of the GPU" in note for note in notes)
    assert all(0 < (s.gpu_memory_used_bytes or 0) <= (s.gpu_memory_total_bytes or 0) for s in known)


# Functions as CUDA graphs.


class Descent:
    """A network of its own on the GPU, and steps that change it in place."""

    def __init__(self, name: str) -> None:
        self.network = networks.build(name, CARD)
        self.network.reset(generator())
        self.network.double().to(CUDA).train()
        self.in_python = 0

    def step(self, images: Tensor, labels: Tensor, lr: Tensor) -> Sequence[Tensor]:
        self.in_python += 1
        loss = F.cross_entropy(self.network(images), labels)
        parameters = list(self.network.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient * lr)
        return [loss, images.amax()]


@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-bn", "convnet-d2-w8-nn"])
def test_a_replayed_graph_does_what_its_function_does(name: str) -> None:
    plain, recorded = Descent(name), Descent(name)
    step = Replayed(recorded.step, CUDA, on_warning=pytest.fail)
    for number in range(3 * WARM_UPS + 6):
        # Two shapes in turn; every third time the inputs come from the CPU.
        count = 6 if number % 2 else 5
        images, labels = noise(count, 3, 12, 14, seed=number), torch.arange(count) % 3
        given = images, labels, torch.tensor(0.1 / (number + 1), dtype=torch.float64)
        expected = plain.step(*(tensor.to(CUDA) for tensor in given))
        found = step(*(given if number % 3 == 0 else [tensor.to(CUDA) for tensor in given]))
        torch.testing.assert_close(found, [tensor.detach() for tensor in expected], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(recorded.network.state_dict(), plain.network.state_dict(), rtol=1e-9, atol=1e-9)
    assert recorded.in_python == 2 * (WARM_UPS + 1)
    step.forget()
    for number in range(WARM_UPS + 3):
        images, labels = noise(5, 3, 12, 14, seed=number), torch.arange(5) % 3
        given = images.to(CUDA), labels.to(CUDA), torch.tensor(0.1, dtype=torch.float64, device=CUDA)
        plain.step(*given)
        step(*given)
    torch.testing.assert_close(recorded.network.state_dict(), plain.network.state_dict(), rtol=1e-9, atol=1e-9)
    assert recorded.in_python == 3 * (WARM_UPS + 1)


def test_what_waits_for_the_gpu_is_called_plainly_and_graphs_can_be_recorded_after_it() -> None:
    total, said = torch.zeros((), device=CUDA), list[str]()

    def wait(x: Tensor) -> Sequence[Tensor]:
        total.add_(x.sum())
        return [x * total.item()]

    step = Replayed(wait, CUDA, on_warning=said.append)
    for number in range(1, WARM_UPS + 5):
        assert step(torch.ones(2))[0].tolist() == [2.0 * number] * 2
    assert len(said) == 1
    fine = Replayed(lambda x: [x + total], CUDA, on_warning=pytest.fail)
    for number in range(WARM_UPS + 3):
        assert fine(torch.tensor([float(number)]))[0].item() == number + total.item()


def test_graphs_give_their_memory_back() -> None:
    def hungry(x: Tensor) -> Sequence[Tensor]:
        return [(x.expand(2**24) + 1).sum()]

    step = Replayed(hungry, CUDA, on_warning=pytest.fail)
    for _ in range(WARM_UPS + 2):
        assert step(torch.ones(1))[0].item() == 2**25
    step.forget()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(CUDA)
    for _ in range(WARM_UPS + 2):
        step(torch.ones(1))
    step.forget()
    torch.cuda.empty_cache()
    # Less than one of its tensors more.
    assert torch.cuda.memory_reserved(CUDA) < before + 2**26


# Training.


def _set(soft: bool, dtype: torch.dtype) -> SyntheticSet:
    images = noise(14, 3, 12, 14, dtype=dtype)
    labels = noise(14, 3, seed=1, dtype=dtype) * 3 if soft else torch.arange(14) % 3
    return synthetic_set(images, labels, 3)


def on_gpu(data: SyntheticSet) -> SyntheticSet:
    return SyntheticSet(data.images.to(CUDA), data.labels.to(CUDA), data.preprocessing, data.classes, data.lr)


def _networks(count: int, name: str, dtype: torch.dtype) -> list[Network]:
    return [networks.build(name, CARD).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-bn", "convnet-d2-w8-nn-swish-mp"])
def test_networks_learn_in_a_stack_on_the_gpu_what_each_learns_alone_on_the_cpu(
    name: str, soft: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_from_the_cpu(monkeypatch)
    how = Protocol(
        name="made-up",
        synthetic=Budget(epochs=8, drops=(4, 6)),
        whole=Budget(epochs=1),
        batch=5,
        lr=0.05,
        augmentation=DSA,
        labels="as the set carries",
    )
    data = _set(soft, torch.float64)
    stack = [network.to(CUDA) for network in _networks(count, name, torch.float64)]
    seeds = [Seeds(seed) for seed in range(count)]
    steps = list(train_together(stack, on_gpu(data), how, seeds, mirrors=True, on_warning=pytest.fail))
    assert steps[-1] == (24, 24)
    for own, network in zip(seeds, stack, strict=True):
        (alone,) = _networks(1, name, torch.float64)
        list(train(alone, data, how, own, mirrors=True))
        found = {key: tensor.cpu() for key, tensor in network.state_dict().items()}
        # Both compute in float64; what augmentation draws is float32.
        torch.testing.assert_close(found, dict(alone.state_dict()), rtol=1e-3, atol=1e-3)
        logits = predict(network, on_gpu(data), 5).cpu()
        torch.testing.assert_close(logits, predict(alone, data, 5), rtol=1e-3, atol=1e-3)


def test_a_set_of_pixels_is_trained_on_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    weights_from_the_cpu(monkeypatch)
    pixels = torch.randint(256, (12, 3, 12, 14), dtype=torch.uint8, generator=generator())
    normalisation = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    data = SyntheticSet(pixels, torch.arange(12) % 3, normalisation, ("a", "b", "c"))
    how = Protocol(name="made-up", synthetic=Budget(epochs=8), whole=Budget(epochs=1), batch=5)
    (alone,), (network,) = (_networks(1, "convnet-d2-w8", torch.float32) for _ in range(2))
    list(train(alone, data, how, Seeds(0), mirrors=True))
    list(train_together([network.to(CUDA)], on_gpu(data), how, [Seeds(0)], mirrors=True, on_warning=pytest.fail))
    # TF32 or not.
    torch.testing.assert_close(predict(network, on_gpu(data), 12).cpu(), predict(alone, data, 12), rtol=0, atol=0.05)


def weights_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same initial weights on both: a GPU's generator gives other numbers for the same seed."""

    def reset(network: Network, given: torch.Generator) -> None:
        on_cpu = copy.deepcopy(network).cpu()
        original(on_cpu, generator(given.initial_seed()))
        network.load_state_dict(on_cpu.state_dict())

    original = Network.reset
    monkeypatch.setattr(Network, "reset", reset)


# Augmentation.


@pytest.fixture
def tf32() -> Iterator[None]:
    """Products of float32 numbers are rounded, where a GPU can."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (33, 21)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_augmented_on_the_gpu_as_on_the_cpu(
    channels: int, size: tuple[int, int], deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(60, 2, channels, *size, dtype=torch.float32)
    weights = noise(60, 2, channels, *size, seed=1, dtype=torch.float32)
    drawn = draw(DSA, 60, generator(2))
    results = []
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    try:
        for device in (CUDA, torch.device("cpu")):
            given = images.to(device).requires_grad_()
            changed = augment(given, drawn)
            (gradient,) = torch.autograd.grad((changed * weights.to(device)).sum(), given)
            results.append((changed.detach().cpu(), gradient.cpu()))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*results, rtol=0, atol=1e-4)


# Matching.


def _matched(device: str, method: ModuleType, network: str, steps: int, **policy: Any) -> tuple[list[float], Tensor]:
    """The losses of some iterations and the images after them, with random draws and weights of the CPU."""
    problem = tiny_problem(card=data_card((40,) * 4, channels=3, size=(32, 32)), network=network)
    problem.policy = Policy(torch.device(device), **policy)
    real = problem.real
    problem.real = RealSet(real.images.to(device), real.counts, real.preprocessing)
    problem.policy.apply()
    options = read(method.Options, {"iterations": steps, "batch_real": 32}, "the method")
    losses, images = [], torch.zeros(0)
    for step in method.distill(problem, options):
        assert not isinstance(step, Warned), step
        if isinstance(step, Step):
            losses.append(float(step.losses["matching"]))
            images = step.synthetic.images.cpu().clone()
    return losses, images


@pytest.mark.filterwarnings("ignore")  # of the compiler's own code
@pytest.mark.parametrize("network", ["convnet-d3-w32", "convnet-d3-w32-bn"])
@pytest.mark.parametrize("method", [dm, datadam])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("tf32", 1e-2), ("bf16", 5e-2)])
def test_iterations_on_the_gpu_are_those_of_the_cpu(
    precision: Precision,
    tolerance: float,
    compiled: bool,
    method: ModuleType,
    network: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights_from_the_cpu(monkeypatch)
    monkeypatch.setattr(Problem, "generator", lambda problem, *words: problem.seeds.generator(*words))
    # Long enough to be replayed. All differences add up over the iterations.
    losses, images = _matched("cuda:0", method, network, WARM_UPS + 3, precision=precision, compiled=compiled)
    expected_losses, expected = _matched("cpu", method, network, WARM_UPS + 3)
    assert losses == pytest.approx(expected_losses, rel=tolerance)
    start = _matched("cpu", method, network, 1)[1]
    moved, difference = (expected - start).norm(), (images - expected).norm()
    assert difference < 2 * tolerance * moved + 1e-4


def test_out_of_memory_on_the_gpu_halves_the_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    card = data_card((400,) * 4, channels=3, size=(64, 64))
    problem = tiny_problem(card=card, network="convnet-d2-w128")
    problem.policy = Policy(CUDA)
    real = problem.real
    problem.real = RealSet(real.images.to(CUDA), real.counts, real.preprocessing)
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.empty_cache()
    # All 1,200 images at once need 2.5 GB for one map.
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**31 / total), CUDA)
    try:
        events = list(dm.distill(problem, dm.Options(iterations=WARM_UPS + 3, batch_real=300)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    assert len([event for event in events if isinstance(event, Step)]) == WARM_UPS + 3
    adapted = adaptations(events)
    assert adapted
    assert {event.what for event in adapted} == {"real_chunk"}
    assert all("out of memory" in event.reason for event in adapted)
    assert problem.policy.real_chunk < 1200


def _followed(device: str, kind: str, memory: str, count: int) -> tuple[list[float], Tensor]:
    """The losses of trajectory matching, and the images it ends with."""
    problem = tiny_problem(card=data_card(channels=3))
    start = torch.randn(6, 3, 8, 8, generator=generator(7))
    on_cpu = experts_of(problem)
    problem.policy, problem._network = Policy(torch.device(device)), None
    problem.real = RealSet(problem.real.images.to(device), problem.real.counts, problem.real.preprocessing)
    network = networks.build("convnet-d1-w8", problem.card)
    experts = Trajectories("", list(on_cpu.given), network, problem.device)
    chosen = (soft if kind == "soft" else options)(iterations=count, memory=memory)
    images = LearnedImages(problem, start.to(device), chosen.lr_images, chosen.momentum_images, None)
    labels = noise(6, 3, dtype=torch.float32).to(device) if kind == "soft" else None
    matching = TrajectoryMatching(problem, images, experts, chosen, labels=labels)
    losses = [float(end_of(matching.step())["matching"]) for _ in range(count)]
    return losses, images.tensor.detach().cpu()


@pytest.mark.parametrize("memory", ["unrolled", "checkpointed", "tesla"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_students_on_the_gpu_go_where_those_on_the_cpu_go(kind: str, memory: str) -> None:
    losses, images = _followed("cuda:0", kind, memory, WARM_UPS + 3)
    expected_losses, expected = _followed("cpu", kind, memory, WARM_UPS + 3)
    assert losses == pytest.approx(expected_losses, rel=1e-3)
    moved = (expected - _followed("cpu", kind, memory, 1)[1]).norm()
    assert (images - expected).norm() < 1e-2 * moved + 1e-4


def test_out_of_memory_on_the_gpu_halves_the_steps_whose_graphs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "free_bytes", lambda policy: 10**15)
    card = data_card((400,) * 4, channels=3, size=(64, 64))
    problem = tiny_problem(card=card, network="convnet-d2-w64", ipc=50)
    experts = experts_of(problem)
    problem.policy, problem._network = Policy(CUDA), None
    problem.real = RealSet(problem.real.images.to(CUDA), problem.real.counts, problem.real.preprocessing)
    network = networks.build("convnet-d2-w64", card)
    notices: list[Any] = []
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.empty_cache()
    # A map of 200 images takes 200 MB, and a step keeps a dozen of them.
    torch.cuda.set_per_process_memory_fraction(min(1.0, 6 * 2**30 / total), CUDA)
    try:
        matching = TrajectoryMatching(
            problem,
            LearnedImages(problem, "real", 1.0, 0.5, None),
            Trajectories("", list(experts.given), network, CUDA),
            options(iterations=WARM_UPS + 3, steps=8, batch_student=200),
        )
        for _ in range(WARM_UPS + 3):
            end_of(matching.step(), notices)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    adapted = adaptations(notices)
    assert adapted
    assert {event.what for event in adapted} == {"kept_steps"}
    assert problem.policy.kept_steps < 8
