"""What a method against forgetting has to do, and what it is given for that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from hypercl.ranges import one_of, option
from hypercl.registry import Entry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hypercl.engine.members import Params
    from hypercl.networks.main_net import MainNetwork, TaskLoss, TaskLossValue
    from hypercl.options import HypernetOptions, MainNetOptions, Options, TrainOptions
    from hypercl.tasks.task import Task


class Lookahead(Protocol):
    """What a step of the optimizer along gradients would make of the parameters trained, or of some
    of them that stand side by side among these. Gradients of some are clipped as if there were no
    others.
    """

    def __call__(self, gradients: "Params", /, *, uncorrected_eps: bool = False) -> "Params":
        """The parameters; see :meth:`hypercl.engine.optimizers.Adam.lookahead`."""
        ...


class Setting(NamedTuple):
    """What a method is built for."""

    net: "MainNetwork"
    tasks: "Sequence[Task]"  # all of them, in their order
    train: "TrainOptions"
    hypernet: "HypernetOptions"
    device: "torch.device"


class Batch(NamedTuple):
    """What a step is taken on."""

    inputs: "Tensor"  # [members, B, H * W * C] float32
    # [members, B] int64, counted from the first of ``outputs``; of regression [members, B, K]
    labels: "Tensor"
    outputs: slice  # of the main network, which belong to the current task
    stats: "Params"  # running statistics, [members, …] each, which the step updates
    step: "Tensor"  # [1] int64, steps taken in this task before
    drawn: "Tensor"  # [members, …], this step's row of what the method has drawn
    running: "Params"  # what :meth:`Method.running` returned; the step may change it


class TaskEnd(NamedTuple):
    """What is known when a task has been learned."""

    task_id: int
    task: "Task"
    task_loss: "TaskLoss"
    seeds: "Sequence[int]"  # of the members, without those that failed
    stats: "Params"  # running statistics of the main network
    running: "Params"  # what :meth:`Method.running` returned, as the last step left it


class StepLosses(NamedTuple):
    """Of one step, [members] each, on the device, detached."""

    task_loss: "Tensor"  # of the training batch: mean cross-entropy, or mean squared error
    penalty: "Tensor"  # of the method, before it is multiplied by its strength
    loss: "Tensor"  # what is minimized: the weighted sum of both
    accuracy: "Tensor"  # of the training batch, in [0, 1]; of regression its mean squared error
    others: "tuple[Tensor, ...]" = ()  # by the names that :class:`LearnsMore` has, in their order


NUM_LOSSES = len(StepLosses._fields) - 1  # those that every method has


class Method(Protocol):
    """A method against forgetting, for any number of members (seeds) at once.

    Every tensor has a leading dimension of members. Parameters are dictionaries of tensors; what a
    step changes, it changes in place; nothing in a step waits for the device or depends on state in
    Python, as it may be captured in a CUDA graph.
    """

    num_trained: int  # parameters of one member, of all tasks together
    network_by_task: bool  # whether :meth:`weights` differ from task to task
    compression_ratio: float | None  # of generated weights: num_trained by the main network's

    def init(self, seeds: "Sequence[int]") -> "Params":
        """Fresh parameters, on the device; those of a seed do not depend on the other seeds."""
        ...

    def extended(
        self, params: "Params", memory: "Params", seeds: "Sequence[int]", num_tasks_before: int
    ) -> "tuple[Params, Params]":
        """What the same method, built for the first ``num_tasks_before`` of the tasks alone, has
        learned of them, made ready for all of them.

        Called once for each seed, before a run that continues another begins. What is new is to be
        drawn from a stream of its own for each seed and task, so that it does not depend on where
        the earlier run ended.

        Args:
            params: After the last of those tasks, [members, …] each, on the device.
            memory: What :meth:`after_task` returned then.

        Returns:
            Parameters as :meth:`init` has them, and memory as :meth:`remember` takes it.

        Raises:
            InputError: It cannot learn more tasks than it was built for.
        """
        ...

    def trainable(self, params: "Params", task_id: int) -> "Params":
        """Those of the parameters, or views of parts of them, that learn in a task."""
        ...

    def merged(self, params: "Params", trained: "Params", task_id: int) -> "Params":
        """``params`` with a copy of what was trained in its place; the arguments stay."""
        ...

    def weights(self, params: "Params", task_ids: "Tensor") -> "Tensor":
        """The main network's weights for tasks.

        Args:
            task_ids: [members, tasks] int64.

        Returns:
            [members, tasks, num_weights].
        """
        ...

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """What the steps of a task need to know of the earlier ones: the method's anchor.

        Called before each task, and again when a run goes on, with the same arguments.

        Args:
            params: As they are before the task.
            memory: What :meth:`after_task` returned; empty before the first task.
        """
        ...

    def describe(self, anchor: Any) -> str:
        """One remark on an anchor, for the log."""
        ...

    def draw(
        self, anchor: Any, task_id: int, num_steps: int, generator: "torch.Generator"
    ) -> "Tensor":
        """Draw beforehand what is random in the steps of a task, for one member.

        Returns:
            [num_steps, …] on the CPU, or [1, …] where all steps are alike.
        """
        ...

    def running(self, params: "Params", memory: "Params", task_id: int) -> "Params":
        """What steps change beside the parameters, as it is before a task, [members, …] each.

        It is saved with the training; no two tasks share it.
        """
        ...

    def loss_and_gradient(
        self,
        params: "Params",
        batch: Batch,
        anchor: Any,
        task_loss: "TaskLoss",
        lookahead: Lookahead,
    ) -> "tuple[Params, StepLosses]":
        """The loss of a step, and its gradient for the parameters trained.

        Args:
            params: Those trained.
        """
        ...

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """What is to be kept of a task that has just been learned, and of those before it.

        The main network is in evaluation mode. A run that is stopped in the tests after the task
        calls it again, with the same arguments.

        Args:
            params: As they are after the task; ``memory``: after the one before.

        Returns:
            The new memory, [members, …] each, which is saved with the run; empty where all that
            :meth:`remember` needs follows from the parameters.
        """
        ...

    def state_dict(self, params: "Params") -> "Params":
        """One member's parameters as weights.pt has them."""
        ...

    def load_state_dict(self, state: "Params") -> "Params":
        """The reverse of :meth:`state_dict`; on the device."""
        ...

    def describe_size(self) -> str:
        """The main network's weights and what they come from, in words, for the log."""
        ...

    def kept_bytes(self, params: "Params", memory: "Params", num_learned: int) -> int:
        """What one member has to keep of the tasks learned so that the next can be: bytes beside
        the parameters that learn.

        Args:
            memory: After the last of them.
        """
        ...

    def numbers_per_member(self) -> int:
        """Roughly how many numbers a member takes in the last task, beside the main network's."""
        ...


@runtime_checkable
class InfersTasks(Protocol):
    """What a method has that infers the tasks of samples by a network of its own, beside the rules
    that ask the main network (inference.py).
    """

    inference_rule: str  # its name, one of inference.RULES

    def task_scores(self, params: "Params", inputs: "Tensor") -> "Tensor":
        """How much speaks for each task; of those learned, the one with the most is inferred.

        Args:
            inputs: [N, H * W * C] float32, the same for all members.

        Returns:
            [members, tasks, N].
        """
        ...


@runtime_checkable
class LearnsMore(Protocol):
    """What a method has in which more learns than the main network: what is to be known of that."""

    other_losses: tuple[str, ...]  # names of :attr:`StepLosses.others` in metrics.jsonl


@runtime_checkable
class Generates(Protocol):
    """What a method has that generates samples of the tasks it has learned."""

    def generate(self, params: "Params", num_learned: int, num_samples: int) -> "Tensor":
        """Samples of the first tasks, the same noise for all of them.

        Returns:
            Inputs in [0, 1], [members, tasks, num_samples, H * W * C].
        """
        ...


class OwnWeights:
    """A main network with weights of its own, learned task after task: a start for a method.

    As it stands it is fine-tuning; a subclass says what it remembers, and what a penalty is.

    Args:
        strength: of the penalty
        mnet_init: how the weights are initialized, "default" or "xavier"
    """

    network_by_task = False
    compression_ratio: float | None = None

    def __init__(self, setting: Setting, strength: float = 1.0, mnet_init: str = "default") -> None:
        self.setting, self.strength, self.mnet_init = setting, strength, mnet_init
        self.num_trained = setting.net.num_weights

    def init(self, seeds: "Sequence[int]") -> "Params":
        """``weights`` [members, num_weights]; see :meth:`MainNetwork.fresh_weights`."""
        return {"weights": self.fresh_weights(seeds, 0)}

    def fresh_weights(self, seeds: "Sequence[int]", task_id: int) -> "Tensor":
        """Initial weights [members, num_weights], on the device, of a network that is drawn for a
        task; that of task 0 is the same for all methods.
        """
        setting, xavier = self.setting, self.mnet_init == "xavier"
        return setting.net.fresh_of_seeds(
            seeds, "initialization", task_id, xavier=xavier, device=setting.device
        )

    def extended(
        self, params: "Params", memory: "Params", seeds: "Sequence[int]", num_tasks_before: int
    ) -> "tuple[Params, Params]":
        """As they are: nothing in them depends on the number of tasks."""
        return params, memory

    def trainable(self, params: "Params", task_id: int) -> "Params":
        """All."""
        return params

    def merged(self, params: "Params", trained: "Params", task_id: int) -> "Params":
        """A copy of what was trained."""
        return {name: value.clone() for name, value in trained.items()}

    def weights(self, params: "Params", task_ids: "Tensor") -> "Tensor":
        """The same for all tasks."""
        return params["weights"][:, None].expand(-1, task_ids.shape[1], -1)

    def remember(self, params: "Params", memory: "Params", task_id: int) -> Any:
        """Nothing."""
        return None

    def describe(self, anchor: Any) -> str:
        """Whether there is a penalty."""
        return "no penalty" if anchor is None else "with a penalty"

    def draw(
        self, anchor: Any, task_id: int, num_steps: int, generator: "torch.Generator"
    ) -> "Tensor":
        """Nothing."""
        import torch

        return torch.zeros(1, 0)

    def running(self, params: "Params", memory: "Params", task_id: int) -> "Params":
        """Nothing."""
        return {}

    def loss_and_gradient(
        self,
        params: "Params",
        batch: Batch,
        anchor: Any,
        task_loss: "TaskLoss",
        lookahead: Lookahead,
    ) -> "tuple[Params, StepLosses]":
        """:meth:`loss_without_anchor` where nothing is remembered, else :meth:`loss_with_anchor`."""
        weights = params["weights"]
        if anchor is None:
            gradient, losses = self.loss_without_anchor(weights, batch, task_loss)
        else:
            gradient, losses = self.loss_with_anchor(weights, batch, anchor, task_loss)
        return {"weights": gradient}, losses

    def loss_of_task(
        self, weights: "Tensor", batch: Batch, task_loss: "TaskLoss"
    ) -> "TaskLossValue":
        """The task loss of a batch, and its gradient for the weights [members, num_weights]."""
        return task_loss(weights, batch)

    def loss_without_anchor(
        self, weights: "Tensor", batch: Batch, task_loss: "TaskLoss"
    ) -> "tuple[Tensor, StepLosses]":
        """The gradient for the weights [members, num_weights], and the losses: the task's alone."""
        loss, accuracy, gradient = self.loss_of_task(weights, batch, task_loss)
        total = task_loss.weight * loss
        return gradient, StepLosses(loss, loss.new_zeros(loss.shape), total, accuracy)

    def loss_with_anchor(
        self, weights: "Tensor", batch: Batch, anchor: Any, task_loss: "TaskLoss"
    ) -> "tuple[Tensor, StepLosses]":
        """The gradient for the weights [members, num_weights], and the losses: here the task loss
        and ``strength`` times the penalty.
        """
        from hypercl.engine.members import by_member

        loss, accuracy, gradient = self.loss_of_task(weights, batch, task_loss)
        penalty, of_penalty = self.penalty_and_gradient(weights, anchor)
        total = task_loss.weight * loss + self.strength * penalty
        gradient = gradient + by_member(self.strength, gradient) * of_penalty
        return gradient, StepLosses(loss, penalty, total, accuracy)

    def penalty_and_gradient(self, weights: "Tensor", anchor: Any) -> "tuple[Tensor, Tensor]":
        """The penalty [members] and its gradient for the weights [members, num_weights]."""
        raise NotImplementedError

    def after_task(self, params: "Params", memory: "Params", end: TaskEnd) -> "Params":
        """What was kept."""
        return memory

    def state_dict(self, params: "Params") -> "Params":
        """The main network's tensors, in their order."""
        tensors = self.setting.net.split(params["weights"])
        return {str(i): tensor for i, tensor in enumerate(tensors)}

    def load_state_dict(self, state: "Params") -> "Params":
        """The reverse of :meth:`state_dict`."""
        import torch

        flat = torch.cat([tensor.flatten() for tensor in state.values()])
        return {"weights": flat.to(self.setting.device)}

    def describe_size(self) -> str:
        """The number of weights."""
        return f"{self.num_trained:,} weights of its own"

    def kept_bytes(self, params: "Params", memory: "Params", num_learned: int) -> int:
        """The memory's."""
        return sum(value[0].numel() * value.element_size() for value in memory.values())

    def numbers_per_member(self) -> int:
        """Weights, gradient, Adam's two means, and as much again for what is remembered."""
        return 8 * self.num_trained


@dataclass(frozen=True)
class MethodEntry(Entry):
    """A choice of --method; its fields are the options that concern it alone."""

    chosen_by: ClassVar[str] = "method"
    scenarios: ClassVar[tuple[int, ...]] = (1, 2, 3)  # values of --cl_scenario
    network_by_task: ClassVar[bool] = False  # as its method has it
    # Of inference.RULES, the one that it has by a network of its own; None: it has none.
    inference_rule: ClassVar[str | None] = None
    # Why it cannot learn tasks of regression, behind its name; empty: it can.
    no_regression: ClassVar[str] = ""

    def unread(self, options: "Options") -> Mapping[str, str]:
        """Those of a hypernetwork, unless a method has one and says otherwise."""
        remark = "goes with --method=hnet: give that too, or leave it out"
        return {field.name: remark for field in fields(options.hypernet)}

    def main_net(
        self, options: "Options", build: "Callable[[MainNetOptions], MainNetwork]"
    ) -> "MainNetwork":
        """The main network that the method trains: the one that is asked for.

        Args:
            build: Makes a network of options.
        """
        return build(options.main_net)

    def build(self, setting: Setting) -> Method:
        """Make the method.

        Raises:
            InputError: The options cannot be had.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class OwnWeightsEntry(MethodEntry):
    """One whose method starts from :class:`OwnWeights`."""

    mnet_init: str = option("default", one_of("default", "xavier"), "initialization of a main network with weights of its own: that of torch.nn, or Xavier-uniform weights and zero biases")  # fmt: skip
