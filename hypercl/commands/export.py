"""--export: the main networks of a finished run in files that other programs read."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hypercl.errors import InputError
from hypercl.options import Options, RunOptions, bearing_on_results
from hypercl.report.screen import Screen
from hypercl.rundir.stored import is_run_dir, read_finished
from hypercl.whole import replace_file

if TYPE_CHECKING:
    from hypercl.learned import Run
    from hypercl.networks.task_net import TaskNet

# torch takes seconds to import: what is refused is refused before that.

INDEX = "export.json"
_GENERATOR = "hypercl, run.py --export"
_VERSION = 1  # of what export.json holds
_ONNX_INPUT, _ONNX_OUTPUT = "images", "logits"


class Format(NamedTuple):
    """A kind of file."""

    packages: tuple[str, ...]  # that are needed to write it
    write: "Callable[[TaskNet, Mapping[str, str]], bytes]"  # a network, and what is said of it


def require_export(options: RunOptions) -> None:
    """Refuse an export that cannot be; imports no torch.

    Raises:
        InputError: The run is not finished or damaged, a package is missing, or ``--to`` is a file,
            lies in a run directory, or has files that are no export's.
    """
    assert options.export is not None
    assert options.to is not None
    missing = [name for name in FORMATS[options.format].packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--format={options.format} needs {' and '.join(missing)}, which is not installed: "
            f"python -m pip install {' '.join(missing)}"
        )
    read_finished(Path(options.export))
    _earlier_files(Path(options.to))


def export(options: Options) -> dict[str, Any]:
    """Write every task's network of every seed, and an index of the files.

    An earlier export's files are replaced, each as a whole. The index says "running" until all
    files are there.

    Returns:
        What export.json holds.

    Raises:
        InputError: The run or the directory cannot be used.
        RunFailed: A file cannot be written.
    """
    from hypercl.learned import load

    assert options.run.export is not None
    assert options.run.to is not None
    path, folder = Path(options.run.export), Path(options.run.to)
    data_dir = options.task.data_dir if options.is_changed("data_dir") else None
    before = _earlier_files(folder)

    def on_cpu(stored: Mapping[str, Any]) -> Options:
        given = {} if data_dir is None else {"data_dir": data_dir}
        return Options.of(stored).having(no_cuda=True, **given)

    run = load(path, on_cpu)
    entries = [_describe(run, task, seed) for seed in run.params for task in range(run.num_tasks)]
    for entry in entries:
        entry["file"] += f".{options.run.format}"
    names = [entry["file"] for entry in entries]
    index = {
        "generator": _GENERATOR,
        "version": _VERSION,
        "status": "running",
        "format": options.run.format,
        **_describe_run(run),
        "options": _decisive(run),
        "files": entries,
    }
    screen = Screen(lambda line: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(folder, error) from None
    # Until the end, also the files of an earlier export are this one's, to be removed.
    stale = [name for name in before if name not in names]
    _write_index(folder, {**index, "files": entries + [{"file": name} for name in stale]})
    write = FORMATS[options.run.format].write
    for entry in entries:
        screen.say(f"writing {folder / entry['file']}")
        net = run.main_net(entry["task"], entry["seed"])
        about = _as_strings({**_describe_run(run), **entry})
        content = write(net, about)
        replace_file(folder / entry["file"], content)
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    for name in stale:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    index["status"] = "finished"
    _write_index(folder, index)
    screen.say(f"all is in {folder}; {INDEX} there says what is what")
    return index


def _describe_run(run: "Run") -> dict[str, Any]:
    """What is the same for all networks."""
    task, options = run.tasks[0], run.experiment.options
    decisive = json.dumps(_decisive(run), sort_keys=True)
    return {
        "method": options.method.method,
        "net_type": options.main_net.net_type,
        "scenario": options.scenario,
        "options_sha256": hashlib.sha256(decisive.encode()).hexdigest(),
        **({"task_type": "regression"} if task.is_regression else {}),
        "image_layout": "number, height, width, channels",
        "image_shape": list(task.in_shape),
        "image_type": str(task.train.images.dtype).removeprefix("torch."),
    }


def _decisive(run: "Run") -> dict[str, Any]:
    """The options on which the networks depend."""
    return bearing_on_results(run.experiment.options.recorded)


def _describe(run: "Run", task: int, seed: int) -> dict[str, Any]:
    """One network; "file" is still without the format."""
    of_task = run.tasks[task]
    classes = [] if of_task.is_regression else run.classes(task)
    first = of_task.outputs.start or 0
    number = of_task.num_classes if of_task.is_regression else len(classes)
    return {
        "file": f"task_{task + 1:02d}_seed_{seed}",
        "task": task,
        "task_name": run.tasks[task].name,
        "seed": seed,
        "classes": classes,
        "outputs": [first, first + number],
    }


def _as_strings(about: Mapping[str, Any]) -> dict[str, str]:
    """What both formats can hold beside tensors: texts as they are, everything else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in about.items()
        if name != "file"
    }


def _as_safetensors(net: "TaskNet", about: Mapping[str, str]) -> bytes:
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    data = save(state, metadata=dict(about))
    # The metadata are in an order that differs from process to process: write the header again.
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + data[start:]


def _as_onnx(net: "TaskNet", about: Mapping[str, str]) -> bytes:
    """With any number of images; the type of their numbers is the data set's."""
    import torch

    wanted = getattr(torch, about["image_type"])
    images = torch.zeros(4, *json.loads(about["image_shape"]), dtype=wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own code
        program = torch.onnx.export(
            net,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("number")},),
            input_names=[_ONNX_INPUT],
            output_names=[_ONNX_OUTPUT],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(about)
    return program.model_proto.SerializeToString()


FORMATS = {
    "safetensors": Format(("safetensors",), _as_safetensors),
    "onnx": Format(("onnx", "onnxscript"), _as_onnx),
}


def _earlier_files(folder: Path) -> list[str]:
    """The files of an earlier export; none where the directory is new or empty.

    Raises:
        InputError: It is no directory, holds something else, or lies in a run directory.
    """
    try:
        for place in (folder.absolute(), *folder.absolute().parents):
            if place.is_dir() and is_run_dir(place):
                raise InputError(
                    f"--to={folder} lies in {place}, which is a run directory: choose another"
                )
        if not folder.exists():
            return []
        if not folder.is_dir():
            raise InputError(f"--to={folder} is a file: choose a directory")
        part = f".{INDEX}.part"  # an export was killed as it began
        there = sorted(path.name for path in folder.iterdir() if path.name != part)
        index = _read_index(folder)
    except OSError as error:
        raise _refusal(folder, error) from None
    if index is None:
        if there:
            raise InputError(
                f"--to={folder} has {there[0]} and is no export: choose a new directory"
            )
        return []
    return index


def _read_index(folder: Path) -> list[str] | None:
    """The names of an export's files; None where there is no export."""
    try:
        content = json.loads((folder / INDEX).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("generator") != _GENERATOR:
        return None
    files = content.get("files")
    names = [f.get("file") for f in files if isinstance(f, dict)] if isinstance(files, list) else []
    return [n for n in names if isinstance(n, str) and Path(n).name == n and n != INDEX]


def _write_index(folder: Path, content: Mapping[str, Any]) -> None:
    replace_file(folder / INDEX, (json.dumps(content, indent=2) + "\n").encode())


def _refusal(folder: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(f"--to={folder} cannot be used ({reason}): choose another directory")
