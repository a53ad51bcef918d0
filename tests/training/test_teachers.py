from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dambench import engine, networks
from dambench.core import files
from dambench.core.config import Request
from dambench.core.errors import BadInput
from dambench.testing import data_card
from dambench.training.problem import Network, Normalisation, SyntheticSet, Teacher
from dambench.training.teachers import keep_teacher, load_teacher
from tests.lab import generator, noise

CARD = data_card()
LIKE = Normalisation((0.4,), (0.2,))
NAME = "convnet-d1-w8-bn"


def build(name: str) -> Network:
    return networks.build(name, CARD)


def taught(order: int = 1) -> tuple[Network, SyntheticSet]:
    network = build(NAME)
    network.reset(generator(3))
    classes = tuple(CARD.classes)
    images, labels = noise(3, 1, 8, 8, dtype=torch.float32), torch.arange(3)
    teacher = keep_teacher(network, NAME, classes[::order], LIKE)
    return network.eval(), SyntheticSet(images, labels, LIKE, classes, teacher=teacher)


def test_a_teacher_says_what_it_said_when_it_was_kept(tmp_path: Path) -> None:
    network, data = taught()
    path = tmp_path / "set.safetensors"
    path.write_bytes(data.to_bytes())
    again = load_teacher(SyntheticSet.read(path), build)
    torch.testing.assert_close(again(data.images), network(data.images).detach())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    assert not again.training


def test_a_teacher_with_classes_in_another_order_is_refused() -> None:
    with pytest.raises(BadInput, match="in another order: class 2, class 1, class 0"):
        load_teacher(taught(-1)[1], build)


def test_what_does_not_fit_a_set_is_refused() -> None:
    _, data = taught()
    assert data.teacher is not None
    path = files.teacher_path(data.teacher.sha256)
    with pytest.raises(BadInput, match="preprocessed in another way"):
        load_teacher(replace(data, preprocessing=Normalisation((0.5,), (0.2,))), build)
    with pytest.raises(BadInput, match="and not what the set calls it"):
        load_teacher(replace(data, teacher=Teacher("convnet-d1-w4", data.teacher.sha256)), build)
    with pytest.raises(BadInput, match="names none"):
        load_teacher(replace(data, teacher=None), build)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match="missing or damaged: copy its file"):
        load_teacher(data, build)
    path.unlink()
    for sha256 in (data.teacher.sha256, "../../etc/passwd"):
        with pytest.raises(BadInput, match="missing or damaged"):
            load_teacher(replace(data, teacher=Teacher(NAME, sha256)), build)


def test_a_protocol_of_a_teacher_is_refused_where_no_set_will_name_one() -> None:
    with pytest.raises(BadInput, match="sets of dm name none") as error:
        engine.prepare(Request(method="dm", dataset="digits", protocol="soft", device="cpu"))
    assert error.value.field == "protocol"
