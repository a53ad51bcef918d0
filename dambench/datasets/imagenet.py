"""Ten classes of ImageNet, 128×128 colour: imagenette, imagewoof, imagemeow, imagesquawk, …; by path.

Deng et al., CVPR 2009; for research, by ImageNet's terms. The subsets are those of MTT (Cazenavette et al., CVPR 2022),
whose code names them by positions in ImageNet's sorted 1,000 classes. `--data DIR` has `train/CLASS/*` and
`val/CLASS/*` (the test set), or has them in a folder `imagenet`: with all 1,000 classes, of which ten are taken, or
with the subset's ten alone. Labels follow the sorted class folders, so both give the same prepared file.

Resized so that the shorter side is `size`, then cropped around the centre, as torchvision's Resize and CenterCrop do
on Pillow's images; orientation tags are not followed, since the field's codes do not, and are counted in a note.
fastai's `imagenette2` has these classes too but splits them another way: its scores cannot be compared with ImageNet's
validation part.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta
from PIL import Image

from dambench.core import config
from dambench.core.errors import BadInput
from dambench.datasets import Pixels, Raw, _folders, _images

MIRRORS = True

SUBSETS = {
    "imagenette": {
        0: "n01440764",
        217: "n02102040",
        482: "n02979186",
        491: "n03000684",
        497: "n03028079",
        566: "n03394916",
        569: "n03417042",
        571: "n03425413",
        574: "n03445777",
        701: "n03888257",
    },
    "imagewoof": {
        155: "n02086240",
        159: "n02087394",
        162: "n02088364",
        167: "n02089973",
        182: "n02093754",
        193: "n02096294",
        207: "n02099601",
        229: "n02105641",
        258: "n02111889",
        273: "n02115641",
    },
    "imagemeow": {
        281: "n02123045",
        282: "n02123159",
        283: "n02123394",
        284: "n02123597",
        285: "n02124075",
        287: "n02127052",
        289: "n02128757",
        290: "n02128925",
        291: "n02129165",
        292: "n02129604",
    },
    "imagesquawk": {
        9: "n01518878",
        22: "n01614925",
        84: "n01806143",
        88: "n01818515",
        89: "n01819313",
        96: "n01843383",
        100: "n01860187",
        130: "n02007558",
        144: "n02051845",
        145: "n02056570",
    },
    "imagefruit": {
        943: "n07718472",
        945: "n07720875",
        948: "n07742313",
        949: "n07745940",
        950: "n07747607",
        951: "n07749582",
        952: "n07753113",
        953: "n07753275",
        954: "n07753592",
        957: "n07768694",
    },
    "imageyellow": {
        11: "n01531178",
        72: "n01773157",
        291: "n02129165",
        309: "n02206856",
        599: "n03530642",
        779: "n04146614",
        951: "n07749582",
        954: "n07753592",
        986: "n12057211",
        987: "n12144580",
    },
}
"""Position among ImageNet's 1,000 classes → WordNet id, which is what the class folder is usually called."""
ALL = 1000
PARTS = ("train", "val")
WORDNET = re.compile(r"n\d{8}")


class Options(config.Options, frozen=True):
    subset: Literal["imagenette", "imagewoof", "imagemeow", "imagesquawk", "imagefruit", "imageyellow"] = "imagenette"
    """Which ten classes."""
    size: Annotated[int, Meta(ge=32, le=512)] = 128
    """Side of the square that images are made."""


def fingerprint(options: Options, data: Path | None) -> str:
    parts, _ = _parts(options, data)
    return _folders.fingerprint(item for part in parts for item in part)


def load(options: Options, data: Path | None) -> Raw:
    parts, tally = _parts(options, data)
    survey = _images.survey(parts, tally, upright=False)
    train, test = survey.parts
    classes = sorted({label for label, _ in train})
    size = options.size

    def pixels(path: str) -> Pixels:
        return _images.planes(_cropped(_images.decoded(path, 3, survey.view), size))

    return Raw(
        train_images=_images.read(train, (3, size, size), pixels),
        train_labels=_folders.labels(train, classes),
        test_images=_images.read(test, (3, size, size), pixels),
        test_labels=_folders.labels(test, classes),
        classes=_names(options.subset, classes),
        label=options.subset if size == 128 else f"{options.subset} {size}",
        mirrors=MIRRORS,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        notes=tally.notes(),
    )


def _parts(options: Options, data: Path | None) -> tuple[list[list[_folders.Item]], _folders.Tally]:
    """The files of the ten classes in the training and in the validation part, class by class."""
    root = _folders.place("imagenet", data, "imagenet", "train")
    classes = _chosen(options.subset, root / "train")

    tally = _folders.Tally(root)
    for folder in (root / part / label for part in PARTS for label in classes):
        if not folder.is_dir():
            raise BadInput(f"{options.subset} needs images in {str(folder)!r}: there are none.")
    return [_folders.in_class_folders(root / part, classes, tally) for part in PARTS], tally


def _chosen(subset: str, part: Path) -> list[str]:
    """The folders of the subset's classes, sorted."""
    folders = _folders.folders(part)
    chosen = SUBSETS[subset]
    if set(chosen.values()) <= set(folders):
        return sorted(chosen.values())
    if len(folders) == ALL:
        return [folders[position] for position in sorted(chosen)]
    others = [other for other, classes in SUBSETS.items() if set(folders) == set(classes.values())]
    if others:
        raise BadInput(f"{str(part)!r} has the classes of {others[0]}: say --set dataset.subset={others[0]}.")
    if len(folders) == len(chosen) and not any(WORDNET.fullmatch(label) for label in folders):
        return folders
    missing = next(label for label in chosen.values() if label not in folders)
    raise BadInput(
        f"{str(part)!r} has {len(folders)} class folders, and {missing!r} is not among them: {subset} needs its "
        f"{len(chosen)} classes, or all {ALL} of ImageNet."
    )


def _names(subset: str, classes: list[str]) -> list[str]:
    """ImageNet's names; folders that have names of their own keep them."""
    # torchvision takes a second to import, and is needed once.
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    positions = {label: position for position, label in SUBSETS[subset].items()}
    return [names[positions[label]] if label in positions else label for label in classes]


def _cropped(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    shorter = min(width, height)
    if shorter != size:
        # The longer side is rounded down, as torchvision does.
        width, height = (size if side == shorter else size * side // shorter for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
