"""A function of tensors as a CUDA graph: recorded once, then replayed without Python and without launches.

A small network's step is hundreds of kernels of a few microseconds each, and launching one from Python takes longer
than that. A GPU that is given them all at once as a graph does not wait. A graph reads and writes fixed addresses, so
inputs are copied to where they were when it was recorded, and whatever the function changes it must change in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

WARM_UPS = 3
"""Plain calls before a recording: libraries choose their algorithms and allocate their workspaces in them."""


class GraphRecorder(Protocol):
    """A maker of recordings. One is asked for all recordings of a `Replayed`."""

    def warm_up(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Call the function where it will be recorded later."""

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        """Note what the function does, without any of it being done.

        Returns:
            What does it, as often as it is called, and the outputs, which hold nothing until then.
        """


class CudaGraphs:
    """Records CUDA graphs, which share one pool of memory: they are replayed one after another, never at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
        return outputs

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread may ask the driver for samples of the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs


@dataclass(frozen=True)
class _Recording:
    inputs: list[Tensor]
    replay: Callable[[], None]
    outputs: list[Tensor]


class Replayed:
    """A function of tensors that a GPU runs as one CUDA graph, recorded once per shapes and dtypes of its inputs.

    Every call has the function's effects exactly once: the first calls are plain ones, recording does nothing by
    itself, and whatever cannot be recorded is called plainly ever after.

    What the function must do without, to be recorded: waiting for the device (`.item()`, `.cpu()`, shapes that depend
    on values), tensors made from Python numbers or moved from the CPU, and draws from a generator. Gradients may be
    taken inside (`torch.autograd.grad`), not through it. It leaves its inputs alone; other tensors it may change, in
    place.

    Args:
        function: of the inputs, on the device.
        on: False: it is called plainly everywhere, as it is on a CPU in any case.
        on_warning: told once, if the function cannot be recorded.
        recorder: makes recordings, for `device`; where it is given, on a CPU, too.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Tensor]],
        device: torch.device,
        *,
        on: bool = True,
        on_warning: Callable[[str], None] = lambda message: None,
        recorder: Callable[[torch.device], GraphRecorder] | None = None,
    ) -> None:
        self._function = function
        self._device = device
        self._on_warning = on_warning
        self._make = recorder or CudaGraphs
        self._records = on and (recorder is not None or device.type == "cuda")
        self.forget()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Call the function, without gradients. Its outputs are valid until the next call.

        Args:
            inputs: on the device, or small and on the CPU.

        Raises:
            torch.OutOfMemoryError: as the function raises it. While recording, nothing was done.
        """
        given = [self._pinned(tensor.detach()) for tensor in inputs]
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in given)
        recording = self._recordings.get(shapes)
        if recording:
            for place, tensor in zip(recording.inputs, given, strict=True):
                place.copy_(tensor, non_blocking=True)
        else:
            own = [tensor.to(self._device, non_blocking=True) for tensor in given]
            if self._recorder is None:
                return self._call(own)
            warm_ups = self._warm_ups.get(shapes, 0)
            if warm_ups < WARM_UPS:
                outputs = self._recorder.warm_up(lambda: self._call(own))
                self._warm_ups[shapes] = warm_ups + 1
                return outputs
            own = [tensor.clone() for tensor in own]
            try:
                recording = _Recording(own, *self._recorder.record(lambda: self._call(own)))
            except Exception as error:
                out_of_memory = _out_of_memory(error)
                self._records = out_of_memory is not None
                self.forget()
                if out_of_memory:
                    raise out_of_memory from None
                self._on_warning(
                    f"Without a CUDA graph, which is slower: {type(error).__name__}: {error}".splitlines()[0]
                )
                return self._call(own)
            self._recordings[shapes] = recording
        recording.replay()
        return recording.outputs

    def forget(self) -> None:
        """Let go of all recordings and of their memory; what is needed again is recorded again."""
        self._recordings: dict[tuple[tuple[torch.Size, torch.dtype], ...], _Recording] = {}
        self._warm_ups: dict[tuple[tuple[torch.Size, torch.dtype], ...], int] = {}
        # A recorder of its own for the next recordings: a pool whose graphs are all gone cannot be used again.
        self._recorder = self._make(self._device) if self._records else None

    def _call(self, inputs: list[Tensor]) -> list[Tensor]:
        return [output.detach() for output in self._function(*inputs)]

    def _pinned(self, tensor: Tensor) -> Tensor:
        # From pageable memory, all but the smallest copies would make the host wait for the device.
        return tensor.pin_memory() if self._device.type == "cuda" and not tensor.is_cuda else tensor


def _out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    # The end of a recording that ran out of memory may raise an error of its own.
    while error:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        error = error.__context__
    return None
