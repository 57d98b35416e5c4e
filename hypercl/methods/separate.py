"""A fresh network for each task: nothing is forgotten, and nothing is shared.

An upper bound where the task is known, and what a hypernetwork of unbounded capacity could generate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from hypercl.errors import InputError
from hypercl.methods.base import Method, OwnWeights, OwnWeightsEntry, Setting
from hypercl.ranges import option, switch

if TYPE_CHECKING:
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import MainNetwork
    from hypercl.options import MainNetOptions, Options


@dataclass(frozen=True)
class Separate(OwnWeightsEntry):
    scenarios: ClassVar = (1,)
    network_by_task: ClassVar = True
    # fmt: off
    separate_same_budget: bool = option(False, switch, "narrower networks (mlp), which have no more weights together than one of --mlp_arch")
    # fmt: on

    def problems(self, options):
        if options.train.keep_optimizer:
            yield (
                "--keep_optimizer cannot be used with --method=separate, which has another network "
                "in each task: leave it out"
            )
        if not self.separate_same_budget:
            return
        if options.run.continue_from is not None:
            yield (
                "--separate_same_budget chooses the width by the number of tasks, which "
                "--continue_from changes: train all tasks from the start, or leave it out"
            )
        if options.main_net.net_type != "mlp":
            yield (
                "--separate_same_budget narrows the layers of --net_type=mlp: take that, or leave "
                "it out"
            )
        elif not options.main_net.kind.mlp_arch:
            yield (
                "--separate_same_budget narrows hidden layers, and --mlp_arch= has none: give some, "
                "or leave it out"
            )

    def main_net(
        self, options: "Options", build: "Callable[[MainNetOptions], MainNetwork]"
    ) -> "MainNetwork":
        """With ``separate_same_budget``, the widest MLP of the same shape of which there can be as
        many as tasks.

        Raises:
            InputError: Not even the narrowest is within the budget.
        """
        whole, given = build(options.main_net), options.main_net
        if not self.separate_same_budget:
            return whole
        num_tasks, widths = options.task.num_tasks or 1, given.kind.mlp_arch
        budget, widest = whole.num_weights // num_tasks, max(widths)

        def narrowed(units: int) -> "MainNetwork":  # in the widest layer
            arch = tuple(max(1, width * units // widest) for width in widths)
            return build(replace(given, kind=replace(given.kind, mlp_arch=arch)))

        low, high = 0, widest + 1  # the first fits, the second does not
        while high - low > 1:
            middle = (low + high) // 2
            fits = narrowed(middle).num_weights <= budget
            low, high = (middle, high) if fits else (low, middle)
        if low == 0:
            raise InputError(
                f"--separate_same_budget: {num_tasks} networks of one unit a layer have more than "
                f"the {whole.num_weights:,} weights of one: give a larger --mlp_arch, or leave it out"
            )
        return narrowed(low)

    def build(self, setting: Setting) -> Method:
        return SeparateNetworks(setting, mnet_init=self.mnet_init)


class SeparateNetworks(OwnWeights):
    """A row of weights for each task, of which the task's learns."""

    network_by_task = True

    def __init__(self, setting: Setting, mnet_init: str = "default") -> None:
        super().__init__(setting, mnet_init=mnet_init)
        self.num_trained = len(setting.tasks) * setting.net.num_weights

    def init(self, seeds: Sequence[int]) -> "Params":
        """``weights`` [members, tasks, num_weights]; each task's are drawn for it."""
        import torch

        fresh = [self.fresh_weights(seeds, k) for k in range(len(self.setting.tasks))]
        return {"weights": torch.stack(fresh, dim=1)}

    def extended(
        self, params: "Params", memory: "Params", seeds: Sequence[int], num_tasks_before: int
    ) -> "tuple[Params, Params]":
        """With fresh networks for the new tasks."""
        weights = self.init(seeds)["weights"]
        weights[:, :num_tasks_before] = params["weights"]
        return {"weights": weights}, memory

    def trainable(self, params: "Params", task_id: int) -> "Params":
        """The task's."""
        return {"weights": params["weights"][:, task_id]}

    def merged(self, params: "Params", trained: "Params", task_id: int) -> "Params":
        """A copy with the task's in their place."""
        weights = params["weights"].clone()
        weights[:, task_id] = trained["weights"]
        return {"weights": weights}

    def weights(self, params: "Params", task_ids: "Tensor") -> "Tensor":
        """Each task's own."""
        index = task_ids[..., None].expand(-1, -1, params["weights"].shape[-1])
        return params["weights"].gather(1, index)

    def state_dict(self, params: "Params") -> "Params":
        """The main networks' tensors, ``task.tensor``."""
        tensors = self.setting.net.split(params["weights"])
        return {
            f"{task_id}.{i}": tensor[task_id]
            for task_id in range(len(self.setting.tasks))
            for i, tensor in enumerate(tensors)
        }

    def load_state_dict(self, state: "Params") -> "Params":
        """The reverse of :meth:`state_dict`."""
        flat = super().load_state_dict(state)["weights"]
        return {"weights": flat.view(len(self.setting.tasks), -1)}

    def describe_size(self) -> str:
        """The number of weights of one and of all."""
        return (
            f"{self.setting.net.num_weights:,} weights for each task, {self.num_trained:,} in all"
        )


ENTRY = Separate
