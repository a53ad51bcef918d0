"""What only a CUDA device can show of the zoo: every network, gradient matching, whitening, coresets."""

import copy
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from dambench import networks
from dambench.core import registry
from dambench.core.config import Precision, PreprocessingName, Request, read
from dambench.core.errors import BadInput
from dambench.core.events import Adapted, Finished, Measured, Warned
from dambench.core.protocol import DSA, Budget, Protocol
from dambench.engine.loop import run
from dambench.engine.settle import prepare
from dambench.matching import gradients
from dambench.methods import dc, dm, dsa
from dambench.methods.herding import herd
from dambench.methods.kcenter import centres
from dambench.methods.kmeans import representatives
from dambench.testing import data_card, tiny_problem
from dambench.training import train as training
from dambench.training.cuda_graph import Replayed
from dambench.training.policy import Policy
from dambench.training.problem import Network, Problem, RealSet, Seeds, Step, Whitening
from dambench.training.train import train, train_together
from tests.lab import adaptations, generator, noise, pulled, synthetic_set
from tests.matching.test_gradients import pulled as matched_gradients
from tests.test_cuda import CUDA, on_gpu, weights_from_the_cpu

pytestmark = [
    pytest.mark.gpu,
    # Of torch 2.9 to 2.12.
    pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32"),
]

NAMES = [
    "mlp",
    "lenet",
    "convnet-d3-w16",
    "alexnet",
    "alexnet-bn",
    "vgg11",
    "vgg11-bn",
    "resnet18",
    "resnet18-bn-ap",
    "vit-d2-w32",
]
CARD = data_card((4, 4, 4), channels=3, size=(32, 32))


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Nothing is rounded to TF32, unless a test says so."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def network_of(name: str, device: torch.device, dtype: torch.dtype = torch.float64) -> Network:
    network = networks.build(networks.settle(name, CARD), CARD)
    network.reset(generator(5))
    return network.to(device, dtype).train()


CPU = torch.device("cpu")
REAL, SYNTHETIC = noise(3, 4, 3, 32, 32), noise(3, 2, 3, 32, 32, seed=1)


# Networks.


@pytest.mark.parametrize("name", NAMES)
def test_class_means_and_their_slopes_are_those_of_the_cpu(name: str) -> None:
    found, expected = (
        pulled(network, dm.terms(network), REAL.to(device), SYNTHETIC.to(device))
        for device in (CUDA, CPU)
        for network in [network_of(name, device).requires_grad_(False)]
    )
    torch.testing.assert_close(found[0]["matching"].cpu(), expected[0]["matching"], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1].cpu(), expected[1], rtol=1e-5, atol=1e-6 * expected[1].abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_class_gradients_and_their_slopes_are_those_of_the_cpu(name: str) -> None:
    """The gradient of a gradient of every layer."""
    results = []
    for device in (CUDA, CPU):
        network = network_of(name, device)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        results.append(matched_gradients(network, REAL.to(device), SYNTHETIC.to(device)))
    found, expected = results
    torch.testing.assert_close(found[0].cpu(), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1].cpu(), expected[1], rtol=1e-4, atol=1e-5 * expected[1].abs().max().item())


@pytest.mark.filterwarnings("ignore")  # of the compiler's own code
@pytest.mark.parametrize("name", ["mlp", "lenet", "alexnet-bn", "vgg11", "resnet18-bn", "vit-d2-w32"])
def test_compiled_the_loss_is_the_same(name: str) -> None:
    network = network_of(name, CUDA, torch.float32).requires_grad_(False)
    real, synthetic = REAL.float().to(CUDA), SYNTHETIC.float().to(CUDA)
    plain, compiled = (pulled(network, dm.terms(network), real, synthetic, compiled=how) for how in (False, True))
    torch.testing.assert_close(plain[0]["matching"], compiled[0]["matching"], rtol=1e-3, atol=0)
    torch.testing.assert_close(plain[1], compiled[1], rtol=1e-2, atol=1e-2 * plain[1].abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_a_stack_of_each_learns_what_each_learns_alone_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights_from_the_cpu(monkeypatch)
    how = Protocol(name="made-up", synthetic=Budget(epochs=6), whole=Budget(epochs=1), lr=0.01, augmentation=DSA)
    data = synthetic_set(noise(6, 3, 32, 32), torch.arange(6) % 3, 3)
    alone, *stack = (network_of(name, CPU) for _ in range(3))
    list(train(alone, data, how, Seeds(1), mirrors=True))
    stack = [network.to(CUDA) for network in stack]
    list(train_together(stack, on_gpu(data), how, [Seeds(0), Seeds(1)], mirrors=True, on_warning=pytest.fail))
    before = torch.cat([p.detach().flatten() for p in network_of(name, CPU).parameters()])
    learned = torch.cat([p.detach().flatten() for p in alone.parameters()])
    found = torch.cat([p.detach().cpu().flatten() for p in stack[1].parameters()])
    # What augmentation draws is float32.
    assert (found - learned).norm() < 1e-2 * (learned - before).norm()


# Whole runs.


def finished(method: dict[str, Any], **more: Any) -> tuple[str, list[Measured]]:
    """A run on the GPU, all of it in graphs: its set and its scores."""
    request = Request(method=method, dataset="digits", ipc=2, device=str(CUDA), **{"eval_repeats": 2} | more)
    events = list(run(prepare(request)))
    assert isinstance(events[-1], Finished), events[-1]
    assert not [event for event in events if isinstance(event, Warned | Adapted)]
    return events[-1].set_sha256, [event for event in events if isinstance(event, Measured)]


SETTINGS = {"iterations": 5, "batch_real": 32, "updates": 3, "epochs": 2}
OTHERS = {"whole", "imported", "sre2l"}
"""Told which set to give; or begins with noise, and is worth nothing after five iterations."""
IN_PIXELS = {"dance", "tgdd", "dsdm", "m3d", "ncfm", "idm"}
"""Methods that learn mosaics: whitened images have no tiles."""


def settings(name: str) -> dict[str, Any]:
    known = registry.load("methods", name).Options.__struct_fields__
    return {"name": name} | {key: value for key, value in SETTINGS.items() if key in known}


@pytest.mark.parametrize("preprocessing", ["mean/std", "zca"])
@pytest.mark.parametrize("name", sorted(set(registry.names("methods")) - OTHERS))
def test_every_method_makes_a_set_that_is_worth_something(name: str, preprocessing: PreprocessingName) -> None:
    if preprocessing == "zca" and name in IN_PIXELS:
        with pytest.raises(BadInput):
            finished(settings(name), preprocessing=preprocessing)
        return
    _, scores = finished(settings(name), preprocessing=preprocessing)
    assert len(scores) == 2
    assert all(float(score.values["accuracy"]) > 0.3 for score in scores), "hardly better than guessing"


def test_a_set_is_tested_on_networks_of_every_family() -> None:
    families = ["mlp", "convnet-d2-w16-bn", "resnet18-bn", "vit-d2-w32"]
    _, scores = finished({"name": "random"}, evaluate_on=families, eval_repeats=3)
    assert len(scores) == 4 * 3
    assert all(float(score.values["accuracy"]) > 0.2 for score in scores)


@pytest.mark.parametrize("name", ["dm", "dc", "dsa"])
def test_deterministic_runs_give_the_same_bits(name: str) -> None:
    try:
        runs = [finished(settings(name), network="convnet-d2-w16-mp", deterministic=True) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert runs[0][0] == runs[1][0]
    assert [float(score.values["accuracy"]) for score in runs[0][1]] == [
        score.values["accuracy"] for score in runs[1][1]
    ]


# Gradient matching.


def matched(method: ModuleType, network: str, policy: Policy, **options: Any) -> tuple[list[float], Tensor, Tensor]:
    """The losses of some iterations, the images before and after them."""
    problem = tiny_problem(card=data_card((40,) * 4, channels=3, size=(32, 32)), network=network)
    problem.policy = policy
    real = problem.real
    problem.real = RealSet(real.images.to(policy.device), real.counts, real.preprocessing)
    policy.apply()
    how = read(
        method.Options,
        {"iterations": 4, "updates": 3, "epochs": 3, "batch_real": 32, "init": "real", **options},
        "the method",
    )
    start = problem.real.preprocessing.apply(problem.random_subset()).cpu()
    losses, images = [], torch.zeros(0)
    for step in method.distill(problem, how):
        assert not isinstance(step, Warned), step
        if isinstance(step, Step):
            losses.append(float(step.losses["matching"]))
            images = step.synthetic.images.cpu().clone()
    return losses, start, images


@pytest.mark.parametrize("network", ["convnet-d3-w32", "convnet-d3-w32-bn"])
@pytest.mark.parametrize(
    ("method", "options"), [(dc, {}), (dsa, {}), (dc, {"distance": "mse"}), (dc, {"distance": "cos"})]
)
def test_gradient_matching_in_graphs_is_that_without(
    method: ModuleType, options: dict[str, Any], network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, _, images = matched(method, network, Policy(CUDA), **options)
    monkeypatch.setattr(gradients, "Replayed", partial(Replayed, on=False))
    monkeypatch.setattr(training, "Replayed", partial(Replayed, on=False))
    expected_losses, start, expected = matched(method, network, Policy(CUDA), **options)
    assert losses == pytest.approx(expected_losses, rel=1e-3)
    assert (images - expected).norm() < 1e-2 * (expected - start).norm() + 1e-4


@pytest.mark.parametrize("network", ["convnet-d3-w32", "convnet-d3-w32-bn"])
@pytest.mark.parametrize("method", [dc, dsa])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("tf32", 5e-2), ("bf16", 1e-1)])
def test_gradient_matching_is_that_of_the_cpu(
    precision: Precision, tolerance: float, method: ModuleType, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_from_the_cpu(monkeypatch)
    monkeypatch.setattr(Problem, "generator", lambda problem, *words: problem.seeds.generator(*words))
    losses, _, images = matched(method, network, Policy(CUDA, precision=precision))
    expected_losses, start, expected = matched(method, network, Policy(CPU))
    assert losses == pytest.approx(expected_losses, rel=tolerance)
    # All differences add up, and where a row has hardly any gradient its direction is mostly rounding.
    assert (images - expected).norm() < 10 * tolerance * (expected - start).norm()


def test_out_of_memory_halves_the_real_images_whose_gradient_is_taken_at_once() -> None:
    problem = tiny_problem(card=data_card((400,) * 3, channels=3, size=(64, 64)), network="convnet-d2-w128")
    problem.policy = Policy(CUDA)
    real = problem.real
    problem.real = RealSet(real.images.to(CUDA), real.counts, real.preprocessing)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    # The 400 images of a class need 0.8 GB for one map, and several maps.
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**31 / total), CUDA)
    try:
        events = list(dc.distill(problem, dc.Options(iterations=6, updates=1, batch_real=400)))
        steps = [event for event in events if isinstance(event, Step)]
        assert all(float(step.losses["matching"]) > 0 for step in steps[-1:])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    assert len(steps) == 6
    assert {event.what for event in adaptations(events)} == {"real_chunk"}
    assert problem.policy.real_chunk < 400


# Whitening and coresets.


def test_images_are_whitened_as_on_the_cpu() -> None:
    pixels = torch.randint(256, (200, 3, 8, 8), dtype=torch.uint8, generator=generator())
    whitening = fitted(pixels)
    there = whitening.to(CUDA)
    expected = whitening.apply(pixels)
    torch.testing.assert_close(there.apply(pixels.to(CUDA)).cpu(), expected, rtol=1e-4, atol=1e-4)
    apart = there.invert(expected.to(CUDA)).cpu().int() - pixels.int()
    assert apart.abs().max() <= 1


def fitted(pixels: Tensor) -> Whitening:
    kept = Whitening.fit(pixels.to(CUDA))
    assert kept == Whitening.fit(pixels), "it depends on where it is fitted"
    return Whitening("", **safetensors.torch.load(kept))


@pytest.mark.parametrize(
    "choose", [herd, centres, partial(representatives, seed=3)], ids=["herd", "centres", "k-means"]
)
def test_the_same_images_are_chosen_as_on_the_cpu(choose: Any) -> None:
    features = noise(300, 64)
    found = choose(features.to(CUDA), 20).cpu()
    assert torch.equal(found, choose(features, 20))
    assert len(found.unique()) == 20


def test_a_copy_of_a_network_in_a_stack_is_a_network_of_its_own() -> None:
    """Of bfloat16 there is one."""
    network = network_of("convnet-d3-w16", CUDA, torch.float32)
    data = on_gpu(synthetic_set(noise(6, 3, 32, 32, dtype=torch.float32), torch.arange(6) % 3, 3))
    how = Protocol(name="made-up", synthetic=Budget(epochs=2), whole=Budget(epochs=1))
    list(train_together([network], data, how, [Seeds(0)], mirrors=True))
    other = copy.deepcopy(network)
    before = network.classifier.weight.detach().clone()
    with torch.no_grad():
        other.classifier.weight.zero_()
    assert torch.equal(network.classifier.weight, before)
