"""DSA: gradient matching under differentiable Siamese augmentation.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021.

As DC, from real images, with one augmentation per class and update for the class's real and synthetic images alike;
the network's training between two updates augments each image by itself. The table of updates and epochs by IPC is
DC's. The released code drops `flip` for digits by hand; here the dataset says whether a mirror image keeps its class.
Tested as in that code: `--protocol dsa-dm`.
"""

from collections.abc import Iterator

from dambench.core.config import Recipe
from dambench.matching import gradients
from dambench.matching.gradients import BRIEF, DIGITS, match_gradients
from dambench.training.problem import Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2102.08259"
SUMS_OVER_CLASSES = True


class Options(gradients.Options, frozen=True):
    """Those of all gradient matching."""


RECIPES = (
    DIGITS,
    Recipe(
        datasets=("cifar10",),
        ipc=(100, 100),
        options={"updates": 100, "epochs": 2},
        source="DSA's author in an issue of its repository: IPC 100 with 100 updates, 2 epochs (66.7 on CIFAR-10)",
    ),
    Recipe(source="DSA, released code: 1,000 networks, lr 0.1, 256 real images per class, from real images"),
    *BRIEF,
)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Bring the gradients of each augmented synthetic class nearer to the real one's, while the network learns."""
    return match_gradients(problem, options, resume)
