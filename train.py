"""The loop: learn the tasks one after the other, learn a task, take a step.

Everything here works on one or more members (seeds) at once: parameters, batches and losses have a
leading dimension of members, and the images are common to all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercl import testing
from hypercl.engine.capture import StepRunner
from hypercl.engine.members import (
    Params,
    as_tensor,
    flatten,
    rows_of,
    select_members,
    views_of,
)
from hypercl.engine.optimizers import Adam, build_optimizer, clip_norm, clip_value
from hypercl.engine.schedules import LearningRates
from hypercl.engine.seeding import drawing_from, generator, step_generator
from hypercl.evaluation import Learned, evaluate
from hypercl.experiment import Experiment
from hypercl.methods.base import NUM_LOSSES, Batch, LearnsMore, TaskEnd
from hypercl.report.results import MemberProgress, Report
from hypercl.rundir.checkpoint import OF_OPTIMIZER, Checkpoints, Position, parted
from hypercl.tasks.task import Crops, augment, draw_batches, draw_flips, draw_offsets

LOG_ITER = 50  # steps from one line in metrics.jsonl to the next


def learn_tasks(
    experiment: Experiment,
    position: Position,
    report: Report,
    checkpoints: Checkpoints,
    keep: Callable[[Position], None] = lambda position: None,
) -> Position:
    """Learn, one after the other, the tasks that a group of seeds has yet to learn.

    Args:
        keep: Called when a task has been learned and tested.

    Returns:
        The position at which the next group starts, or at which the run pauses.
    """
    num_tasks = len(experiment.tasks)
    position = position.on_device(experiment.device, experiment.init)
    while position.task_id < num_tasks:
        position = learn_next_task(experiment, position, report, checkpoints)
        if not position.seeds:
            break
        keep(position)
        if position.task_id < num_tasks:
            if checkpoints.pauses_at(position):
                return position
            checkpoints.save(position)
    return position.of_next_group()


def learn_next_task(
    experiment: Experiment, position: Position, report: Report, checkpoints: Checkpoints
) -> Position:
    """Learn a task, from its beginning or from where a run goes on, and test all learned so far.

    Returns:
        The position behind it, without the seeds that failed.
    """
    testing.before_task(experiment, position, report, partial(checkpoints.leave_at, position))
    training = TaskTraining.at(experiment, position)
    report.start_task(
        position.task_id,
        training.num_steps,
        len(training.task.train.labels),
        experiment.method.describe(training.anchor),
        training.steps_done,
    )
    learn_task(training, position, report, checkpoints)
    report.end_training(position.task_id, training.failed)

    # Until the tests are done, a run goes on from the end of the training.
    position = replace(position, training=training.state(training.num_steps))
    after = training.result(position)
    if after.seeds:
        left = experiment.of_members(after.seeds)
        after = testing.with_scales(left, after)
        testing.after_task(left, after, report, partial(checkpoints.leave_at, position))
    return after


def learn_task(
    training: "TaskTraining", position: Position, report: Report, checkpoints: Checkpoints
) -> None:
    """Take the steps of a task that are left, until its end or until every seed has failed."""
    eager = training.experiment.net.reads_values
    take_step = StepRunner(training.step, training.device, training.generator, eager=eager)
    for step in range(training.steps_done + 1, training.num_steps + 1):
        if len(training.failed) == len(training.seeds):
            break
        take_step()
        if training.is_logged(step):
            report.step(position.task_id, step, training.log(step))
        if step < training.num_steps and checkpoints.due(step):
            checkpoints.save(replace(position, training=training.state(step)))


class TaskTraining:
    """The training of one task: what a step depends on, the step, and how to save and restore it.

    Args:
        seeds: By which the members are known; all that is drawn follows from the seeds of these,
            see :meth:`Experiment.seeds_of`, and from the task.
        params: Before the task, [members, …] each; ``stats``: running statistics to start from.
            Both stay as they are.
        memory: What the method has kept of the earlier tasks, and with --keep_optimizer the
            optimizer; see :func:`parted`.

    Attributes:
        steps_done: At which :meth:`restore` has left it.
        trained: The parameters that learn, views of one tensor that the steps change.
        failed: By seed, why a member whose loss was not finite has failed.
        generator: On the device, for what is drawn in the steps: dropout.
    """

    def __init__(
        self,
        experiment: Experiment,
        task_id: int,
        seeds: Sequence[int],
        params: Params,
        stats: Params,
        memory: Params,
    ) -> None:
        options, task = experiment.options.train, experiment.tasks[task_id]
        self.experiment, self.task, self.task_id, self.seeds = experiment, task, task_id, seeds
        self.device = device = experiment.device
        self.steps_done = 0
        self.failed: dict[int, str] = {}
        self.num_steps, epoch = experiment.length(task)
        of_optimizer, memory = parted(memory)
        self.anchor = experiment.method.remember(params, memory, task_id)
        self.task_loss = experiment.task_loss(task)
        self._before = params
        self.plan = draw_steps(experiment, task_id, seeds, self.anchor)

        trainable = experiment.method.trainable(params, task_id)
        self._flat = flatten(trainable)  # [members, numbers]
        self.trained = views_of(self._flat, trainable)
        self.stats = {name: value.clone() for name, value in stats.items()}
        running = experiment.method.running(params, memory, task_id)
        self.running = {name: value.clone() for name, value in running.items()}
        self._gradient = torch.zeros_like(self._flat)
        self._gradient_of = views_of(self._gradient, trainable)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.rates = LearningRates(
            options,
            self.num_steps,
            epoch,
            len(seeds),
            device,
            higher_is_better=self.task.measure.higher_is_better,
        )
        self._optimizer = build_optimizer(options, self._flat, self._gradient, self.rates.now)
        for name, value in of_optimizer.items():
            state = self._optimizer.state[name]
            state.copy_(value if state.ndim else value[0])
        method = experiment.method
        self._others = method.other_losses if isinstance(method, LearnsMore) else ()
        size = self.num_steps, NUM_LOSSES + len(self._others), len(seeds)
        self.history = torch.zeros(size, device=device)
        self._logged = 0  # steps whose losses have been looked at

        self._clip_value, self._clip_norm = (
            None if limit is None else as_tensor(limit, self._flat)
            for limit in (options.clip_grad_value, options.clip_grad_norm)
        )
        self.generator = step_generator(experiment.seeds_of(seeds)[0], task_id, device)
        experiment.net.module.train()

    @classmethod
    def at(cls, experiment: Experiment, position: Position) -> "TaskTraining":
        """Where a run is."""
        stats = experiment.stats_to_begin_with(position.stats, len(position.seeds))
        params, memory = position.ready_params, position.memory
        training = cls(experiment, position.task_id, position.seeds, params, stats, memory)
        if position.training is not None:
            training.restore(TaskState(**position.training))
        return training

    def step(self) -> None:
        """Take the next step.

        Nothing in it waits for the device, and its number is there: what is captured once in a CUDA
        graph can be replayed for every step.
        """
        self.rates.set(self._counter)
        with drawing_from(self.generator):
            gradients, losses = self.experiment.method.loss_and_gradient(
                self.trained, self._batch(), self.anchor, self.task_loss, self._lookahead
            )
        self._collect(gradients)
        self._optimizer.step()
        own = losses.task_loss, losses.penalty, losses.loss, losses.accuracy
        row = torch.stack((*own, *losses.others)).view(1, -1, len(self.seeds))
        self.history.index_copy_(0, self._counter, row)
        self._counter.add_(1)

    def _batch(self) -> Batch:
        """The samples of this step, by index from tensors on the device."""

        def of_this_step(plans: Tensor) -> Tensor:  # [steps or 1, members, …]
            return (plans if len(plans) == 1 else plans.index_select(0, self._counter)).squeeze(0)

        task, chosen = self.task, of_this_step(self.plan.batches)  # [members, B]
        images = task.train.images.index_select(0, chosen.flatten())
        labels = rows_of(task.train.labels, chosen)
        if self.plan.crops is not None:
            crops = (of_this_step(crop).flatten(0, 1) for crop in self.plan.crops)
            images = augment(images, *crops)
        inputs = task.inputs(images).view(*chosen.shape, -1)
        drawn = of_this_step(self.plan.drawn)
        return Batch(inputs, labels, task.outputs, self.stats, self._counter, drawn, self.running)

    def _collect(self, gradients: Params) -> slice:
        """Put gradients where the optimizer looks, clipped.

        Args:
            gradients: Of all parameters, or of some that stand side by side.

        Returns:
            Where these stand among all numbers.
        """
        numbers = self._span(gradients)
        places = [self._gradient_of[name] for name in gradients]
        for (name, gradient), place in zip(gradients.items(), places, strict=True):
            assert gradient.shape == place.shape, f"the gradient for {name} has another shape"
        torch._foreach_copy_(places, list(gradients.values()))
        gradient = self._gradient[:, numbers]
        if self._clip_value is not None:
            clip_value(gradient, self._clip_value)
        if self._clip_norm is not None:
            clip_norm(gradient, self._clip_norm)
        return numbers

    def _lookahead(self, gradients: Params, /, *, uncorrected_eps: bool = False) -> Params:
        """The parameters after a step of the optimizer with these gradients, which is not taken."""
        assert isinstance(self._optimizer, Adam), "only a step of Adam can be looked at"
        numbers = self._collect(gradients)
        ahead = self._optimizer.lookahead(numbers, uncorrected_eps=uncorrected_eps)
        return views_of(ahead, {n: v for n, v in self.trained.items() if n in gradients})

    def _span(self, chosen: Params) -> slice:
        """Where parameters of these names, which stand side by side, are among all numbers."""
        if len(chosen) == len(self.trained):
            return slice(None)
        names = [*self.trained]
        first = next(i for i, name in enumerate(names) if name in chosen)
        behind = first + len(chosen)
        assert chosen.keys() == {*names[first:behind]}, "what is looked at stands side by side"
        sizes = [value[0].numel() for value in self.trained.values()]
        return slice(sum(sizes[:first]), sum(sizes[:behind]))

    def is_validated(self, step: int) -> bool:
        """Whether the validation samples are tested after a step."""
        every = self.experiment.options.evaluation.val_iter
        due = step == self.num_steps or step % every == 0 or self.rates.looks_at(step)
        return due and len(self.task.validation.labels) > 0

    def is_logged(self, step: int) -> bool:
        """Whether a step is reported."""
        ends = (1, self.num_steps)
        return step in ends or step % LOG_ITER == 0 or self.is_validated(step)

    def log(self, step: int) -> dict[int, MemberProgress]:
        """Look at the losses of the steps since the last look, and at the validation samples.

        The device is waited for here. A member whose loss is not finite has failed from now on.

        Returns:
            By seed, of those that have not failed.
        """
        rows = self.history[self._logged : step].tolist()  # [steps, losses, members]
        first, self._logged = self._logged + 1, step
        self.failed = find_failures(rows, self.seeds, self.task_id, first) | self.failed
        if step == self.num_steps:  # the last update has no loss after it that would tell
            for seed, finite in zip(self.seeds, self._flat.isfinite().all(1).tolist(), strict=True):
                if not finite:
                    self.failed.setdefault(
                        seed,
                        f"the parameters are not finite after task {self.task_id + 1} at step "
                        f"{step}: lower --lr or the penalty's strength",
                    )
        rates = self.rates.of_members
        validated: list = [None] * len(self.seeds)
        if self.is_validated(step):
            validated = self._validate()
        if self.rates.looks_at(step):
            self.rates.look(validated)
        losses = zip(*rows[-1], strict=True)  # of the members
        return {
            seed: MemberProgress(
                task_loss,
                penalty,
                loss,
                accuracy,
                measured,
                rate,
                dict(zip(self._others, others, strict=True)),
            )
            for seed, (task_loss, penalty, loss, accuracy, *others), measured, rate in zip(
                self.seeds, losses, validated, rates, strict=True
            )
            if seed not in self.failed
        }

    def _validate(self) -> list[float]:
        """The members' accuracies on the validation samples, in [0, 1], or their errors."""
        method, net = self.experiment.method, self.experiment.net
        params = method.merged(self._before, self.trained, self.task_id)
        learned = Learned(net, method, params, [self.stats] * (self.task_id + 1))
        batch_size = self.experiment.options.evaluation.val_batch_size
        return evaluate(learned, self.task, self.task_id, self.task.validation, batch_size)

    def state(self, step: int) -> dict[str, Any]:
        """:class:`TaskState` after a step."""
        losses = self.history[self._logged : step].clone()
        return TaskState(
            step,
            self._flat,
            self._changed(),
            self.rates.state(),
            losses,
            dict(self.failed),
            {self.generator.device.type: self.generator.get_state()},
        )._asdict()

    def restore(self, state: "TaskState") -> None:
        """Put all that the next step depends on back to where it was."""
        self.steps_done, self.failed = state.step, dict(state.failed)
        self._logged = state.step - len(state.history)
        # An earlier version had fewer losses.
        self.history[self._logged : state.step, : state.history.shape[1]] = state.history
        self._flat.copy_(state.flat)
        for name, value in self._changed().items():
            value.copy_(state.changed[name])
        self.rates.load_state(state.rates)
        if (kind := self.generator.device.type) in state.generators:
            self.generator.set_state(state.generators[kind])

    def _changed(self) -> dict[str, Tensor]:
        """What the steps change beside the parameters."""
        changed = {"step": self._counter}
        changed |= {f"optimizer.{name}": v for name, v in self._optimizer.state.items()}
        changed |= {f"running.{name}": value for name, value in self.running.items()}
        return changed | {f"stats.{name}": value for name, value in self.stats.items()}

    def _state_of_optimizer(self) -> Params:
        """As memory has it, [members, …] each."""
        return {
            f"{OF_OPTIMIZER}{name}": value.clone() if value.ndim else value.repeat(len(self.seeds))
            for name, value in self._optimizer.state.items()
        }

    def result(self, position: Position) -> Position:
        """Where the run is when the task has been learned, without the seeds that failed."""
        method, task_id = self.experiment.method, self.task_id
        going = [i for i, seed in enumerate(self.seeds) if seed not in self.failed]
        params = select_members(method.merged(self._before, self.trained, task_id), going)
        stats = [*position.stats, self.stats]
        if self.experiment.has_one_set_of_stats:
            stats = [self.stats] * (task_id + 1)
        memory, seeds = parted(position.memory)[1], [self.seeds[i] for i in going]
        memory = select_members(memory, going)
        if going:
            left = self.experiment.of_members(seeds)
            of_members = (select_members(values, going) for values in (self.stats, self.running))
            own_seeds, task_loss = left.seeds_of(seeds), left.task_loss(self.task)
            end = TaskEnd(task_id, self.task, task_loss, own_seeds, *of_members)
            with left.net.evaluating():
                memory = left.method.after_task(params, memory, end)
            if self.experiment.options.train.keep_optimizer:
                memory = memory | select_members(self._state_of_optimizer(), going)
        return replace(
            position,
            seeds=seeds,
            task_id=task_id + 1,
            params=params,
            stats=[select_members(in_task, going) for in_task in stats],
            scales=select_members(position.scales, going),
            memory=memory,
            training=None,
        )


class TaskState(NamedTuple):
    """Where the training of a task is, with all tensors that its later steps depend on.

    The tensors may be those that the next step changes.
    """

    step: int  # steps done in this task
    flat: Tensor  # [members, numbers], what is trained
    changed: dict[str, Tensor]  # what else the steps change
    rates: list[dict]  # of each member, the plateau scheduler's state; empty without it
    history: Tensor  # [steps since the last logged one, losses, members]
    failed: dict[int, str]  # by seed
    generators: dict[str, Tensor]  # by type of device, the state of the steps' generator


class StepPlan(NamedTuple):
    """What was drawn for the steps of a task, on the device."""

    batches: Tensor  # [steps, members, B] int64, indices of training samples
    crops: Crops | None  # [steps, members, B], where the task is augmented
    drawn: Tensor  # [steps or 1, members, …], what the method has drawn


def draw_steps(experiment: Experiment, task_id: int, seeds: Sequence[int], anchor: Any) -> StepPlan:
    """Draw all that is random in a task's steps but dropout.

    Each kind of randomness has a stream of its own for each seed, so that a member draws what it
    would draw alone.
    """
    task, batch_size = experiment.tasks[task_id], experiment.options.train.batch_size
    num_samples, num_steps = len(task.train.labels), experiment.length(task).num_steps

    own_seeds = experiment.seeds_of(seeds)

    def stack(draw: Callable[[torch.Generator], Tensor], purpose: str) -> Tensor:
        drawn = {seed: draw(generator(seed, purpose, task_id)) for seed in own_seeds}
        return torch.stack([drawn[seed] for seed in own_seeds], dim=1).to(experiment.device)

    crops = None
    if task.augmented:
        crops = Crops(
            stack(lambda g: draw_offsets(num_steps, batch_size, g), "crops"),
            stack(lambda g: draw_flips(num_steps, batch_size, g), "flips"),
        )
    return StepPlan(
        stack(lambda g: draw_batches(num_samples, num_steps, batch_size, g), "data order"),
        crops,
        stack(
            lambda g: experiment.method.draw(anchor, task_id, num_steps, g), "regularizer subset"
        ),
    )


def find_failures(
    rows: list[list[list[float]]], seeds: Sequence[int], task_id: int, first_step: int
) -> dict[int, str]:
    """Which members' losses are not finite, and since when.

    Args:
        rows: [steps, losses, members].
    """
    failures: dict[int, str] = {}
    for step, (task_losses, penalties, losses, *_) in enumerate(rows, start=first_step):
        for seed, *values in zip(seeds, task_losses, penalties, losses, strict=True):
            if not all(map(math.isfinite, values)):
                failures.setdefault(
                    seed,
                    f"the loss is not finite in task {task_id + 1} at step {step} (task loss "
                    f"{values[0]:g}, penalty {values[1]:g}): lower --lr or the penalty's strength",
                )
    return failures
