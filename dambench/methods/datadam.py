"""DataDAM: matching of spatial attention and of mean features.

Sajedi et al., "DataDAM: Efficient Dataset Distillation with Attention Matching", ICCV 2023.

DM, and besides the class means of each layer's normalised attention map:

    100 · Σ_layers but the last Σ_c ‖mean z(real_c) − mean z(synthetic_c)‖²  +  100 · balance · DM's loss

with z the sum of a layer's |activations|^power over channels, as a vector of length 1. Activations are taken after
each ReLU, before pooling; no network is trained. (Of a ResNet they are the outputs of its stages, of a ViT the patches
after each block: the released code looks for ReLUs in a chain, and silently matches no attention where it finds none.)

Where the paper and its released code differ, the default is what the code does, and the recipe `paper` the other:

* power: the code sums |activations| (1), the table of hyper-parameters says 4;
* the network's norm: the code's «ConvNet» has BatchNorm, the table says InstanceNorm;
* iterations: the code makes 20,000 (and one more after its last evaluation), the table says 8,000.

How the paper's networks are tested is a protocol: `datadam` as the code does, `datadam-table` as the table says. The
initial images that the authors offer for CIFAR are not supported: `real` and `noise` are. Flip is left out where a
mirror image is another class; the code keeps it.
"""

from collections.abc import Iterator
from functools import partial

from dambench.core.config import CHECKED, UNCHECKED, Recipe
from dambench.matching.attention import AttentionOptions, attention, attention_terms, check_maps, match_attention
from dambench.matching.distribution import Term
from dambench.training.problem import Network, Notice, Problem, State, Step

PAPER = "https://arxiv.org/abs/2310.00093"
SUMS_OVER_CLASSES = True


class Options(AttentionOptions, frozen=True):
    """Those of all methods that match attention."""


CODE = "DataDAM, released code: BatchNorm, power 1, 20,000 iterations, 64 real images per class"
TABLE = "DataDAM, table of hyper-parameters: InstanceNorm, power 4, 8,000 iterations"
SEED = "ECE1512 2024F project (Tan, Yuan), its table read as K·T updates"

RECIPES = (
    Recipe(
        datasets=("digits",),
        options={"iterations": 200},
        norm="batch",
        source="ours: as the released code (BatchNorm, power 1), in seconds: 200 iterations, a 2-block network"
        + CHECKED,
    ),
    Recipe(
        datasets=("imagenet",),
        options={"balance": 0.02},
        norm="batch",
        source=f"{CODE}; λ 0.02 for high resolution is the table's",
    ),
    Recipe(ipc=(100, None), options={"lr_images": 10.0}, norm="batch", source=f"{CODE}; lr 10 for IPC 100 and more"),
    Recipe(norm="batch", source=CODE),
    Recipe(
        name="paper",
        datasets=("imagenet",),
        options={"iterations": 8_000, "power": 4.0, "balance": 0.02},
        norm="instance",
        source=f"{TABLE}, λ 0.02 for high resolution; 64 real images per class are the code's",
    ),
    Recipe(
        name="paper",
        ipc=(51, None),
        options={"iterations": 8_000, "power": 4.0, "lr_images": 10.0},
        norm="instance",
        source=f"{TABLE}, lr 10 above IPC 50; 64 real images per class are the code's",
    ),
    Recipe(
        name="paper",
        options={"iterations": 8_000, "power": 4.0},
        norm="instance",
        source=f"{TABLE}; 64 real images per class are the code's",
    ),
    Recipe(
        name="seed",
        datasets=("mnist",),
        options={"iterations": 1_000, "lr_images": 0.1, "batch_real": 256},
        norm="instance",
        source=f"{SEED}: K 100 networks · T 10, lr 0.1, 256 real images per class, InstanceNorm (meant for IPC 10). "
        "As published it made 11 updates",
    ),
    Recipe(
        name="seed",
        datasets=("mhist",),
        options={"iterations": 2_000, "lr_images": 0.1, "batch_real": 128},
        network="convnet-d7",
        norm="instance",
        source=f"{SEED}: K 200 networks · T 10, lr 0.1, 128 real images per class, 7 blocks, InstanceNorm (meant for "
        "IPC 50). It updated each half of a class's images by itself, to save memory; here they go together",
    ),
    Recipe(
        name="brief",
        datasets=("mnist", "fashionmnist", "folder", "arrays"),
        options={"iterations": 200},
        network="convnet-d3-w64",
        norm="batch",
        source="ours, about a minute on two CPU cores: as the released code (BatchNorm, power 1, 64 real images per "
        "class), but 200 iterations (20,000) and width 64 (128)" + UNCHECKED,
    ),
)


def check(network: Network, options: Options) -> None:
    """
    Raises:
        BadInput: the network has no maps, and so no attention.
    """
    check_maps(network, "DataDAM matches where in an image a network is active")


def terms(network: Network, options: Options) -> list[Term]:
    """The attention of all activations but the last block's, and the embedding."""
    check(network, options)
    vectors = partial(attention, power=options.power, nonnegative=network.nonnegative_features)
    return attention_terms(network, options, vectors)


def distill(problem: Problem, options: Options, resume: State | None = None) -> Iterator[Step | Notice]:
    """Pull the mean attention maps and the mean embedding of each synthetic class towards the real ones."""
    yield from match_attention(problem, options, partial(terms, options=options), resume)
