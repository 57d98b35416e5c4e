"""Steps without Python: on CUDA, a step is captured as a graph once and replayed from then on."""

import warnings
from collections.abc import Callable
from functools import cache

import torch

_WARM_UP = 3  # eager steps before the capture, in which libraries allocate what they need


class StepRunner:
    """Calls ``step`` each time it is called itself, on CUDA by replaying a graph of it.

    Args:
        step: Takes no arguments, returns nothing and changes tensors in place; what differs from
            step to step it reads from tensors on the device.
        device: Anything but CUDA runs ``step`` as it is.
        generator: On the device, from which ``step`` may draw; each replay draws on.
        eager: Make no graph: Python reads values in ``step``.
    """

    def __init__(
        self,
        step: Callable[[], None],
        device: torch.device,
        generator: torch.Generator,
        *,
        eager: bool = False,
    ) -> None:
        self._step, self._generator = step, generator
        self._eager = eager or device.type != "cuda"
        self._steps_done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        if not self._eager:
            self._stream = _side_stream(torch.cuda.current_device())

    def __call__(self) -> None:
        if self._eager:
            self._step()
        elif self._graph is not None:
            self._graph.replay()
        elif self._steps_done < _WARM_UP:
            self._warm_up()
        else:
            self._capture()
        self._steps_done += 1

    def _warm_up(self) -> None:
        """A real step, on the stream on which the capture will be."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self) -> None:
        """Record the step, which does not run it, and replay it; stay eager where that fails."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # A capture that fails may leave generators believing that it still goes on.
        default = torch.cuda.default_generators[torch.cuda.current_device()]
        before = [(generator, generator.clone_state()) for generator in (default, self._generator)]
        first: Exception | None = None  # what ended the step, rather than what that did to torch
        try:
            # Where a capture breaks off, torch leaves its stream the current one: put it back.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, stream=self._stream),
            ):
                try:
                    self._step()
                except RuntimeError as error:
                    first = error
                    raise
        except RuntimeError as error:
            reason = str(first or error).strip().splitlines()[0]
            warnings.warn(f"steps run eagerly, no CUDA graph could be made: {reason}", stacklevel=3)
            self._eager = True
            for generator, state in before:
                generator.graphsafe_set_state(state)
            self._step()
            return
        self._graph = graph
        graph.replay()


@cache
def _side_stream(device_index: int) -> torch.cuda.Stream:
    """The one on which all graphs of a device are captured, which the default stream cannot do.

    One for all tasks, as cuBLAS keeps memory for each stream that it has worked on.
    """
    return torch.cuda.Stream(device_index)
