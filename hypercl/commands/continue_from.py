"""--continue_from: more tasks after those that a finished run has learned."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hypercl.commands.resume import Training, require_fitting
from hypercl.errors import InputError
from hypercl.options import Options, differing
from hypercl.rundir.stored import CHECKPOINTS, read_finished, refused
from hypercl.shell import is_out_of_memory

if TYPE_CHECKING:
    from hypercl.experiment import Experiment
    from hypercl.rundir.checkpoint import OfSeed, Position

# torch is imported in the functions that need it, so that a run that cannot be continued is refused
# at once.


class Source(NamedTuple):
    """The run that is continued."""

    path: Path
    results: Mapping[str, Any]  # its results.json

    @property
    def checkpoint(self) -> Path:
        """Of its end."""
        return self.path / CHECKPOINTS[0]

    @property
    def num_tasks(self) -> int:
        """How many it has learned."""
        return len(self.results["tasks"])


def find_source(options: Options) -> Source:
    """The finished run that ``--continue_from`` names.

    Raises:
        InputError: There is none, it is not finished or damaged, it was learned with other options,
            or there are no more tasks than it has learned.
    """
    assert options.run.continue_from is not None
    path = Path(options.run.continue_from)
    source = Source(path, read_finished(path))
    may_differ = {name: options.values[name] for name in ("num_tasks", "continue_from")}
    if differences := differing({**source.results["config"], **may_differ}, options.recorded):
        raise InputError(
            f"--continue_from={path} was learned with other options: {', '.join(differences)}; "
            f"give the same ones (--config={path} has them)"
        )
    if options.task.num_tasks is not None:
        _require_more_tasks(source, options.task.num_tasks)
    return source


def _require_more_tasks(source: Source, num_tasks: int) -> None:
    if num_tasks <= source.num_tasks:
        raise InputError(
            f"--num_tasks={num_tasks} leaves nothing to learn after the {source.num_tasks} tasks "
            f"of --continue_from={source.path}: give more"
        )


def start_after(
    source: Source,
    experiment: "Experiment",
    described: Mapping[str, Any],
    start_training: "Callable[[Experiment, Position], Training]",
) -> tuple["Position", dict[str, Any]]:
    """Where a run begins that continues another: behind that one's last task.

    All that it needs of the other one is in the position. Seeds that failed there are left out.

    Args:
        described: What config.json will say of this process.
        start_training: Begins the training of a position's task; train.TaskTraining.at.

    Returns:
        The position, and the state of the report.

    Raises:
        InputError: The other run's checkpoint is missing or damaged, the data are others, or the
            tasks to come need a larger network, or are none.
    """
    from hypercl.rundir.checkpoint import Position

    require_same_network(source, experiment)
    end = _end_of(source, experiment, described)
    try:
        waiting = {
            seed: _extended(experiment, seed, end, source.num_tasks)._asdict()
            for seed in end.learned
        }
        groups = [g for g in experiment.groups_of_seeds() if not waiting.keys().isdisjoint(g)]
        position = Position.start(groups, waiting=waiting)
        state = _report_state(source, experiment)
    except Exception as error:  # of any type, where something is missing or of another shape
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        raise refused(source.checkpoint) from error
    require_fitting(source.checkpoint, experiment, position, state, start_training)
    return position, state


def require_same_network(source: Source, experiment: "Experiment") -> None:
    """Refuse tasks that a run cannot be continued with.

    Raises:
        InputError: None are left to learn, or the main network would have to grow for them. (A
            hypernetwork in chunks has the same shapes for a larger one, but generates other
            weights.)
    """
    from hypercl.experiment import outputs_for

    tasks, shared = experiment.tasks, experiment.options.task.shares_outputs
    _require_more_tasks(source, len(tasks))
    before, now = outputs_for(tasks[: source.num_tasks], shared), outputs_for(tasks, shared)
    if before != now:
        raise InputError(
            f"the tasks after those of --continue_from={source.path} have {now} classes, and its "
            f"main network has {before} outputs: train all tasks from the start"
        )


def _extended(experiment: "Experiment", seed: int, end: "Position", num_tasks: int) -> "OfSeed":
    """What a seed has learned of so many tasks, ready for all of the experiment's, on the CPU."""
    from hypercl.engine.members import select_members, stack_members, to_device
    from hypercl.rundir.checkpoint import OfSeed

    device, method = experiment.device, experiment.method
    params = to_device(stack_members([end.learned[seed]]), device)
    memory = to_device(stack_members([end.learned_memory[seed]]), device)
    params, memory = method.extended(params, memory, [seed], num_tasks)
    params, memory = (select_members(to_device(v, "cpu"), 0) for v in (params, memory))
    scales = dict(end.learned_scales.get(seed, {}))
    return OfSeed(params, memory, list(end.learned_stats[seed]), scales)


def _end_of(source: Source, experiment: "Experiment", described: Mapping[str, Any]) -> "Position":
    """The position at the end of the run that is continued."""
    from hypercl.rundir import saving
    from hypercl.rundir.checkpoint import FORMAT, position_in, require_form, warn_of_changes
    from hypercl.tasks.task import fingerprint

    path = source.checkpoint
    otherwise = "put a good copy there, or train all tasks from the start"
    try:
        content = saving.decode(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {otherwise}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): mend that") from None
    except saving.Damaged:
        raise InputError(f"{path} is damaged: {otherwise}") from None
    of_another_version = (
        f"{path} is not of this version of the program, which needs more than it holds: train all "
        "tasks from the start"
    )
    if content.get("format") != FORMAT:
        raise InputError(of_another_version)
    made_by, end = require_form(path, content), position_in(content)
    if end.learned.keys() != end.learned_memory.keys():
        raise InputError(of_another_version)
    if end.group < len(end.groups) or differing(made_by["options"], source.results["config"]):
        raise InputError(f"{path} is not of that run's end: {otherwise}")
    if content["data"] != fingerprint(experiment.tasks[: source.num_tasks]):
        raise InputError(
            f"the data are not those with which {source.path} was learned: give their --data_dir"
        )
    warn_of_changes(made_by, described)
    return end


def _report_state(source: Source, experiment: "Experiment") -> dict[str, Any]:
    """As report.results.Report.state has it: the earlier tasks' accuracies and seconds."""
    from hypercl.report.metrics import BY_SCENARIO, metrics_of

    results = source.results
    seeds, summary = copy.deepcopy(results["seeds"]), results["summary"]
    for seed in seeds:  # what is not known yet of the new tasks
        untrained = seed[f"{experiment.measure.name}_untrained"]
        untrained += [None] * (len(experiment.tasks) - source.num_tasks)
    if not experiment.options.evaluation.scenarios_every_task:  # they are of that run's end
        for seed in seeds:
            seed.pop("scenarios", None)
        kept = (*metrics_of(experiment.measure), *BY_SCENARIO)
        summary = {name: summary[name] for name in kept if name in summary}
    return {
        "results": {
            "kept_bytes": results["kept_bytes"],
            "seeds": seeds,
            "summary": summary,
            "seconds": copy.deepcopy(results["seconds"]),
            "continued_from": {
                "run": str(source.path),
                "num_tasks": source.num_tasks,
                "sha256": results["sha256"],
            },
        },
        "task_seconds": 0.0,
    }
