import pytest

from dambench.core.errors import BadInput, about, named, unknown


def test_the_nearest_name_is_offered_and_all_are_listed() -> None:
    assert str(unknown("method", "datadm", ["dm", "datadam", "random"])) == (
        "No method is called 'datadm'. Did you mean 'datadam'? Known: datadam, dm, random."
    )


@pytest.mark.parametrize("name", ["cifar10", "CIFAR-10", " Cifar_10", "cifar 10"])
def test_a_name_is_found_without_case_dashes_underscores_and_spaces(name: str) -> None:
    assert named("dataset", name, ["cifar100", "cifar10"]) == "cifar10"


def test_of_names_that_differ_in_nothing_else_the_very_one_is_meant_or_none() -> None:
    assert named("method", "d-m", ["dm", "d-m"]) == "d-m"
    with pytest.raises(BadInput, match="No method is called 'DM'"):
        named("method", "DM", ["dm", "d-m"])


def test_a_name_cut_short_is_completed() -> None:
    assert "Did you mean 'lr_images'?" in str(unknown("option", "lr", ["batch_real", "lr_images"]))


def test_nothing_near_offers_nothing() -> None:
    assert str(unknown("method", "zzzz", ["dm"])) == "No method is called 'zzzz'. Known: dm."


def test_what_is_wrong_is_about_the_option_that_was_looked_at_unless_it_says_another() -> None:
    with pytest.raises(BadInput) as error, about("network"):
        named("network", "x", [])
    assert error.value.field == "network"
    with pytest.raises(BadInput) as error, about("dataset"):
        raise BadInput("--data 'x' is not a folder.", field="data")
    assert error.value.field == "data"
