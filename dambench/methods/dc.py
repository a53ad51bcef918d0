"""DC: gradient matching.

Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021.

Each iteration draws a random network. Again and again the images are moved so that the gradient of each class's loss
agrees with the real images', layer by layer, and the network is then trained a little on the images. How often and for
how long depends on IPC: the released code has a table for 1, 10, 20, 30, 40 and 50 and ends at any other; here the
updates per network are IPC up to 50, as in the table, and the epochs lie on straight lines between its entries.

The released code says 1,000 iterations and makes 1,001; here it is 1,000. For networks with BatchNorm it sets the
statistics by 16 real images per class before each match and holds them, and so does this. It asks for a step size of
0.01 for MLPs, which is `--set method.lr_images=0.01`, and has two more distances, `--set method.distance=mse` and
`cos`. Tested as in that code: `--protocol dc`, for MNIST and with
BatchNorm `dc-augmented`.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from dambench.core.config import Recipe
from dambench.matching import gradients
from dambench.matching.gradients import BRIEF, DIGITS, match_gradients
from dambench.training.problem import Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2006.05929"
SUMS_OVER_CLASSES = True


class Options(gradients.Options, frozen=True):
    init: Annotated[Literal["real", "noise"], Meta(description="start from random real images or from N(0, 1)")] = (
        "noise"
    )
    augmentation: Annotated[
        Literal["dsa", "none"],
        Meta(description="dsa: a class's real and synthetic images alike, and each image in training; this makes DSA"),
    ] = "none"


CODE = "DC, released code: 1,000 networks, lr 0.1, 256 real images per class, from noise"

RECIPES = (
    DIGITS,
    Recipe(
        ipc=(51, None),
        options={"init": "real"},
        source="DC's author in an issue of its repository: above IPC 50, 50 updates, 10 epochs, from real images",
    ),
    Recipe(source=CODE),
    *BRIEF,
)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Bring the gradients of each synthetic class nearer to the real one's, while the network learns."""
    return match_gradients(problem, options, resume)
