"""What a module that a user brings does when it runs: found out on a few random samples, before a
run begins. What cannot work is refused in one line.
"""

import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from hypercl.engine.members import Params
from hypercl.engine.seeding import drawing_from, seeded_globally
from hypercl.errors import InputError, typed_reason

_READING = {
    "__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "equal", "allclose",
    "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount",
}  # fmt: skip

# From weights, running statistics, which it updates, and flat inputs: logits.
Function = Callable[[Sequence[Tensor], Params, Tensor], Tensor]


class Observed(NamedTuple):
    """What a module did with its own weights."""

    initial: Params  # values of the buffers that training changes, before it does
    reads: str | None  # " (my.py:12)", where Python reads a value of a tensor; None: nowhere


def require_usable(module: object, name: str) -> None:
    """Refuse what is no module with weights to learn.

    Args:
        name: Of what is refused, in messages; so everywhere here.

    Raises:
        InputError: It is none.
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        kind = type(module).__name__
        raise InputError(f"{name} makes a {kind}: it must make a plain torch.nn.Module")
    parameters = dict(module.named_parameters())
    for where, parameter in parameters.items():
        if is_lazy(parameter):
            raise InputError(
                f"{name}: the size of its parameter {where} is not known before it has run: give "
                "layers their sizes, rather than take lazy ones"
            )
        if parameter.dtype != torch.float32:
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise InputError(f"{name}: its parameter {where} is {dtype}: make it float32")
    if not any(parameter.requires_grad for parameter in parameters.values()):
        frozen = " that learn" if parameters else ""
        raise InputError(f"{name} has no parameters{frozen}: there is nothing to train")


def observe(module: nn.Module, inputs: Tensor, num_outputs: int, name: str) -> Observed:
    """Let a module run in training on some inputs [B, …] and in evaluation on the first of them.

    Raises:
        InputError: It raises, returns no logits [B, num_outputs], draws from torch's global
            generator, or changes what it must not.
    """
    before = {where: value.clone() for where, value in module.named_buffers()}
    parameters = dict(module.named_parameters())
    weights = {where: value.detach().clone() for where, value in parameters.items()}
    initial = {}
    module.train()
    reads = _run(module, inputs, num_outputs, name)
    kept = _running_statistics(module)
    for where, value in module.named_buffers():
        if value.requires_grad:
            raise InputError(
                f"{name}: its buffer {where} depends on weights after a forward pass: detach what "
                "goes into it"
            )
        if where not in before or value.shape != before[where].shape:
            raise InputError(f"{name}: forward changes the shape of its buffer {where}: keep it")
        if where in kept or not torch.equal(value, before[where]):
            initial[where] = before[where]
    for where, value in module.named_parameters():
        if value is not parameters.get(where) or not torch.equal(value, weights[where]):
            raise InputError(
                f"{name}: forward changes its parameter {where}: let training do that, or make it "
                "a buffer"
            )
    after = {where: value.clone() for where, value in module.named_buffers()}
    module.eval()
    with torch.no_grad():
        reads_in_test = _run(module, inputs[:1], num_outputs, name)
    for where, value in module.named_buffers():
        if not torch.equal(value, after[where]):
            raise InputError(
                f"{name}: forward changes its buffer {where} in evaluation, too: change it only "
                "where self.training"
            )
    return Observed(initial, reads or reads_in_test)


@torch.no_grad()
def runs(module: nn.Module, inputs: Tensor) -> bool:
    """Whether a module takes inputs [B, …] that lie so in memory, in evaluation."""
    module.eval()
    try:
        with seeded_globally(0), drawing_from(torch.Generator()):
            module(inputs)
    except Exception:
        return False
    return True


def require_given_weights(
    module: nn.Module,
    shaped: Tensor,
    function: Function,
    parameters: Sequence[Tensor],
    inputs: Tensor,
    name: str,
) -> None:
    """Refuse a module that takes weights from elsewhere than its parameters.

    Args:
        shaped: The inputs as the module gets them.
        function: The module's; ``parameters``: in its order.

    Raises:
        InputError: It does not give what the module gives that has the same weights.
    """
    module.eval()
    stats = {where: value.clone() for where, value in module.named_buffers()}
    others = near(parameters)
    own = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad(), _refusing(name, "forward raises with other weights"):
        for parameter, other in zip(parameters, others, strict=True):
            parameter.copy_(other)
        expected = module(shaped)
        for parameter, values in zip(parameters, own, strict=True):
            parameter.copy_(values)
        logits = function(others, stats, inputs)
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise InputError(
            f"{name}: forward takes weights from elsewhere than the module's parameters, like a "
            "list that holds them: take them from the layers"
        )


def require_gradient(
    function: Function, weights: Sequence[Tensor], stats: Params, inputs: Tensor, name: str
) -> None:
    """Refuse what cannot be trained.

    Raises:
        InputError: The function has no gradient for the weights.
    """
    weights = [tensor.clone().requires_grad_() for tensor in weights]
    with _refusing(name, "there is no gradient through forward"):
        loss = function(weights, _copied(stats), inputs).square().mean()
        reached = loss.requires_grad and any(
            gradient is not None
            for gradient in torch.autograd.grad(loss, weights, allow_unused=True)
        )
    if not reached:
        raise InputError(
            f"{name}: no gradient goes from what forward returns to the weights: return logits "
            "that depend on them, and detach nothing on the way"
        )


def why_not_together(
    function: Function,
    weights: Sequence[Tensor],
    stats: Params,
    inputs: Tensor,
    reads: str | None,
    *,
    gradient: bool,
) -> str | None:
    """Why two members cannot be computed as one.

    Args:
        reads: See :class:`Observed`.
        gradient: Forward and back, as in training; otherwise forward, on the same inputs, as in
            evaluation.

    Returns:
        The reason; None where they can.
    """
    both = [torch.stack(pair) for pair in zip(weights, near(weights), strict=True)]
    both = [tensor.requires_grad_() for tensor in both]
    of_both = {where: torch.stack([value, value]) for where, value in stats.items()}
    given = torch.stack([inputs, inputs.flip(0)]) if gradient else inputs
    try:
        together = torch.func.vmap(
            function, in_dims=(0, 0, 0 if gradient else None), randomness="different"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is slower; a step will have them
            with nullcontext() if gradient else torch.no_grad():
                logits = together(both, of_both, given)
            if gradient:
                torch.autograd.grad(logits.square().mean(), both, allow_unused=True)
    except Exception as error:
        if reads is not None:
            return f"forward reads values{reads}"
        said = typed_reason(error)  # torch's can be long, and this is a part of a warning
        return f"{said if len(said) <= 100 else said[:100] + '…'}{_line_of(error)}"
    return None


def of_outputs(
    function: Function,
    weights: Sequence[Tensor],
    stats: Params,
    inputs: Tensor,
    num_outputs: int,
) -> list[int]:
    """Which of the tensors are the output layer's: row k of them bears on output k alone.

    Found by the gradients of the first output and of the last.

    Args:
        function: In evaluation.
    """
    weights = near(weights)
    candidates = [i for i, tensor in enumerate(weights) if len(tensor) == num_outputs]
    if not candidates:
        return []
    chosen = [weights[i].requires_grad_() for i in candidates]
    logits = function(weights, _copied(stats), inputs)

    def in_own_row(output: int) -> list[bool]:
        gradients = torch.autograd.grad(
            logits[:, output].sum(), chosen, retain_graph=True, allow_unused=True
        )
        return [
            gradient is not None and _rows_in_use(gradient) == [output] for gradient in gradients
        ]

    both = zip(candidates, in_own_row(0), in_own_row(num_outputs - 1), strict=True)
    return [i for i, first, last in both if first and last]


def _rows_in_use(gradient: Tensor) -> list[int]:
    rows: list[int] = (
        gradient.reshape(len(gradient), -1).count_nonzero(1).nonzero().flatten().tolist()
    )
    return rows


def near(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors near some, the same every time: nothing in them is exactly zero."""
    generator = torch.Generator().manual_seed(0)
    return [
        tensor.detach() + 0.1 * torch.randn(tensor.shape, generator=generator) for tensor in tensors
    ]


def _run(module: nn.Module, inputs: Tensor, num_outputs: int, name: str) -> str | None:
    """Let it run, and refuse what is no logits; where it reads a value, see :class:`Observed`."""
    watch, shape = _Watch(), "x".join(map(str, inputs.shape))
    with (
        _refusing(name, f"forward raises on inputs {shape}"),
        seeded_globally(0),
        drawing_from(torch.Generator()),
    ):
        before = torch.get_rng_state()
        with watch:
            logits = module(inputs)
        drew = not torch.equal(torch.get_rng_state(), before)
    if drew:
        raise InputError(
            f"{name}: forward draws from torch's global generator{watch.draws or ''}, which no "
            "checkpoint has: use nn.Dropout, and attention layers with dropout=0"
        )
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise InputError(f"{name}: forward returns a {kind}: return a tensor of logits")
    if tuple(logits.shape) != (len(inputs), num_outputs):
        raise InputError(
            f"{name}: forward returns {[*logits.shape]} on a batch of {len(inputs)}, and the tasks "
            f"take {[len(inputs), num_outputs]}: let the constructor take num_classes, and return "
            "logits [B, num_classes]"
        )
    if logits.dtype != torch.float32:
        dtype = str(logits.dtype).removeprefix("torch.")
        raise InputError(f"{name}: forward returns {dtype}: return float32 logits")
    return watch.reads


def _running_statistics(module: nn.Module) -> set[str]:
    """Buffers that training changes, although it may not on the first samples."""
    return {
        f"{where}.{name}" if where else name
        for where, child in module.named_modules()
        if isinstance(child, nn.modules.batchnorm._NormBase) and child.track_running_stats
        for name in ("running_mean", "running_var", "num_batches_tracked")
        if getattr(child, name) is not None
    }


class _Watch(TorchFunctionMode):
    """Where Python code draws random numbers from the global generator, or reads a value."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: str | None = None
        self.reads: str | None = None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        before = torch.get_rng_state()
        result = function(*args, **(kwargs or {}))
        if self.draws is None and not torch.equal(torch.get_rng_state(), before):
            self.draws = _line_of_frame(sys._getframe())
        if self.reads is None and _reads(function, args):
            self.reads = _line_of_frame(sys._getframe())
        return result


def _reads(function: Any, args: Sequence[Any]) -> bool:
    """Whether a call tells Python a value of a tensor, or makes a shape of it."""
    if function is Tensor.__getitem__:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in index)
    return getattr(function, "__name__", None) in _READING


def _copied(stats: Params) -> Params:
    return {name: value.clone() for name, value in stats.items()}


@contextmanager
def _refusing(name: str, what: str) -> Iterator[None]:
    """A context in which whatever is raised means that a module is refused."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"{name}: {what}: {typed_reason(error)}{_line_of(error)}: mend it"
        ) from error


def _line_of(error: Exception) -> str:
    """The last line of a user's file that an error came through, like " (my.py:12)", or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{frame.filename}:{frame.lineno}" for frame in frames if _is_users(frame.filename)]
    return f" ({own[-1]})" if own else ""


def _line_of_frame(frame: FrameType | None) -> str:
    """The same of a call within forward."""
    while frame is not None and frame.f_code is not _run.__code__:
        file = frame.f_code.co_filename
        if _is_users(file):
            return f" ({file}:{frame.f_lineno})"
        frame = frame.f_back
    return ""


def _is_users(file: str) -> bool:
    """Whether a file is none of Python's, of an installed package's or of this project's."""
    paths = sysconfig.get_paths()
    ours = str(Path(__file__).parents[1])
    installed = (ours, *(paths[kind] for kind in ("stdlib", "purelib", "platlib")))
    return not file.startswith(("<", *installed))
