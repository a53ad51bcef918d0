"""Teachers: networks that label what others are trained on, kept by content, named and hashed in the sets they are for.

A teacher's logits are in the order of its classes. Trained on the same images in another order, or on images that were
normalised otherwise, it labels everything wrongly without a sign of it: its file says both, and what does not fit is
refused.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from dambench.core import files, reading
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.training.problem import Network, Preprocessing, SyntheticSet, Teacher

UNTRAINED = ""
"""The digest of a teacher that is there only to see how long things take."""


def keep_teacher(network: Network, name: str, classes: Sequence[str], preprocessing: Preprocessing) -> Teacher:
    """Write a trained network to its file.

    Args:
        name: its full name.
        classes: in the order of its logits.

    Raises:
        BadInput: it cannot be written.
    """
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in network.state_dict().items()}
    about = {"network": name, "classes": list(classes), "preprocessing": repr(preprocessing)}
    content = safetensors.torch.save(tensors, {"dambench": json.dumps(about, sort_keys=True)})
    sha256 = files.digest(content)
    path = files.teacher_path(sha256)
    with files.writing("The teacher", path.parent, files.HOME_HINT):
        if not path.exists():
            files.write_whole(path, content)
    return Teacher(name, sha256)


def load_teacher(data: SyntheticSet, build: Callable[[str], Network]) -> Network:
    """Open the teacher of a set, in evaluation mode, its weights frozen, on the CPU.

    Args:
        build: makes a network of that name.

    Raises:
        BadInput: the set has none; its file is missing or damaged; or it was trained with other classes, in another
            order, or on images that were preprocessed otherwise.
    """
    teacher = data.teacher
    if teacher is None:
        raise BadInput("The protocol takes the labels of a teacher, and the set names none: take another protocol.")
    network = build(teacher.network).requires_grad_(False).eval()
    if teacher.sha256 == UNTRAINED:
        return network
    path = files.teacher_path(teacher.sha256)
    title = f"The set's teacher {display(teacher.network, 60)} ({teacher.sha256[:8]})"
    if not path.is_file() or files.sha256(path) != teacher.sha256:
        raise BadInput(f"{title} is missing or damaged: copy its file to {str(path)!r}.")
    about, tensors = _read(path.name, path)
    if about.get("network") != teacher.network:
        raise BadInput(f"{title} is a {display(str(about.get('network')), 60)}, and not what the set calls it.")
    if about.get("classes") != list(data.classes):
        raise BadInput(
            f"{title} was trained with other classes, or with them in another order: "
            f"{display(', '.join(map(str, about.get('classes') or [])), 200)}. Those of the set are "
            f"{display(', '.join(data.classes), 200)}. Its labels would be wrong."
        )
    if about.get("preprocessing") != repr(data.preprocessing):
        raise BadInput(f"{title} was trained on images that were preprocessed in another way than the set.")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadInput(f"{title} does not fit its name: {display(str(error).partition(chr(10))[0], 200)}") from None
    return network


def _read(name: str, path: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with reading.opened(path) as file:
            content = file.read()
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["dambench"])
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{name!r} is not a teacher: {display(str(error), 200)}.") from None
    return about if isinstance(about, dict) else {}, tensors
