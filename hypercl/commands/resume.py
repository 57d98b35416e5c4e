"""--resume: which run goes on, with which options, and whether its checkpoint fits them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hypercl.errors import InputError
from hypercl.methods.base import NUM_LOSSES
from hypercl.options import Options, require_known
from hypercl.rundir import stored
from hypercl.rundir.forms import fits, is_progress
from hypercl.rundir.sources import require_unchanged
from hypercl.shell import is_out_of_memory

if TYPE_CHECKING:  # torch, which is not needed to say that there is no such run
    from hypercl.experiment import Experiment
    from hypercl.rundir.checkpoint import Position


def resumed(
    options: Options,
    argv: list[str],
    parse_args: Callable[..., Options],
    import_torch: Callable[[], None],
) -> Options:
    """The options with which a run goes on: the stored ones, where none is given.

    Args:
        parse_args: Reads a command line beside stored options.
        import_torch: Called where a checkpoint must be read for them, as config.json is lost.

    Raises:
        InputError: There is no run to go on with.
    """
    out_dir = options.run.out_dir
    path = stored.newest_unfinished(Path("out")) if out_dir is None else Path(out_dir)
    if path is None:
        raise InputError("--resume finds no unfinished run in ./out: give its --out_dir")
    config, source = stored.find_config(path), path / "config.json"
    if config is None:
        import_torch()
        from hypercl.rundir.checkpoint import stored_config

        config, source = stored_config(path)
    require_unchanged(path, config)
    require_known(source, config["options"])
    return parse_args([*argv, f"--out_dir={path}"], config["options"])


class Training(Protocol):
    """What is needed of train.TaskTraining, to compare a checkpoint's with it."""

    def state(self, step: int) -> dict[str, Any]:
        """Where it is after a step."""
        ...


def require_fitting(
    path: Path,
    experiment: "Experiment",
    position: "Position",
    report_state: Mapping[str, Any],
    start_training: Callable[["Experiment", "Position"], Training],
) -> None:
    """Refuse a position that no run of this experiment can have, before anything is written.

    Args:
        path: Of the checkpoint.
        start_training: Begins the training of a position's task; train.TaskTraining.at.

    Raises:
        InputError: Seeds, tasks, or the names, shapes or types of tensors are others.
    """
    try:
        fitting = (
            _counts_fit(experiment, position)
            and _tensors_fit(experiment, position)
            and _progress_fits(experiment, position, report_state["results"])
            and _training_fits(experiment, position, start_training)
        )
    except Exception as error:  # of any type: nobody has expected such content
        if is_out_of_memory(error):
            raise
        fitting = False
    if not fitting:
        raise stored.refused(path)


def _counts_fit(experiment: "Experiment", position: "Position") -> bool:
    groups, seeds = position.groups, list(experiment.seeds)
    trained = [seed for group in groups for seed in group]
    # A run that continues another leaves out groups of seeds that all failed there.
    if trained != [seed for seed in seeds if seed in trained] or not all(groups):
        return False
    done = [seed for group in groups[: position.group] for seed in group]
    if not set(position.learned) <= set(done) or position.learned.keys() != (
        position.learned_stats.keys()
    ):
        return False
    if position.group == len(groups):
        return position.task_id == 0 and not position.seeds
    if not (0 <= position.group < len(groups) and 0 <= position.task_id < len(experiment.tasks)):
        return False
    going = [seed for seed in groups[position.group] if seed in position.seeds]
    started = position.params is not None
    return going == position.seeds != [] and (started or position.task_id == 0)


def _tensors_fit(experiment: "Experiment", position: "Position") -> bool:
    """Whether all tensors are like those of a run that starts, but for their values."""
    params = experiment.method.init(list(experiment.seeds)[:1])
    stats = experiment.net.fresh_stats(1, experiment.device)
    num_seeds, num_tasks = len(position.seeds), len(experiment.tasks)
    if position.params is not None and not _like(position.params, params, [num_seeds]):
        return False
    if any(len(kept) != num_seeds for kept in position.memory.values()):
        return False
    if len(position.stats) != position.task_id:
        return False
    if not _scales_fit(position.scales, [num_seeds, position.task_id]):
        return False
    if not all(_scales_fit(own, [num_tasks]) for own in position.learned_scales.values()):
        return False
    return (
        all(_like(in_task, stats, [num_seeds]) for in_task in position.stats)
        and all(_like(learned, params, []) for learned in position.learned.values())
        and all(
            len(by_task) == num_tasks and all(_like(in_task, stats, []) for in_task in by_task)
            for by_task in position.learned_stats.values()
        )
    )


def _scales_fit(scales: Mapping[str, Any], shape: Sequence[int]) -> bool:
    """Whether there is a number of each task learned, or none at all."""
    return all([*each.shape] == [*shape] for each in scales.values())


def _like(values: Mapping[str, Any], one: Mapping[str, Any], members: Sequence[int]) -> bool:
    """Whether tensors are those of one member, with other leading dimensions."""
    return values.keys() == one.keys() and all(
        [*value.shape] == [*members, *one[name].shape[1:]] and value.dtype == one[name].dtype
        for name, value in values.items()
    )


def _progress_fits(
    experiment: "Experiment", position: "Position", progress: Mapping[str, Any]
) -> bool:
    """Whether as many rows of accuracies are there as tasks are learned."""
    if not is_progress(progress, len(experiment.tasks)):
        return False
    if [seed["seed"] for seed in progress["seeds"]] != list(experiment.seeds):
        return False
    trained = {seed for group in position.groups for seed in group}
    if any("failed" not in s and s["seed"] not in trained for s in progress["seeds"]):
        return False
    learned = dict.fromkeys(position.learned, len(experiment.tasks))
    learned |= {seed: len(w["stats"]) for seed, w in position.waiting.items()}
    learned |= dict.fromkeys(position.seeds, position.task_id)
    seconds = progress["seconds"]
    return min(len(seconds["train"]), len(seconds["test"])) >= position.task_id and all(
        len(seed.get(experiment.measure.name, ())) == learned[seed["seed"]]
        for seed in progress["seeds"]
        if "failed" not in seed and seed["seed"] in learned
    )


def _training_fits(
    experiment: "Experiment",
    position: "Position",
    start_training: Callable[["Experiment", "Position"], Training],
) -> bool:
    """Whether the task under way can go on: tried, as that depends on method and optimizer."""
    if position.group == len(position.groups):
        return True
    there = position.training
    if there is not None and not _state_fits(experiment, position, there):
        return False
    training = start_training(
        experiment, position.on_device(experiment.device, experiment.method.init)
    )
    if there is None:
        return True
    here = training.state(there["step"])
    # An earlier version had fewer losses.
    histories = (state["history"][:, :NUM_LOSSES] for state in (there, here))
    return _alike(*histories) and all(
        _alike(there[name], here[name]) for name in ("flat", "changed")
    )


def _state_fits(experiment: "Experiment", position: "Position", state: Mapping[str, Any]) -> bool:
    """Whether numbers in a train.TaskState are such that its tensors can be looked at."""
    from hypercl.engine.schedules import LearningRates

    length = experiment.length(experiment.tasks[position.task_id])
    options, num_seeds = experiment.options.train, len(position.seeds)
    rates = LearningRates(
        options,
        *length,
        num_seeds,
        experiment.device,
        higher_is_better=experiment.measure.higher_is_better,
    )
    return (
        1 <= state["step"] <= length.num_steps
        and state["changed"]["step"].tolist() == [state["step"]]
        and _alike(state["rates"], rates.state())
        and set(state["failed"]) <= set(position.seeds)
        and fits(state["failed"], {int: str})
        and len(state["generators"]) > 0
    )


def _alike(value: Any, like: Any) -> bool:
    """Whether two values differ in numbers alone."""
    if isinstance(value, Mapping) and isinstance(like, Mapping):
        return value.keys() == like.keys() and all(_alike(v, like[k]) for k, v in value.items())
    if hasattr(value, "dtype") and hasattr(like, "dtype"):
        return value.dtype == like.dtype and value.shape == like.shape
    if isinstance(value, list | tuple) and isinstance(like, list | tuple):
        return len(value) == len(like) and all(map(_alike, value, like))
    return type(value) is type(like)
