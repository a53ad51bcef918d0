"""What a phase took, among it the energy of the GPU's board."""

import time
from collections.abc import Iterator

import torch

from dambench.core.events import Cost, Energy
from dambench.engine.monitors import PhaseTimer
from dambench.training.policy import Policy

POLICY = Policy(torch.device("cpu"))


def timed(readings: list[Energy | None], *phases: str) -> dict[str, Cost]:
    """The costs of phases that begin one after the other, by what a meter reads at the borders."""
    left: Iterator[Energy | None] = iter(readings)
    timer = PhaseTimer(POLICY, meter=lambda: next(left))
    for phase in phases:
        timer.start(phase)
        time.sleep(0.001)
    return {cost.phase: cost for cost in timer.costs()}


def test_a_phase_s_energy_is_the_difference_at_its_borders_summed_over_its_parts() -> None:
    readings: list[Energy | None] = [Energy(joules, False) for joules in (0.0, 1.0, 5.0, 7.0, 17.0)]
    costs = timed(readings, "distil", "evaluate", "distil")
    assert {phase: cost.joules for phase, cost in costs.items()} == {"prepare": 1.0, "distil": 14.0, "evaluate": 2.0}
    assert {cost.shared for cost in costs.values()} == {False}


def test_a_phase_is_shared_where_any_part_of_it_was() -> None:
    readings: list[Energy | None] = [Energy(0.0, None), Energy(1.0, None), Energy(2.0, True), Energy(3.0, False)]
    costs = timed([*readings, Energy(4.0, False)], "distil", "evaluate", "distil")
    assert {phase: cost.shared for phase, cost in costs.items()} == {"prepare": None, "distil": True, "evaluate": False}


def test_a_phase_of_which_a_part_was_not_measured_has_no_energy() -> None:
    readings = [Energy(0.0, False), None, Energy(5.0, False), Energy(7.0, False), Energy(9.0, False)]
    costs = timed(readings, "distil", "evaluate", "distil")
    assert {phase: cost.joules for phase, cost in costs.items()} == {"prepare": None, "distil": None, "evaluate": 2.0}


def test_a_counter_that_has_not_moved_says_nothing() -> None:
    costs = timed([Energy(3.0, False), Energy(3.0, False), Energy(4.0, False)], "distil")
    assert (costs["prepare"].joules, costs["prepare"].shared) == (None, None)
    assert costs["distil"].joules == 1.0


def test_a_run_that_goes_on_adds_to_what_its_checkpoint_knew_and_to_nothing_else() -> None:
    left = iter([Energy(0.0, False), Energy(1.0, False), Energy(3.0, False), Energy(6.0, False)])
    timer = PhaseTimer(POLICY, meter=lambda: next(left))
    timer.go_on_with_energy(["prepare", "distil", "evaluate"], {"prepare": [2.0, True], "distil": [10.0, None]})
    timer.start("distil")
    timer.start("evaluate")
    timer.close()
    assert timer.known_energy() == {"prepare": [3.0, True], "distil": [12.0, False]}


def test_without_a_meter_there_is_no_energy() -> None:
    timer = PhaseTimer(POLICY)
    timer.start("distil")
    assert [(cost.joules, cost.shared) for cost in timer.costs()] == [(None, None)] * 2
