from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from dambench.training.cuda_graph import WARM_UPS, Replayed
from tests.lab import Tape, noise

CPU = torch.device("cpu")


class Counter:
    """Changes a tensor in place, and counts how often Python did it."""

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.calls = 0

    def add(self, *inputs: Tensor) -> Sequence[Tensor]:
        self.calls += 1
        self.total += sum(tensor.sum() for tensor in inputs)
        return [self.total * 1, *(tensor * 2 for tensor in inputs)]


def replayed(
    function: Callable[..., Sequence[Tensor]],
    *,
    on: bool = True,
    on_warning: Callable[[str], None] = lambda message: None,
) -> tuple[Replayed, list[Tape]]:
    made: list[Tape] = []

    def make(device: torch.device) -> Tape:
        made.append(Tape(device))
        return made[-1]

    return Replayed(function, CPU, on=on, on_warning=on_warning, recorder=make), made


def test_every_call_has_its_effects_once_and_gives_its_own_outputs() -> None:
    counter = Counter()
    step, (recorder,) = replayed(counter.add)
    for number in range(1, 11):
        total, doubled = step(torch.tensor([float(number)]))
        assert total.item() == number * (number + 1) / 2
        assert doubled.tolist() == [2.0 * number]
    assert counter.total.item() == 55
    assert (recorder.warmed_up, recorder.recorded, recorder.replayed) == (WARM_UPS, 1, 10 - WARM_UPS)
    assert counter.calls == WARM_UPS + 1


def test_inputs_are_copied_to_where_they_were_when_it_was_recorded_and_the_caller_s_own_stay_as_they_are() -> None:
    step, _ = replayed(lambda x: [x + 1])
    mine = [torch.full((2,), float(number)) for number in range(WARM_UPS + 3)]
    for number, tensor in enumerate(mine):
        assert step(tensor)[0].tolist() == [number + 1.0] * 2
    assert [tensor[0].item() for tensor in mine] == list(range(WARM_UPS + 3))


def test_each_shape_and_dtype_has_a_recording_of_its_own() -> None:
    counter = Counter()
    step, (recorder,) = replayed(counter.add)
    kinds = [torch.ones(4), torch.ones(3), torch.ones(2, 2), torch.ones(4, dtype=torch.int64)]
    for round_ in range(1, 8):
        for position, kind in enumerate(kinds):
            total, doubled = step(kind * round_)
            assert torch.equal(doubled, kind * 2 * round_)
            assert doubled.dtype == kind.dtype
            done = 15 * sum(range(round_)) + round_ * [4, 7, 11, 15][position]
            assert total.item() == done
    assert (recorder.warmed_up, recorder.recorded) == (WARM_UPS * 4, 4)


def test_gradients_are_taken_inside_and_none_passes_through() -> None:
    weight = noise(3).requires_grad_()
    expected = weight.detach().clone()

    def descend(x: Tensor, lr: Tensor) -> Sequence[Tensor]:
        loss = (weight * x).square().sum()
        (gradient,) = torch.autograd.grad(loss, [weight])
        with torch.no_grad():
            weight.sub_(gradient * lr)
        return [loss]

    step, _ = replayed(descend)
    for number in range(WARM_UPS + 4):
        x = noise(3, seed=number + 1).requires_grad_()
        (loss,) = step(x, torch.tensor(0.01))
        torch.testing.assert_close(loss, (expected * x.detach()).square().sum())
        assert not loss.requires_grad
        expected -= 0.01 * 2 * expected * x.detach().square()
        torch.testing.assert_close(weight.detach(), expected)


def test_what_cannot_be_recorded_is_called_plainly_ever_after_and_says_so_once() -> None:
    counter, said = Counter(), list[str]()
    step, made = replayed(counter.add, on_warning=said.append)
    made[0].error = RuntimeError("operation not permitted\nand more")
    for number in range(1, 9):
        total, _ = step(torch.tensor(float(number)))
        assert total.item() == number * (number + 1) / 2
    step.forget()
    step(torch.zeros(2))
    assert counter.calls == 9
    assert len(made) == 1
    assert said == ["Without a CUDA graph, which is slower: RuntimeError: operation not permitted"]


def test_want_of_memory_while_recording_is_the_caller_s_to_know_and_nothing_was_done() -> None:
    def out_of_memory() -> BaseException:
        # What the end of such a recording raises hides why it ended.
        hidden = RuntimeError("capture failed")
        hidden.__context__ = torch.OutOfMemoryError("too much")
        return hidden

    for error in (torch.OutOfMemoryError("too much"), out_of_memory()):
        counter, said = Counter(), list[str]()
        step, made = replayed(counter.add, on_warning=said.append)
        made[0].error = error
        for _ in range(WARM_UPS):
            step(torch.ones(()))
        with pytest.raises(torch.OutOfMemoryError, match="too much"):
            step(torch.ones(()))
        assert counter.calls == WARM_UPS
        assert not said


def test_an_error_of_the_function_is_the_function_s() -> None:
    def fail(x: Tensor) -> Sequence[Tensor]:
        raise ValueError("no")

    step, _ = replayed(fail)
    with pytest.raises(ValueError, match="no"):
        step(torch.ones(()))


def test_what_was_forgotten_is_recorded_again() -> None:
    counter = Counter()
    step, made = replayed(counter.add)
    for _ in range(WARM_UPS + 2):
        step(torch.ones(()))
    step.forget()
    for _ in range(WARM_UPS + 2):
        (total, _) = step(torch.ones(()))
    assert total.item() == 2 * WARM_UPS + 4
    assert [recorder.recorded for recorder in made] == [1, 1]


def test_nothing_is_recorded_on_a_cpu_or_where_it_is_switched_off() -> None:
    off, made = replayed(Counter().add, on=False)
    for step in (off, Replayed(Counter().add, CPU)):
        for number in range(1, WARM_UPS + 4):
            assert step(torch.ones(2))[0].item() == 2 * number
    assert not made
