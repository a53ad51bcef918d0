"""DM: distribution matching of mean features.

Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023.

Each iteration draws a random network, one augmentation per class, and a batch of real images per class, and
moves the synthetic images so that the class means of the network's embeddings agree. No network is trained.

The released code has two forms: a loop over classes, and for BatchNorm networks one forward pass of all classes
together, so that the statistics come from the mixed batch. Here the network decides: for networks without batch
statistics the two are the same. The released code says 20,000 iterations and takes one more after its last
evaluation; here it is 20,000. Its README drops `flip` for digits by hand; here the dataset says whether a mirror
image keeps its class.
"""

from collections.abc import Iterator

from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.matching import distribution
from dambench.matching.distribution import Term, match_means
from dambench.training.problem import Network, Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2110.04181"
SUMS_OVER_CLASSES = True


class Options(distribution.Options, frozen=True):
    """Those of all methods of this kind."""


RECIPES = (
    Recipe(
        datasets=("digits",),
        options={"iterations": 200, "batch_real": 64},
        source="ours: digits has 130 images per class and a 2-block network, and is done in seconds" + CHECKED,
    ),
    Recipe(
        datasets=("cifar10",),
        ipc=(100, None),
        options={"lr_images": 10.0},
        source="DM, released code's README: lr 10 for 100 and more images per class",
    ),
    Recipe(source="DM, released code: 20,000 iterations, lr 1, 256 real images per class"),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist", "folder", "arrays"),
        options={"iterations": 200, "batch_real": 64},
        network="convnet-d3-w64",
        source="ours, about a minute on two CPU cores: 200 iterations (published: 20,000), width 64 (128), "
        "64 real images per class (256)" + UNCHECKED,
    ),
)


def terms(network: Network) -> list[Term]:
    """Σ_c ‖mean ψ(real_c) − mean ψ(synthetic_c)‖², ψ the network's embedding, summed over its features."""
    return [Term("matching", network.num_levels - 1, lambda maps: maps.flatten(1))]


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull the mean embedding of each synthetic class towards the real one."""
    return match_means(problem, options, terms, resume)
