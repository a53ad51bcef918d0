import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from dambench.training.descent import AdamW, Sgd


def _network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize("name", ["sgd", "sgd without momentum", "adamw"])
def test_steps_are_those_of_the_optimisers_of_torch_to_the_last_bit(name: str) -> None:
    ours, theirs = _network(), _network()
    mine = list(ours.parameters())
    descent: Sgd | AdamW
    optimizer: torch.optim.Optimizer
    if name == "adamw":
        descent = AdamW(mine, (0.9, 0.999), 1e-8, 0.05)
        optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.05)
    else:
        momentum = 0.0 if "without" in name else 0.9
        descent = Sgd(mine, momentum, 5e-4)
        optimizer = torch.optim.SGD(theirs.parameters(), momentum=momentum, weight_decay=5e-4)
    for step in range(12):
        lr = 0.1 / (1 + step)
        images, labels = torch.randn(7, 1, 6, 6), torch.randint(5, (7,))
        for network in (ours, theirs):
            network.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
        if step % 4 == 1:  # as if the last layer had no part in the loss
            for network in (ours, theirs):
                network[3].weight.grad = None
        if step == 7:
            descent.forget()
            optimizer.state.clear()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        descent.step(lr)
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs.parameters(), strict=True)), step
    first: Tensor = next(_network().parameters())
    assert not torch.equal(first, mine[0])


def test_no_run_on_a_cpu_waits_for_the_compiler_of_torch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor any part of it: whoever compiles imports it then."""
    folder = tmp_path_factory.mktemp("run")
    code = (
        "import sys; from dambench.cli.app import run_cli;"
        "words = 'run --headless --method dm --dataset digits --ipc 1 --iterations 1 --eval-repeats 1 --device cpu';"
        f"more = ['--evaluate-on', 'convnet-d1-w1', '--db', {str(folder / 'runs.db')!r}];"
        "assert run_cli([*words.split(), *more]) == 0;"
        "print(*(name for name in ('torch._dynamo', 'torch._inductor', 'triton', 'sympy') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
