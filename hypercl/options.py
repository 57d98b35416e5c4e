"""Every option but those of single entries, a line each: type, default, range, help. No torch.

The entries of the registries (sequences of tasks, main networks, methods) have options of their own,
which stand in their files. train_args.py makes the command line from all of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields
from functools import cache
from math import ceil
from types import MappingProxyType
from typing import Any, NamedTuple

from hypercl.errors import InputError, NotThere
from hypercl.measure import ACCURACY, ERROR, Measure
from hypercl.ranges import (
    UNSET,
    as_argument,
    count,
    count_or_counts,
    folder,
    int_from_to,
    int_list,
    is_reference,
    named_paths,
    natural,
    non_negative,
    normalization,
    one_of,
    one_of_or_own,
    option,
    or_unset,
    path,
    paths,
    positive,
    share,
    switch,
    text,
)
from hypercl.registry import Entry, entries, entry

SEQUENCES, MAIN_NETS, METHODS = (
    "hypercl.tasks.sequences",
    "hypercl.networks.main_nets",
    "hypercl.methods",
)
ACTIVATIONS = one_of("linear", "sigmoid", "relu", "elu", "tanh")


# fmt: off
@dataclass(frozen=True)
class TaskOptions:
    """The sequence of tasks; ``kind`` is the entry that ``cl_exp`` names."""

    cl_exp: str = option("splitmnist", one_of_or_own(*entries(SEQUENCES), example="path/to/data.npz"), "sequence of tasks, or your own: an .npz file, a folder of images, path/to/my.py:function, torchvision:Name")
    task_type: str | None = option(None, one_of("classification", "regression"), "what the labels are: classes, or numbers whose mean squared error is minimized and tested (default: as the sequence says, classes for all but toyregression)")
    num_tasks: int | None = option(5, or_unset(count), "number of tasks; beside a list of --num_classes_per_task, that says it; -1, the default of toyregression and of your own sequences: all that there are")
    num_classes_per_task: int | tuple[int, ...] | None = option(2, or_unset(count_or_counts()), "number of classes a task has, or of each task its own, like 4,3,3; -1, the default of toyregression and of your own sequences: as they say, or 2")
    skip_tasks: int = option(0, natural, "leave out the first N tasks of the sequence")
    num_train_samples: int | None = option(None, or_unset(count), "training samples per task, the first ones (of each class, with --val_split=stratified); -1: all")
    val_set_size: int = option(100, natural, "training samples of a task, held out for validation as --val_split says; 0: no validation")
    val_split: str | None = option(None, one_of("first", "stratified"), "which of a task's training samples --val_set_size holds out: the first, or of each class the first, in proportion to the classes (default: first; of your own data stratified)")
    normalize: str | tuple[float, ...] | None = option(None, normalization(), "inputs less a mean, divided by a standard deviation: none; those of the first task's training samples, by channel or feature (dataset); those of ImageNet; or numbers, means first (default: imagenet for splitcifar, none for all others)")
    multi_head: bool = option(False, switch, "a main network with the outputs of all tasks, of which each trains, tests and regularizes its own; the same as --cl_scenario=1")
    cl_scenario: int | None = option(None, or_unset(int_from_to(1, 3)), "1: each task has outputs of its own, and is known when tested; 2: all tasks share outputs; 3: a sample is classified among the classes of all tasks so far; -1: 1 with --multi_head, else 2, or for a method with a network for each task shared outputs and the task known")
    data_dir: str = option("./datasets", path("DIR"), "where cifar10.npz and cifar100.npz lie or are put (and mnist.npz, without the package that carries it)")
    kind: Any = None

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers, and no classes."""
        return (self.task_type or self.kind.task_types[0]) == "regression"

    @property
    def measure(self) -> Measure:
        """What is measured of its tasks."""
        return ERROR if self.is_regression else ACCURACY

    @property
    def has_heads(self) -> bool:
        """Whether each task has outputs of its own."""
        return self.multi_head or self.cl_scenario == 1

    @property
    def shares_outputs(self) -> bool:
        """Whether all tasks have the same outputs."""
        return not self.has_heads and not self.has_growing_outputs

    @property
    def has_growing_outputs(self) -> bool:
        """Whether a sample is classified among the classes of all tasks so far."""
        return self.cl_scenario == 3


@dataclass(frozen=True)
class MethodOptions:
    """What is done against forgetting; ``kind`` is the entry that ``method`` names."""

    method: str = option("hnet", one_of_or_own(*entries(METHODS), example="path/to/my.py:MyMethod"), "what is done against forgetting, or path/to/my.py:MyMethod")
    task_loss: str = option("mean", one_of("mean", "total"), "what --beta weighs the regularizer against, and what is clipped: the batch's mean cross-entropy (mean squared error), or that times the task's training samples; losses on samples that are replayed or distilled follow it")
    kind: Any = None


@dataclass(frozen=True)
class TrainOptions:
    """How a task is learned."""

    batch_size: int = option(32, count, "training samples per step")
    n_iter: int = option(1001, count, "steps per task")
    epochs: int | None = option(None, or_unset(count), "epochs per task, of ceil(samples / batch_size) steps each, instead of --n_iter; -1: not set")
    lr: float = option(0.0001, positive, "learning rate", member=True)
    use_sgd: bool = option(False, switch, "gradient descent with --momentum instead of Adam")
    use_rmsprop: bool = option(False, switch, "RMSprop with --momentum instead of Adam")
    momentum: float = option(0.0, share, "momentum of --use_sgd and --use_rmsprop; Adam has none", member=True)
    weight_decay: float = option(0.0, non_negative, "L2 penalty on the parameters that learn", member=True)
    adam_beta1: float = option(0.9, share, "decay of Adam's running mean of gradients", member=True)
    keep_optimizer: bool = option(False, switch, "the optimizer's running means go on from task to task, rather than begin anew (with methods that have one network, but for hnet_r)")
    plateau_lr_scheduler: bool = option(False, switch, "multiply the learning rate by sqrt(0.1) when the validation accuracy has not risen (of regression, the error not fallen) for more than 5 epochs")
    lambda_lr_scheduler: bool = option(False, switch, "multiply the learning rate by 0.1, 0.01, 0.001, 0.0005 from the 82nd, 122nd, 162nd, 182nd epoch of a task on")
    clip_grad_value: float | None = option(None, or_unset(positive), "bring each number of the gradient into [-X, X]; -1: leave it", member=True)
    clip_grad_norm: float | None = option(None, or_unset(positive), "scale gradients down to a norm of X; -1: leave them", member=True)

    def num_steps(self, num_samples: int) -> int:
        """Of a task with so many training samples."""
        if self.epochs is None:
            return self.n_iter
        return self.epochs * ceil(num_samples / self.batch_size)


@dataclass(frozen=True)
class MainNetOptions:
    """The main network; ``kind`` is the entry that ``net_type`` names."""

    net_type: str = option("mlp", one_of_or_own(*entries(MAIN_NETS), example="path/to/my.py:Net"), "architecture, or a torch.nn.Module as path/to/my.py:Net or package.module:Class")
    net_act: str = option("relu", ACTIVATIONS, "activation function (mlp; the others have relu)")
    no_bias: bool = option(False, switch, "no bias terms (not lenet, not zenke)")
    dropout_rate: float | None = option(None, or_unset(share), "dropout rate (not resnet); -1: no dropout")
    specnorm: bool = option(False, switch, "kept for old scripts; refused, as no generated network can have spectral normalization")
    batchnorm: bool = option(False, switch, "batch normalization (not lenet, not zenke), in evaluation by running statistics; where each task has a network, of each task")
    bn_no_running_stats: bool = option(False, switch, "batch normalization by the batch's statistics, in evaluation too")
    bn_no_stats_checkpointing: bool = option(False, switch, "one set of running statistics for all tasks, also where each has a network")
    kind: Any = None


@dataclass(frozen=True)
class HypernetOptions:
    """The hypernetwork."""

    hnet_type: str = option("chunked_hmlp", one_of("chunked_hmlp", "hmlp"), "all weights at once (hmlp) or chunk by chunk (chunked_hmlp)")
    hmlp_arch: tuple[int, ...] = option((100, 100), int_list(), "sizes of the hidden layers; empty: a linear hypernetwork")
    cond_emb_size: int = option(8, natural, "size of a task embedding; 0 only with --use_cond_chunk_embs")
    chmlp_chunk_size: int = option(750, count, "chunked_hmlp: weights per chunk")
    compression: float | None = option(None, or_unset(positive), "chunked_hmlp: choose the chunk size such that the hypernetwork has X times the weights of the main network; -1: as --chmlp_chunk_size says")
    chunk_emb_size: int = option(8, count, "chunked_hmlp: size of a chunk embedding")
    use_cond_chunk_embs: bool = option(False, switch, "chunked_hmlp: chunk embeddings of its own for each task")
    hnet_net_act: str = option("relu", ACTIVATIONS, "activation function")
    hnet_no_bias: bool = option(False, switch, "no bias terms")
    hnet_dropout_rate: float | None = option(None, or_unset(share), "dropout rate of the hidden layers; -1: no dropout")
    hnet_init: str = option("default", one_of("default", "xavier"), "initialization of the layers: hypnettorch's, or Xavier-uniform weights and zero biases")
    hyper_fan_init: bool = option(False, switch, "hypnettorch's hyperfan initialization of layers and chunk embeddings: the generated weights start nearly at the scale of a common initialization (with chunks, where task embeddings are small: --std_normal_temb=0.03)")
    std_normal_temb: float | None = option(None, or_unset(non_negative), "standard deviation of initial task embeddings; -1: 1", member=True)
    std_normal_emb: float | None = option(None, or_unset(non_negative), "standard deviation of initial chunk embeddings; -1: 1", member=True)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is tested on what, and when."""

    val_iter: int = option(500, count, "steps from one validation to the next")
    val_batch_size: int = option(256, count, "samples per batch in validation and test")
    test_with_val_set: bool = option(False, switch, "test on the validation sets, for choosing hyperparameters")
    test_iter: int = option(1, count, "tasks from one test of all tasks so far to the next, beside that after the last; in between, a task is tested alone")
    scenarios_every_task: bool = option(False, switch, "infer the tasks of all test samples after each task (that --test_iter names), not only after the last")


@dataclass(frozen=True)
class RunOptions:
    """The process, its files, its device and its seeds."""

    preset: str | None = option(None, text("NAME"), "settings of a published run; options given beside it win over them, a switch as in --lookahead=off")
    config: str | None = option(None, path("FILE"), "options from a TOML file, or those of a run: its directory, config.json or results.json; options given beside it win over them (default: none)")
    out_dir: str | None = option(None, folder("DIR"), "run directory to make, or to continue with the same options (default: ./out/run_<timestamp>)")
    overwrite: bool = option(False, switch, "if --out_dir is an earlier run's directory, replace that run")
    resume: bool = option(False, switch, "continue the run in --out_dir, or without it the newest unfinished one in ./out, with its options")
    continue_from: str | None = option(None, folder("RUN"), "learn more tasks, after those of a finished run: the same options with a larger --num_tasks and another --out_dir; a hypernetwork starts otherwise than with all tasks from the start (default: none)")
    keep_weights: bool = option(False, switch, "keep what has been learned after each task, too, as weights/task_01.pt …")
    pause_after: int | None = option(None, or_unset(count), "leave when N tasks are learned, of seeds in several groups those of the first; the run is paused then, and goes on without this option; -1: never")
    ckpt_iter: int = option(500, natural, "steps from one checkpoint to the next; 0: after each task alone")
    eval: str | None = option(None, path("RUN"), "test the networks of a finished run again, and compare with its results (default: none)")
    compare: tuple[str, ...] | None = option(None, paths("RUN"), "compare finished runs in a table and by tests of their differences to the first: run directories, folders of such, or results.json files (default: none)")
    label: tuple[str, ...] | None = option(None, named_paths("NAME=RUN"), "with --compare: call a run NAME, instead of by the options in which the runs differ; may be given for several runs (default: none)")
    report: str | None = option(None, path("DIR"), "with --compare: write report.html, table.csv, table.tex, table.md and figures there (default: none)")
    export: str | None = option(None, path("RUN"), "write the main networks of a finished run, of every task and seed, into files for other programs (default: none)")
    to: str | None = option(None, path("DIR"), "with --export: where to put them, a new directory or that of an earlier export (default: none)")
    format: str = option("safetensors", one_of("safetensors", "onnx"), "with --export: what files to write")
    sweep: str | None = option(None, path("FILE"), "search hyperparameters, or try named points: a TOML file (docs/sweeps.rst), or the name of a sweep that comes with the project; goes on where it was stopped (default: none)")
    workers: int | None = option(None, count, "with --sweep: processes that work (default: one a processor of this machine; with --slurm, --lsf or --pbs give it)")
    scheduler: str | None = option(None, text("ADDRESS"), "with --sweep: let the workers of a Dask cluster that runs do the work, tcp://host:port (default: processes on this machine)")
    slurm: bool = option(False, switch, "with --sweep: let jobs of SLURM do the work, as dask-jobqueue's configuration has them; at most --workers")
    lsf: bool = option(False, switch, "with --sweep: the same with LSF")
    pbs: bool = option(False, switch, "with --sweep: the same with PBS")
    retest: int | None = option(None, natural, "with --sweep: train with fresh seeds and test the best point, and up to N - 1 others within one standard error of it (default: as the file says)")
    retry_failed: bool = option(False, switch, "with --sweep: try the points again that an error has ended")
    dry_run: bool = option(False, switch, "say how large the networks are, and what memory and time the run would take, or with --sweep all its points, without running it")
    no_cuda: bool = option(False, switch, "run on the CPU even where there is a GPU")
    num_threads: int | None = option(None, or_unset(count), "threads on a CPU; -1: as OMP_NUM_THREADS or MKL_NUM_THREADS says, without them one, or for convolutions with much work in a step all processors")
    loglevel_info: bool = option(False, switch, "hide the debug lines on the screen; logfile.txt keeps them")
    plot_format: str = option("png", one_of("png", "pdf", "both"), "format of the plots")
    deterministic_run: bool = option(False, switch, "use deterministic algorithms alone; slower on a GPU")
    random_seed: int = option(42, natural, "seed from which all randomness of the run is derived", member=True)
    num_seeds: int = option(1, count, "train the seeds random_seed … random_seed + N - 1 together, in one process")
    tf32: bool = option(False, switch, "on a GPU, TF32 for the main network's products and convolutions; never for the hypernetwork")
    amp: bool = option(False, switch, "bfloat16 for the main network, on a CPU too; never for the hypernetwork")
# fmt: on


class Group(NamedTuple):
    """Options that are read together, with the title that --help gives them."""

    title: str
    options: type
    chosen_by: str | None = None  # the option among them that names an entry
    registry: str | None = None  # the package of the entries


# By attribute of Options.
GROUPS = {
    "task": Group("continual learning", TaskOptions, "cl_exp", SEQUENCES),
    "method": Group("method", MethodOptions, "method", METHODS),
    "train": Group("training", TrainOptions),
    "main_net": Group("main network", MainNetOptions, "net_type", MAIN_NETS),
    "hypernet": Group("hypernetwork", HypernetOptions),
    "evaluation": Group("evaluation", EvaluationOptions),
    "run": Group("miscellaneous", RunOptions),
}


_SAID_BY_OWN = ("num_tasks", "num_classes_per_task")  # by the user's and toyregression


@dataclass(frozen=True)
class Options:
    """All options of a run, in the groups that factories take.

    ``values`` has them by name, those of entries that were not chosen too, as JSON has them: lists
    for tuples, -1 for None where an option can be unset.
    """

    values: Mapping[str, Any]
    task: TaskOptions
    method: MethodOptions
    train: TrainOptions
    main_net: MainNetOptions
    hypernet: HypernetOptions
    evaluation: EvaluationOptions
    run: RunOptions

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Options":
        """From values as JSON has them; what is missing takes its default, others are left out.

        Raises:
            InputError: A value is none that the option may have.
        """
        known, preset = all_options(values), defaults(values)
        if _says_its_tasks(str(values.get("cl_exp"))):
            values = {**dict.fromkeys(_SAID_BY_OWN, UNSET), **values}
        elif unset := [name for name in _SAID_BY_OWN if values.get(name) == UNSET]:
            raise InputError(f"--{unset[0]}=-1 is for a sequence of your own: give a number")
        values = {
            name: known[name].metadata["range"].normal(values.get(name, default))
            for name, default in preset.items()
        }
        values["num_tasks"] = _num_tasks(values)
        inside = {}
        for name, value in values.items():
            if value is None and preset[name] is not None:
                raise InputError(f"--{name} has no value: give one")
            allowed = known[name].metadata["range"]
            allowed.check(name, value)
            inside[name] = allowed.from_plain(value)

        def make(options: type, **more: Any) -> Any:
            own = {field.name: inside[field.name] for field in options_of(options)}
            return options(**own, **more)

        groups = {}
        for attribute, group in GROUPS.items():
            more = {}
            if group.registry is not None and group.chosen_by is not None:
                more["kind"] = make(entry(group.registry, inside[group.chosen_by]))
            groups[attribute] = make(group.options, **more)
        return cls(MappingProxyType(values), **groups)

    def having(self, **values: Any) -> "Options":
        """These options with other values of some, given as JSON has them.

        Raises:
            InputError: There is no such option, or it may not have that value.
        """
        if unknown := values.keys() - all_options({**self.values, **values}).keys():
            raise InputError(f"there is no option {', '.join(sorted(unknown))}: see --help")
        return self.of({**self.values, **values})

    @property
    def recorded(self) -> dict[str, Any]:
        """``values`` of the options that concern this run: without those of other entries, and
        without what a process may leave undone.
        """
        concerned = [group.options for group in GROUPS.values()]
        concerned += [type(kind) for kind in self.kinds]
        names = {field.name for owner in concerned for field in options_of(owner)}
        names -= set(_UNRECORDED)
        return {name: value for name, value in self.values.items() if name in names}

    def is_changed(self, name: str) -> bool:
        """Whether an option has another value than its default."""
        return self.values[name] != defaults(self.values)[name]

    def spelled(self, name: str) -> str:
        """An option as a message shows it: ``--lr=0.1``, and ``--batchnorm`` for a switch."""
        value = self.values[name]
        if value is True:
            return f"--{name}"
        if isinstance(value, float):
            return f"--{name}={value:g}"
        return f"--{name}={as_argument(value)}"

    @property
    def tells_tasks_apart(self) -> bool:
        """Whether the tasks of samples can be inferred: each task has a network or outputs of its
        own. Tasks of regression cannot: a network says nothing of how sure it is.
        """
        own = self.task.has_heads or self.method.kind.network_by_task
        return own and not self.task.is_regression

    @property
    def scenario(self) -> int | None:
        """Of van de Ven and Tolias (arXiv 1904.07734), the one whose accuracies are the run's; None
        where tasks share outputs and each has a network of its own, which is known when tested.
        """
        if self.task.has_heads:
            return 1
        if self.task.cl_scenario is not None:
            return self.task.cl_scenario
        return 2 if 2 in self.method.kind.scenarios else None

    @property
    def kinds(self) -> tuple[Entry, Entry, Entry]:
        """The entries that were chosen."""
        return (self.task.kind, self.method.kind, self.main_net.kind)


def _says_its_tasks(cl_exp: str) -> bool:
    """Whether a sequence says the numbers of its tasks and classes itself."""
    built_in = entries(SEQUENCES).get(cl_exp)
    return is_reference(cl_exp) if built_in is None else getattr(built_in, "says_tasks", False)


def _num_tasks(values: Mapping[str, Any]) -> Any:
    """``num_tasks``; where it has its default, as a list of ``num_classes_per_task`` says it.

    The list is of the whole sequence: ``skip_tasks`` leaves out the first of its tasks.
    """
    sizes, skipped, given = (
        values[name] for name in ("num_classes_per_task", "skip_tasks", "num_tasks")
    )
    derived = isinstance(sizes, list) and isinstance(skipped, int) and skipped < len(sizes)
    if not derived or given not in (defaults()["num_tasks"], UNSET):
        return given
    return len(sizes) - skipped


def options_of(group: type) -> list[Field]:
    """The fields of a group or of an entry that are options."""
    return [field for field in fields(group) if "range" in field.metadata]


def all_options(values: Mapping[str, Any] = MappingProxyType({})) -> Mapping[str, Field]:
    """The field of every option, by name: of each group, and of the entries behind it.

    Args:
        values: Options as JSON has them. Where they name an entry that the user brings, its options
            are there, too.

    Raises:
        InputError: What the user brings cannot be used, or has an option of a name that is taken.
    """
    return _all_options(tuple(brought(values)))


def brought(values: Mapping[str, Any]) -> Iterator[type[Entry]]:
    """The entries among these options' choices that the user brings.

    Raises:
        InputError: One of them cannot be used.
    """
    for group in GROUPS.values():
        if group.registry is None or group.chosen_by is None:
            continue
        name = values.get(group.chosen_by)
        if isinstance(name, str) and name not in entries(group.registry) and is_reference(name):
            yield entry(group.registry, name)


@cache
def _all_options(own: tuple[type[Entry], ...]) -> Mapping[str, Field]:
    by_name: dict[str, Field] = {}
    for group in GROUPS.values():
        owners = [group.options]
        owners += entries(group.registry).values() if group.registry is not None else []
        for field in (field for owner in owners for field in options_of(owner)):
            if by_name.setdefault(field.name, field) is not field:
                raise TypeError(f"there are two options --{field.name}: inherit one, or rename it")
    for kind in own:
        for field in options_of(kind):
            if by_name.setdefault(field.name, field) is not field:
                raise InputError(
                    f"--{kind.chosen_by}={kind.name} has a parameter {field.name}, and there is an "
                    f"option --{field.name} already: rename it"
                )
    return MappingProxyType(by_name)


def defaults(values: Mapping[str, Any] = MappingProxyType({})) -> Mapping[str, Any]:
    """The default of each of :func:`all_options`, as JSON has it."""
    return _defaults(tuple(brought(values)))


@cache
def _defaults(own: tuple[type[Entry], ...]) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            name: field.metadata["range"].to_plain(field.default)
            for name, field in _all_options(own).items()
        }
    )


# What these say of a run, it may say otherwise when it is continued: the results are the same. (With
# another number of threads they differ by rounding, and a warning says so.)
OF_THE_PROCESS = (
    "config", "out_dir", "overwrite", "resume", "eval", "compare", "label", "report", "export",
    "to", "format", "dry_run", "loglevel_info", "pause_after", "sweep", "workers", "scheduler",
    "slurm", "lsf", "pbs", "retest", "retry_failed",
)  # fmt: skip
# A run that was paused, or is a point of a sweep, leaves what one without that does.
_UNRECORDED = (
    "pause_after", "sweep", "workers", "scheduler", "slurm", "lsf", "pbs", "retest", "retry_failed",
)  # fmt: skip
_WITHOUT_EFFECT = (
    *OF_THE_PROCESS, "data_dir", "ckpt_iter", "keep_weights", "num_threads", "plot_format",
)  # fmt: skip


def bearing_on_results(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's options on which its results depend."""
    return {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT}


def differing(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Which options that bear on the results differ: ``--lr (0.1 there, 0.2 here)`` each.

    Options that one of the two does not know, being of another version, count with their default.
    Those of entries that the given ones do not choose count for nothing.

    Args:
        given: As :attr:`Options.recorded` has them.
    """
    known, preset = all_options(given), defaults(given)

    def normal(values: Mapping[str, Any], name: str) -> Any:
        value = values.get(name, preset.get(name))
        return known[name].metadata["range"].normal(value) if name in known else value

    return [
        f"--{name} ({as_argument(there)} there, {as_argument(here)} here)"
        for name in [*given, *(name for name in stored if name not in known)]
        if name not in _WITHOUT_EFFECT
        and (there := normal(stored, name)) != (here := normal(given, name))
    ]


def require_same(path: object, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was begun with other options.

    Args:
        path: Of what belongs to that run.

    Raises:
        InputError: An option that bears on the results differs.
    """
    if differences := differing(stored, given):
        mend = "choose another --out_dir, or replace that run with --overwrite"
        if given.get("resume"):
            mend = (
                "--resume continues a run with its own: leave out what differs, or choose another "
                "--out_dir without --resume"
            )
        raise InputError(
            f"{path} belongs to a run with other options: {', '.join(differences)}; {mend}"
        )


def require_known(path: object, stored: Mapping[str, Any]) -> None:
    """Refuse stored options that are none, or have values that they may not have.

    Args:
        path: Of the file that has them.

    Raises:
        InputError: There is such an option; a later version may know it.
    """
    mend = "take the version of the program that began the run"
    try:
        known = all_options(stored).keys()
    except NotThere as error:
        raise NotThere(
            f"{error} (as {path} has it: put it back, or go where the run began)"
        ) from None
    if unknown := sorted(stored.keys() - known):
        raise InputError(f"{path} has options that are not known: {', '.join(unknown)}; {mend}")
    try:
        Options.of(stored)
    except InputError as error:
        raise InputError(f"{path} has an option that cannot be ({error}): {mend}") from None
