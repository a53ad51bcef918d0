"""DSA: gradient matching under differentiable Siamese augmentation.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021.

As DC, from real images, with one augmentation per class and update for the class's real and synthetic images alike;
the network's training between two updates augments each image by itself. The table of updates and epochs by IPC is
DC's. The released code drops `flip` for digits by hand; here the dataset says whether a mirror image keeps its class.
Tested as in that code: `--protocol dsa-dm`.
"""

from collections.abc import Iterator

from dambench.config import Recipe
from dambench.events import Progressed
from dambench.matching import gradients
from dambench.matching.gradients import GradientMatching
from dambench.matching.learned import LearnedImages
from dambench.problem import Problem, State, Step

PAPER = "https://arxiv.org/abs/2102.08259"
MATCHES_ON_NETWORK = True


class Options(gradients.Options, frozen=True):
    """Those of all gradient matching."""


RECIPES = (
    Recipe(
        datasets=("digits",),
        options={"iterations": 100, "batch_real": 64},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds",
    ),
    Recipe(
        datasets=("cifar10",),
        ipc=(100, 100),
        options={"updates": 100, "epochs": 2},
        source="DSA's author in an issue of its repository: IPC 100 with 100 updates, 2 epochs (66.7 on CIFAR-10)",
    ),
    Recipe(source="DSA, released code: 1,000 networks, lr 0.1, 256 real images per class, from real images"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        ipc=(1, 1),
        options={"iterations": 200, "batch_real": 64},
        network="convnet-d3-w64",
        source="ours, meant for two minutes on two idle CPU cores (timed on busy ones: 6 to 8): "
        "200 networks (published: 1,000), width 64 (128), 64 real "
        "images per class (256)",
    ),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist"),
        ipc=(2, None),
        options={"iterations": 20, "updates": 5, "epochs": 5, "batch_real": 32},
        network="convnet-d3-w64",
        source="ours, meant for two minutes on two idle CPU cores at IPC 10, not timed: "
        "20 networks (published: 1,000), 5 updates each "
        "with 5 epochs between them (10 and 50), width 64 (128), 32 real images per class (256)",
    ),
)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Progressed]:
    """Bring the gradients of each augmented synthetic class nearer to the real one's, while the network learns."""
    images = LearnedImages(problem, options.init, options.lr_images, options.momentum_images, resume)
    matching = GradientMatching(problem, images, options)
    while images.iteration < options.iterations:
        losses = yield from matching.step()
        yield Step(images.iteration, problem.synthetic_set(images.tensor.detach()), losses, images.state)
