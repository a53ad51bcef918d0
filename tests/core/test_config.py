from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from dambench.core import config
from dambench.core.config import Choice, Recipe, Request, RunConfig, overlay, read, read_toml, settings
from dambench.core.errors import BadInput
from dambench.core.protocol import PRESETS


class Options(config.Options, frozen=True):
    lr_images: Annotated[float, Meta(gt=0)] = 1.0
    iterations: Annotated[int, Meta(ge=1)] = 10
    init: Literal["real", "noise"] = "real"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lr_image": 1.0}, "No option is called 'lr_image'. Did you mean 'lr_images'"),
        ({"lr_images": -1.0}, "lr_images = -1.0 is not allowed: expected `float` > 0.0"),
        ({"lr_images": 0}, "lr_images = 0 is not allowed"),
        ({"lr_images": float("nan")}, "lr_images = nan is not a finite number"),
        ({"lr_images": float("inf")}, "lr_images = inf is not a finite number"),
        ({"lr_images": "1"}, "lr_images = '1' is not allowed: expected `float`, got `str`"),
        ({"iterations": True}, "iterations = True is not allowed: expected `int`, got `bool`"),
        ({"iterations": 1.5}, "iterations = 1.5 is not allowed: expected `int`, got `float`"),
        ({"iterations": 0}, "iterations = 0 is not allowed: expected `int` >= 1"),
        ({"init": "smart"}, "init = 'smart' is not allowed"),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_what_would_be_right(fields: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput) as error:
        read(Options, fields, "method dm")
    assert "method dm" in str(error.value)
    assert said in str(error.value)


@given(st.floats(min_value=1e-6, max_value=1e6), st.integers(1, 10**6))
def test_good_options_are_taken(lr: float, iterations: int) -> None:
    assert read(Options, {"lr_images": lr, "iterations": iterations}, "x") == Options(
        lr_images=lr, iterations=iterations
    )


def _config(**changes: object) -> RunConfig:
    base = RunConfig(
        dataset=Choice("digits"),
        method=Choice("dm", {"iterations": 5}),
        network="convnet-d1-w8",
        ipc=1,
        protocol=PRESETS["quick"],
        evaluate_on=("convnet-d1-w8",),
    )
    return msgspec.structs.replace(base, **changes)


def test_the_identity_of_a_run_is_what_it_computes_not_where() -> None:
    base = _config()
    assert _config(execution=config.Execution(device="cuda:1", threads=3, data="/elsewhere")).sha256 == base.sha256
    for change in (
        {"seed": 1},
        {"ipc": 2},
        {"network": ""},
        {"evaluate_on": ("convnet-d2-w8",)},
        {"eval_repeats": 4},
        {"evaluate_every": 5},
        {"deterministic": True},
        {"method": Choice("dm", {"iterations": 6})},
        {"dataset": Choice("digits", {"x": 1})},
        {"protocol": PRESETS["dc"]},
    ):
        assert _config(**change).sha256 != base.sha256


def test_a_config_comes_back_from_json_as_it_was() -> None:
    run = _config(seed=2**63 - 1, execution=config.Execution(data="a b"))
    back = msgspec.json.decode(msgspec.json.encode(run), type=RunConfig)
    assert back == run
    assert back.sha256 == run.sha256
    assert back.protocol.sha256 == run.protocol.sha256


def test_a_toml_file_says_the_same_as_flags(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('dataset = "digits"\nipc = 10\n[method]\nname = "dm"\nlr_images = 0.5\n')
    request = read(Request, read_toml(path), "x")
    assert request.ipc == 10
    assert request.choice("method") == Choice("dm", {"lr_images": 0.5})
    flags = overlay(overlay({}, {"dataset": "digits", "ipc": 10, "method": "dm"}), settings(["method.lr_images=0.5"]))
    assert read(Request, flags, "x").choice("method") == request.choice("method")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ipc = ", "is not valid TOML"),
        ("ipcs = 1", "No setting is called 'ipcs'. Did you mean 'ipc'"),
        ('ipc = "ten"', "ipc = 'ten' is not allowed"),
        ("evaluate_on = [1]", "evaluate_on"),
        ("method = 3", "method = 3 is not allowed"),
    ],
)
def test_a_bad_toml_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_toml(path)
    assert "run.toml" in str(error.value)
    assert said in str(error.value)


def test_a_missing_or_binary_toml_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not valid TOML"):
        read_toml(tmp_path / "b.toml")


def test_flags_go_over_the_file_and_another_method_drops_the_files_options() -> None:
    fields = {"ipc": 1, "method": {"name": "dm", "lr_images": 0.5}}
    assert overlay(fields, {"ipc": 10, "method": None})["ipc"] == 10
    assert overlay(fields, {"method": "dm"})["method"] == {"name": "dm", "lr_images": 0.5}
    assert overlay(fields, {"method": "random"})["method"] == {"name": "random"}
    assert overlay(fields, {"method": {"iterations": 3}})["method"] == {
        "name": "dm",
        "lr_images": 0.5,
        "iterations": 3,
    }


def test_what_is_said_later_in_another_way_wins() -> None:
    assert overlay({"seeds": "0-4"}, {"seed": 3}) == {"seed": 3}
    assert overlay({"seed": 3}, {"seeds": "0-4"}) == {"seeds": "0-4"}
    assert overlay({}, {"seed": 3, "seeds": "0-4"}) == {"seed": 3, "seeds": "0-4"}  # together they are refused
    assert "iterations" not in overlay({"iterations": 5}, {"method": {"iterations": 3}})
    assert overlay({"iterations": 5}, {"method": "dm"})["iterations"] == 5


def test_a_toml_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_text("ipc = 3", encoding="utf-8-sig")
    assert read_toml(tmp_path / "bom.toml") == {"ipc": 3}


def test_settings_are_read_as_toml_values_and_else_as_text() -> None:
    found = settings(["method.lr_images=0.1", "method.init=noise", "dataset.mirrors=false", "method.x='y'"])
    assert found == {"method": {"lr_images": 0.1, "init": "noise", "x": "y"}, "dataset": {"mirrors": False}}


@pytest.mark.parametrize("pair", ["lr=1", "method.lr_images", "network.depth=3", "method.=1", "=", "x"])
def test_a_setting_of_another_form_is_bad_input(pair: str) -> None:
    with pytest.raises(BadInput, match="is not of the form"):
        settings([pair])


def test_no_method_named_says_how_to_name_one() -> None:
    with pytest.raises(BadInput, match="--method NAME"):
        Request().choice("method")
    with pytest.raises(BadInput, match="--dataset NAME"):
        Request(dataset={"size": 3}).choice("dataset")


def test_seeds_make_one_request_each() -> None:
    assert [r.seed for r in Request(seeds="0-2,7").each_seed()] == [0, 1, 2, 7]
    assert [r.seed for r in Request(seeds=[3, 1]).each_seed()] == [3, 1]
    assert [r.seed for r in Request(seed=4).each_seed()] == [4]


@pytest.mark.parametrize(
    "text", ["", "a", "3-", "-1", "1-x", "4-2", "1,1", "0-5000", "0-99999999999", "9223372036854775808"]
)
def test_seeds_of_another_form_are_bad_input(text: str) -> None:
    with pytest.raises(BadInput):
        Request(seeds=text).each_seed()


def test_seed_and_seeds_exclude_each_other() -> None:
    with pytest.raises(BadInput, match="exclude"):
        Request(seed=0, seeds="0-1").each_seed()


def test_a_recipe_fits_its_datasets_and_ipc() -> None:
    recipe = Recipe(source="x", datasets=("cifar10",), ipc=(100, None))
    assert recipe.fits("cifar10", 100)
    assert not recipe.fits("cifar10", 99)
    assert not recipe.fits("mnist", 100)
    assert Recipe(source="x", ipc=(1, 10)).fits("anything", 10)
    assert not Recipe(source="x", ipc=(1, 10)).fits("anything", 11)


def test_each_field_of_a_request_is_an_option_with_all_that_a_flag_and_a_form_need() -> None:
    stated = {option.name: option for option in config.options()}
    assert tuple(stated) == Request.__struct_fields__
    ipc, tags, compile_ = stated["ipc"], stated["tags"], stated["compile"]
    assert (ipc.flag, ipc.kind, ipc.minimum, ipc.title) == ("--ipc", "integer", 1, "IPC")
    assert ipc.help == "Images per class [default: 1]."
    assert (tags.flag, tags.kind, tags.repeated) == ("--tag", "list", True)
    assert (compile_.flag, compile_.choices) == ("--compile", ("auto", "on", "off"))
    assert all(option.title and option.description and option.help.endswith(".") for option in stated.values())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ipc": 0}, "ipc"),
        ({"evaluate_on": ["convnet", 3]}, "evaluate_on"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every"),
        ({"ipcs": 1}, "ipcs"),
        ({"seeds": "4-"}, "seeds"),
        ({"seeds": [1], "seed": 1}, "seeds"),
    ],
)
def test_an_error_names_the_field_that_it_is_about(fields: dict[str, object], field: str) -> None:
    with pytest.raises(BadInput) as error:
        read(Request, fields, "the request").each_seed()
    assert error.value.field == field


def test_an_error_about_an_option_of_a_method_names_it_as_the_form_does() -> None:
    for fields, field in (({"lr_images": -1.0}, "method.lr_images"), ({"rate": 1}, "method.rate")):
        with pytest.raises(BadInput) as error:
            read(Options, fields, "method dm", "method")
        assert error.value.field == field
    with pytest.raises(BadInput) as error:
        settings(["method.lr=1", "method.lr=2"])
    assert error.value.field == "method.lr"
