"""Changed protocols: `quick+lr=0.02`, in the name, in the identity, and wherever a protocol can be named."""

from typing import Any

import pytest
from msgspec.structs import replace

from dambench.core import config, grid, listed
from dambench.core.errors import BadInput
from dambench.core.hard_labels import hard_twin
from dambench.core.overrides import over, parted
from dambench.core.protocol import PRESETS, Budget, Protocol, preset, protocol_labelled, same_here


def test_a_changed_field_is_another_protocol_in_name_and_identity_and_nothing_else_differs() -> None:
    changed, quick = preset("quick+lr=0.02"), PRESETS["quick"]
    assert changed.name == "quick+lr=0.02"
    assert changed.sha256 != quick.sha256
    assert replace(changed, name=quick.name, source=quick.source, lr=quick.lr) == quick
    assert "lr 0.02" in changed.source


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("quick+batch=64+lr=.02", "quick+batch=64+lr=0.02"),
        ("quick+lr=2e-2+batch=64", "quick+batch=64+lr=0.02"),
        ("quick+lr=0.01", "quick"),
        ("QUICK + lr = 1", "quick+lr=1"),
        ("quick+lr=as the set carries", "quick+lr=as-the-set-carries"),
        ("quick+augmentation=flip/crop", "quick+augmentation=flip/crop"),
        ("quick+augmentation=none", "quick+augmentation=none"),
        ("quick+keeps_momentum=TRUE", "quick+keeps_momentum=true"),
        ("quick+draws=all-at-once", "quick+draws=all-at-once"),
        ("quick+synthetic.epochs=400+synthetic.drops=200", "quick+synthetic.epochs=400"),
        ("quick+synthetic.drops=none", "quick+synthetic.drops=none"),
        ("+lr=0.02", "quick+lr=0.02"),
        ("quick#3528+lr=0.02", "quick+lr=0.02"),
    ],
)
def test_each_changed_protocol_has_one_name_which_asks_for_it_again(text: str, name: str) -> None:
    text = text.replace("#3528", PRESETS["quick"].label.removeprefix("quick"))
    protocol = preset(text)
    assert protocol.name == name
    for again in (preset(protocol.name), preset(protocol.label), protocol_labelled(protocol.label)):
        assert again == protocol
    assert same_here(protocol) == protocol


def test_drops_move_with_the_epochs_unless_they_are_said() -> None:
    assert preset("quick+synthetic.epochs=400").synthetic == Budget(epochs=400, drops=(200,))
    assert preset("idc+synthetic.epochs=100").synthetic == Budget(epochs=100, drops=(67, 83))
    assert preset("idc+whole.epochs=10+whole.drops=4/9").whole == Budget(epochs=10, drops=(4, 9))
    assert preset("quick+synthetic.epochs=1").synthetic == Budget(epochs=1)
    assert preset("quick+synthetic.epochs=400").whole == PRESETS["quick"].whole


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("quick+lrr=1", "No field is called 'lrr'. Did you mean 'lr'?"),
        ("quick+name=mine", "No field is called 'name'"),
        ("quick+hold_out=none", "No field is called 'hold_out'"),
        ("quick+lr=-1", "lr=-1: it may be above 0 or as-the-set-carries"),
        ("quick+lr=nan", "lr=nan: it may be above 0"),
        ("quick+momentum=1", "momentum=1: it may be from 0 to below 1"),
        ("quick+batch=1.5", "batch=1.5: it may be a whole number from 1"),
        ("quick+batch=0", "batch=0: it may be a whole number from 1"),
        ("quick+optimiser=lion", "optimiser=lion: it may be sgd or adamw"),
        ("quick+keeps_momentum=perhaps", "it may be true or false"),
        ("quick+augmentation=crop/crop", "it may be none, or some of color/crop"),
        ("quick+augmentation=blur", "it may be none, or some of color/crop"),
        ("quick+synthetic.drops=200", "the rate drops after some of 200 epochs"),
        ("quick+synthetic.drops=50/50", "each named once, in order"),
        ("quick+lr", "'lr' is not of the form NAME=VALUE"),
        ("quick+lr=1+lr=2", "lr is there twice"),
        ("quack+lr=1", "No protocol is called 'quack'. Did you mean 'quick'?"),
        ("quick+lr=0.02#0000", "is another version's: here it is quick+lr=0.02#"),
        (f"quick+lr={'1' * 600}", "at most 500 characters"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_sentence_about_the_protocol(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        preset(text)
    assert sentence in str(error.value)
    assert error.value.field == "protocol"


def test_changes_go_over_what_is_below_and_another_name_replaces_it() -> None:
    assert over("quick+lr=1", "+lr=2+batch=8") == "quick+lr=2+batch=8"
    assert over("quick+lr=1", "dc") == "dc"
    assert over(None, "+lr=2") == "+lr=2"
    assert parted("quick+lr=1#ab12") == ("quick", {"lr": "1"})
    settings = config.settings(["protocol.lr=0.02", "protocol.synthetic.epochs=40"])
    merged = config.overlay(config.overlay({"protocol": "dc"}, {"method": "dm"}), settings)
    assert merged["protocol"] == "dc+lr=0.02+synthetic.epochs=40"
    with pytest.raises(BadInput, match="joined by slashes"):
        config.overlay({}, {"protocol": {"augmentation": ["crop"]}})


def test_a_grid_has_fields_of_protocols_beside_protocols_and_settings_of_methods() -> None:
    tried = grid.parse(["protocol=fair,fair-quick", "protocol.lr=0.01,0.1", "method.lr_images=1"])
    fields = [grid.fields(point) for point in grid.points(tried)]
    assert [one["protocol"] for one in fields] == [
        *("fair+lr=0.01", "fair+lr=0.1", "fair-quick+lr=0.01", "fair-quick+lr=0.1"),
    ]
    assert all(one["method"] == {"lr_images": 1} for one in fields)


def _protocols(given: dict[str, Any], *pairs: str) -> list[str | None]:
    sweep = listed.read(None, {"method": "dm", "dataset": "digits", **given}, pairs, None)
    assert sweep is not None
    return [point.request.protocol for point in sweep.points]


def test_lists_of_a_field_are_a_sweep() -> None:
    assert _protocols({}, "protocol.lr=0.01,0.1") == ["+lr=0.01", "+lr=0.1"]
    assert _protocols({"protocol": "dc"}, "protocol.lr=[0.01, 0.1]") == ["dc+lr=0.01", "dc+lr=0.1"]
    several: dict[str, Any] = {"protocol": ["dc", "quick"]}
    assert _protocols(several, "protocol.batch=64") == ["dc+batch=64", "quick+batch=64"]


def test_the_hard_twin_of_a_changed_protocol_is_changed_alike() -> None:
    twin = hard_twin(preset("mtt+synthetic.epochs=50"))
    assert twin is not None
    assert twin.name == "mtt+synthetic.epochs=50+lr=0.01"
    assert hard_twin(preset("mtt+lr=0.01+batch=64")) is None, "it uses nothing that the set carries"
    assert hard_twin(preset("mtt+batch=128")) == PRESETS["dsa-dm"], "as of datm-pad, with the usual batch"


def test_a_protocol_of_another_version_is_none_here() -> None:
    changed: Protocol = replace(preset("quick+lr=0.02"), version=7)
    assert same_here(changed) is None
    assert protocol_labelled(changed.label) is None
