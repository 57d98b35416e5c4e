"""Three polynomials, one a task: --cl_exp=toyregression. The toy experiment of the paper.

    x + 3 on [-4, -2],  2 x² - 1 on [-1, 1],  (x - 3)³ on [2, 4]

Training inputs are uniform, training targets have Gaussian noise of standard deviation 0.05; test points
lie evenly spaced on the whole interval, without noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from hypercl.ranges import natural, option, or_unset
from hypercl.tasks.sequences.base import Sequence
from hypercl.tasks.sequences.brought import chosen, problems_of_tasks

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.tasks.task import Split

_TRAIN, _TEST = 100, 50  # samples of a task
_NOISE = 0.05  # standard deviation, of training targets


class Polynomial(NamedTuple):
    """A function to be learned, where it is."""

    name: str
    low: float
    high: float
    of: "Callable[[Tensor], Tensor]"


POLYNOMIALS = (
    Polynomial("x + 3", -4, -2, lambda x: x + 3),
    Polynomial("2 x² - 1", -1, 1, lambda x: 2 * x**2 - 1),
    Polynomial("(x - 3)³", 2, 4, lambda x: (x - 3) ** 3),
)


@dataclass(frozen=True)
class ToyRegression(Sequence):
    task_types: ClassVar = ("regression",)
    says_tasks: ClassVar = True
    image_shape: ClassVar = (1,)

    # fmt: off
    toy_seed: int | None = option(None, or_unset(natural), "toyregression: seed from which the samples are drawn; -1: --random_seed")
    # fmt: on

    def problems(self, options):
        yield from problems_of_tasks(options.task, [1] * len(POLYNOMIALS), "toyregression")

    def drawn(self, seed):
        return self if self.toy_seed is not None else replace(self, toy_seed=seed)

    def build(self, options, device):
        """With ``num_train_samples`` training samples, or 100, and ``val_set_size`` more of their kind
        for validation.
        """
        import torch

        from hypercl.tasks.task import Split, Task

        tasks = []
        for i in chosen(options, len(POLYNOMIALS)):
            polynomial = POLYNOMIALS[i]
            grid = torch.linspace(polynomial.low, polynomial.high, _TEST)[:, None]
            train, validation, test = (
                Split(*(values.to(device) for values in split))
                for split in (
                    self._sample(i, "toy training samples", options.num_train_samples or _TRAIN),
                    self._sample(i, "toy validation samples", options.val_set_size),
                    Split(grid, polynomial.of(grid)),
                )
            )
            tasks.append(Task(polynomial.name, 1, train, validation, test))
        return tasks

    def _sample(self, task: int, purpose: str, number: int) -> "Split":
        """Inputs and noisy targets, [number, 1] each, on the CPU."""
        import torch

        from hypercl.engine.seeding import generator
        from hypercl.tasks.task import Split

        assert self.toy_seed is not None, "the samples have not been drawn"
        polynomial, drawing = POLYNOMIALS[task], generator(self.toy_seed, purpose, task)
        share = torch.rand(number, 1, generator=drawing)
        inputs = polynomial.low + (polynomial.high - polynomial.low) * share
        noise = _NOISE * torch.randn(number, 1, generator=drawing)
        return Split(inputs, polynomial.of(inputs) + noise)


ENTRY = ToyRegression
