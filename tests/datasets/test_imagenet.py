import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dambench import datasets
from dambench.core.config import Choice
from dambench.core.errors import BadInput
from dambench.datasets import imagenet
from tests.datasets import stand_ins
from tests.datasets.stand_ins import ten_classes

WOOF = list(imagenet.SUBSETS["imagewoof"].values())


def _choice(subset: str = "imagewoof", size: int = 32) -> Choice:
    return Choice("imagenet", {"subset": subset, "size": size})


def _thousand(folder: Path, names: dict[int, str], source: Path) -> Path:
    """All class folders, empty but for those at the positions of imagewoof, which are the source's."""
    for part in ("train", "val"):
        for position in range(1000):
            name = names.get(position, f"n{position:08}")
            if position not in names:
                (folder / part / name).mkdir(parents=True)
        for name, label in zip([names[p] for p in sorted(names)], sorted(WOOF), strict=True):
            shutil.copytree(source / part / label, folder / part / name)
    return folder


def test_the_ten_classes_are_found_among_all_by_name_or_by_position(tmp_path: Path) -> None:
    alone = ten_classes(tmp_path / "alone", WOOF)
    card = datasets.prepare(_choice(), alone)
    named = _thousand(tmp_path / "named", imagenet.SUBSETS["imagewoof"], alone)
    assert datasets.prepare(_choice(), named).sha256 == card.sha256
    placed = _thousand(tmp_path / "placed", {p: f"n{p:08}" for p in imagenet.SUBSETS["imagewoof"]}, alone)
    other = datasets.prepare(_choice(), placed)
    sets = [datasets.open_sets(c, torch.device("cpu")) for c in (card, other)]
    assert all(torch.equal(one.images, two.images) for one, two in zip(*sets, strict=True))
    assert other.classes[0] == "n00000155"


def test_ten_folders_of_other_names_are_taken_as_they_are(tmp_path: Path) -> None:
    names = [f"dog {n}" for n in range(10)]
    card = datasets.prepare(_choice(), ten_classes(tmp_path, names))
    assert card.classes == names
    assert card.train_counts == card.test_counts == [1] * 10


def test_any_other_choice_of_folders_is_refused(tmp_path: Path) -> None:
    root = ten_classes(tmp_path, WOOF)
    with pytest.raises(BadInput, match=r"has the classes of imagewoof: say --set dataset\.subset=imagewoof"):
        datasets.prepare(_choice("imagenette"), root)
    for part in ("train", "val"):
        (root / part / WOOF[3]).rename(root / part / "n00000001")
    with pytest.raises(BadInput, match=rf"has 10 class folders, and '{WOOF[3]}' is not among them"):
        datasets.prepare(_choice(), root)
    shutil.rmtree(root / "train" / "n00000001")
    with pytest.raises(BadInput, match=r"has 9 class folders, .* needs its 10 classes, or all 1000 of ImageNet"):
        datasets.prepare(_choice(), root)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    root = ten_classes(tmp_path, WOOF)
    (root / "val" / WOOF[2] / "2.JPEG").unlink()
    with pytest.raises(BadInput, match=f"class '{WOOF[2]}' has no image in '.*val'"):
        datasets.prepare(_choice(), root)
    shutil.rmtree(root / "val")
    with pytest.raises(BadInput, match=f"imagewoof needs images in '.*val/{min(WOOF)}': there are none"):
        datasets.prepare(_choice(), root)


def test_images_are_resized_and_cropped_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    root = ten_classes(tmp_path, WOOF)
    expected = Compose([Resize(32), CenterCrop(32)])
    train, _ = datasets.open_sets(datasets.prepare(_choice(), root), torch.device("cpu"))
    for image, label in zip(train.images, WOOF, strict=True):
        (path,) = (root / "train" / label).iterdir()
        theirs = np.asarray(expected(Image.open(path).convert("RGB")))
        assert np.array_equal(image.numpy().transpose(1, 2, 0), theirs)


def test_the_subset_is_what_tables_call_it(tmp_path: Path) -> None:
    root = ten_classes(tmp_path / "imagenet", WOOF)
    card = datasets.prepare(_choice(size=128), root)
    assert (card.label, card.height, card.width) == ("imagewoof", 128, 128)
    assert "golden retriever" in card.classes
    assert datasets.prepare(_choice(), root.parent).label == "imagewoof 32"


def test_positions_and_wordnet_ids_of_the_subsets_agree() -> None:
    from torchvision.models import ResNet18_Weights

    pairs = {(position, label) for subset in imagenet.SUBSETS.values() for position, label in subset.items()}
    assert [label for _, label in sorted(pairs)] == sorted({label for _, label in pairs})
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    for subset, some in {
        "imagenette": {"tench", "chain saw", "parachute"},
        "imagewoof": {"Samoyed", "dingo", "beagle"},
        "imagemeow": {"tabby", "lion", "snow leopard"},
        "imagesquawk": {"ostrich", "flamingo", "king penguin"},
        "imagefruit": {"pineapple", "fig", "Granny Smith"},
        "imageyellow": {"bee", "school bus", "corn"},
    }.items():
        assert len(imagenet.SUBSETS[subset]) == 10
        assert some <= {names[position] for position in imagenet.SUBSETS[subset]}


def test_it_says_which_folder_it_needs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="imagenet needs a folder: say --data DIR, with train or imagenet/train in it"):
        datasets.prepare(_choice(), None)
    with pytest.raises(BadInput, match="does not have imagenet: neither train nor imagenet/train is there"):
        datasets.prepare(_choice(), tmp_path)
    stand_ins.write_image(tmp_path / "train" / "ant" / "0.png", stand_ins.pixels(8, 8))
    with pytest.raises(BadInput, match="has 1 class folders"):
        datasets.prepare(_choice(), tmp_path)
