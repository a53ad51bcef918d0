import msgspec
import pytest

from dambench.core.errors import BadInput
from dambench.core.protocol import DSA, PRESETS, Budget, HoldOut, Protocol, preset, unrounded


def test_the_hash_is_of_what_is_computed_not_of_the_name() -> None:
    quick = PRESETS["quick"]
    renamed = msgspec.structs.replace(quick, name="mine", source="me")
    assert renamed.sha256 == quick.sha256
    for change in (
        {"synthetic": Budget(epochs=201, drops=(100,))},
        {"whole": Budget(epochs=51)},
        {"version": 2},
        {"batch": 128},
        {"lr": 0.02},
        {"lr": "as the set carries"},
        {"momentum": 0.8},
        {"weight_decay": 0.0},
        {"decay": 0.2},
        {"keeps_momentum": True},
        {"augmentation": ()},
        {"draws": "for each image"},
        {"labels": "as the set carries"},
        {"hold_out": HoldOut()},
        {"precision": "bf16"},
    ):
        assert msgspec.structs.replace(quick, **change).sha256 != quick.sha256


def test_a_field_at_its_default_is_not_hashed_so_new_fields_keep_old_hashes() -> None:
    bare = Protocol(name="a", synthetic=Budget(epochs=1), whole=Budget(epochs=1))
    spelled = Protocol(name="a", synthetic=Budget(epochs=1), whole=Budget(epochs=1), batch=256, lr=0.01, decay=0.1)
    assert bare.sha256 == spelled.sha256


def test_published_hashes_do_not_change() -> None:
    """Scores in people's databases carry them: whoever changes a preset must raise its version."""
    assert {name: protocol.sha256[:12] for name, protocol in PRESETS.items()} == {
        "quick": "3528e120eaac",
        "soft-hard": "fec0a758b310",
        "strong": "49b960aced1b",
        "strong-short": "d33dfc48a638",
        "brief": "00bada8d0342",
        "datadam": "5d2198952911",
        "datadam-table": "b14738d71d52",
        "dc": "7644d3e7ebd5",
        "dc-augmented": "df07b660a150",
        "dsa-dm": "5566b8a96b12",
        "mtt": "bc7d53f1951f",
        "datm-pad": "8a1132752ac0",
        "idc": "7a191b21d7bf",
        "idc-1500": "130c9577bb0c",
        "idc-mnist": "10e3ea996037",
        "ncfm": "6d90c1472cc1",
        "soft": "a291d1ab6da9",
        "sre2l": "2f0fa051897c",
        "sre2l-hard": "1230857f0ab9",
        "fair": "4f30d900b626",
        "fair-quick": "d86ac125dcf9",
        "fair-brief": "1eb851c421cf",
        "fair-mtt": "0a71b0f388fb",
        "fair-datm-pad": "ffdd24ee2548",
        "quick-bf16": "f917c9d7b1c8",
        "brief-bf16": "163118b28dfe",
        "dsa-dm-bf16": "186e9d5dc3cc",
    }


def test_epochs_are_those_that_the_released_codes_really_run() -> None:
    # They loop over range(E + 1) and make a new optimiser after epoch index E // 2 + 1.
    for name, nominal in (("dc", 300), ("dc-augmented", 1000), ("dsa-dm", 1000)):
        budget = PRESETS[name].synthetic
        assert budget.epochs == nominal + 1
        assert budget.drops == (nominal // 2 + 2,)
        assert not PRESETS[name].keeps_momentum
    assert PRESETS["dc"].augmentation == ()
    assert PRESETS["dsa-dm"].augmentation == DSA


def test_a_protocol_is_found_by_name_and_by_label() -> None:
    assert preset("dc") is preset(PRESETS["dc"].label) is PRESETS["dc"]


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean 'dsa-dm'"):
        preset("dsamd")


def test_a_protocol_in_bfloat16_is_another_one_and_knows_the_one_in_float32() -> None:
    for name in ("quick", "brief", "dsa-dm"):
        rounded = PRESETS[f"{name}-bf16"]
        assert rounded.precision == "bf16"
        assert unrounded(rounded) is PRESETS[name]
    mine = msgspec.structs.replace(PRESETS["quick-bf16"], batch=77)
    assert unrounded(mine) == msgspec.structs.replace(mine, precision="fp32")
