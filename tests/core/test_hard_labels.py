"""The hard-label twins of protocols."""

from typing import Any

import pytest
from msgspec.structs import replace

from dambench.core.config import Request
from dambench.core.errors import BadInput
from dambench.core.hard_labels import RATE, SOFT, TEACHER, hard_twin, left_out, used, wants_twin
from dambench.core.protocol import PRESETS, Protocol
from dambench.training.train import DEFAULT_LR


def own_ways(protocol: Protocol) -> bool:
    return protocol.labels != "hard" or isinstance(protocol.lr, str)


@pytest.mark.parametrize("name", PRESETS)
def test_each_protocol_that_uses_what_sets_carry_has_a_twin_that_does_not(name: str) -> None:
    protocol = PRESETS[name]
    twin = hard_twin(protocol)
    if not own_ways(protocol):
        assert twin is None
        return
    assert twin is not None
    assert (twin.labels, twin.lr) == ("hard", DEFAULT_LR if isinstance(protocol.lr, str) else protocol.lr)
    same: dict[str, Any] = {"labels": "hard", "lr": twin.lr, "temperature": 1.0, "batch": twin.batch}
    assert replace(protocol, **same).sha256 == twin.sha256
    assert not used(twin, [SOFT, RATE, TEACHER])


def test_sets_of_mtt_and_datm_have_their_twins_among_those_of_dsa_and_dm() -> None:
    assert hard_twin(PRESETS["mtt"]) == hard_twin(PRESETS["datm-pad"]) == PRESETS["dsa-dm"]
    assert hard_twin(replace(PRESETS["mtt"], synthetic=replace(PRESETS["mtt"].synthetic, epochs=7))) is None


def test_what_a_protocol_uses_and_leaves_out_of_a_set_is_told() -> None:
    everything = (SOFT, RATE, TEACHER)
    assert used(PRESETS["mtt"], everything) == [RATE]
    assert left_out(PRESETS["mtt"], everything) == [SOFT, TEACHER]
    assert used(PRESETS["datm-pad"], everything) == [SOFT, RATE]
    assert used(PRESETS["soft"], everything) == [TEACHER]
    assert left_out(PRESETS["soft"], everything) == [RATE]
    assert used(PRESETS["datm-pad"], ()) == left_out(PRESETS["dsa-dm"], ()) == []
    assert left_out(PRESETS["dsa-dm"], (SOFT, RATE)) == [SOFT, RATE]


def test_a_twin_is_wanted_unless_it_is_said_that_it_is_not() -> None:
    assert wants_twin(Request())
    assert wants_twin(Request(hard_twin=" On"))
    assert not wants_twin(Request(hard_twin="off"))
    with pytest.raises(BadInput, match=r"^--hard-twin 'maybe' is neither on nor off\.$"):
        wants_twin(Request(hard_twin="maybe"))
