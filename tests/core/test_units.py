import pytest

from dambench.core.protocol import PRESETS
from dambench.core.units import duration, energy, part_of, size
from dambench.report.wording import protocol_in_words


@pytest.mark.parametrize(
    ("count", "written"),
    [
        *((0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (2_345, "2.3 kB"), (512_000, "512 kB")),
        *((1_021_600_000, "1.0 GB"), (999_400_000, "999 MB"), (999_600_000, "1.0 GB"), (999_600, "1 MB")),
        (2**30, "1.1 GB"),
    ],
)
def test_a_gigabyte_is_a_thousand_megabytes(count: int, written: str) -> None:
    assert size(count) == written


def test_a_part_and_its_whole_have_one_unit() -> None:
    assert part_of(2**32, 2**34) == "4.3/17.2 GB"
    assert part_of(5e6, None) == "5 MB"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        *((0.0123, "0.0123 s"), (12.34, "12.3 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (250, "4 min 10 s")),
        *((12_000, "3 h 20 min"), (187_200, "2 d 4 h")),
    ],
)
def test_a_time_has_two_units_at_most(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_energy_is_in_what_people_pay_for_once_it_is_worth_it() -> None:
    assert (energy(2_500), energy(3_600_000)) == ("2.5 kJ", "1 kWh")


@pytest.mark.parametrize(
    ("name", "said", "left_out"),
    [
        ("dc-augmented", "DC's crop/scale/rotate, one for each image. Source", "flip"),
        ("dsa-dm", "DSA color/crop/cutout/flip/scale/rotate, one for each batch, without flip where", "DC's"),
        ("dc", "labels: hard; no augmentation. Source", "DSA"),
        (
            "datadam-table",
            "1801 epochs (rate × 0.5 after every 15) on a synthetic set, 200 epochs (rate × 0.5 after",
            "45",
        ),
        ("quick", "200 epochs (rate × 0.1 after 100)", "every"),
    ],
)
def test_a_protocol_is_told_as_it_is(name: str, said: str, left_out: str) -> None:
    written = protocol_in_words(PRESETS[name])
    assert said in written
    assert left_out not in written.partition("Source")[0]
    assert len(written) < 600
