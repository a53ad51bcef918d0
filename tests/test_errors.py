from dambench.errors import unknown


def test_the_nearest_name_is_offered_and_all_are_listed() -> None:
    assert str(unknown("method", "datadm", ["dm", "datadam", "random"])) == (
        "No method is called 'datadm'. Did you mean 'datadam'? Known: datadam, dm, random."
    )


def test_a_name_cut_short_is_completed() -> None:
    assert "Did you mean 'lr_images'?" in str(unknown("option", "lr", ["batch_real", "lr_images"]))


def test_nothing_near_offers_nothing() -> None:
    assert str(unknown("method", "zzzz", ["dm"])) == "No method is called 'zzzz'. Known: dm."
