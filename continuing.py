"""Runs that go on: their checkpoints, written and read, and the options that must be the same."""

import json
import warnings
from dataclasses import fields
from pathlib import Path

from hypercl import rundir
from hypercl.errors import InputError
from train_args import differing_options, parse_args, plain_options

# hypercl.saving imports torch, which what an option is refused for can do without.

# What a checkpoint says of the process that wrote it.
_MADE_BY = ("options", "versions", "device", "git_commit")


def save_checkpoint(run_dir, position, report, described, data: str) -> None:
    """checkpoint.pt: the position, the report's state, and what belongs to them."""
    from hypercl import saving

    content = {
        "format": saving.FORMAT,
        "made_by": json.dumps({name: described[name] for name in _MADE_BY}),
        "data": data,
        **vars(position),
        "report": json.dumps(report.state()),
        "lengths": run_dir.lengths(),
    }
    run_dir.write_checkpoint(saving.encode(content))


def load_checkpoint(args, run_dir, described, data: str):
    """Where the run that lies in the directory is to go on.

    Returns:
        Position, state of the report, lengths of the files that grow; None where nothing has been
        learned yet.

    Raises:
        InputError: The checkpoint is damaged, of another run, or there is none where one should be.
    """
    from hypercl import saving

    if run_dir.config is None:
        return None
    path = run_dir.checkpoints[0]
    content = saving.load_newest(run_dir.checkpoints)
    if content is None:
        if run_dir.results is not None and run_dir.results["summary"]:
            raise InputError(f"{path} is missing: put it there, or start anew with --overwrite")
        return None
    if content.get("format") != saving.FORMAT:
        raise InputError(
            f"{path} is not of this version of the program: continue with the one that began the "
            "run, or start anew with --overwrite"
        )
    made_by = json.loads(content["made_by"])
    require_same_options(path, made_by["options"], args)
    if content["data"] != data:
        raise InputError(
            f"the data are not those with which {run_dir.path} began: give their --data_dir, or "
            "start anew with --overwrite"
        )
    there, here = ({**by, **by["versions"]} for by in (made_by, described))
    for name in (*here["versions"], "device", "git_commit"):
        if there.get(name) != here[name]:
            warnings.warn(
                f"the run was left with {name} {there.get(name)} and goes on with {here[name]}: "
                "it may differ from one without a break",
                stacklevel=2,
            )
    position = saving.Position(**{f.name: content[f.name] for f in fields(saving.Position)})
    return position, json.loads(content["report"]), content["lengths"]


def require_same_options(path, stored, args) -> None:
    """Refuse to go on with a run that was begun with other options."""
    differing = differing_options(stored, plain_options(args))
    if differing:
        raise InputError(
            f"{path} belongs to a run with other options: {', '.join(differing)}; choose another "
            "--out_dir, or replace that run with --overwrite"
        )


def resumed(args, argv: list[str]):
    """The options with which ``--resume`` continues a run: the stored ones, where none is given."""
    path = args.out_dir
    if path is None and (path := rundir.newest_unfinished(Path("out"))) is None:
        raise InputError("--resume finds no unfinished run in ./out: give its --out_dir")
    stored = rundir.read_config(Path(path))["options"]
    return parse_args([*argv, f"--out_dir={path}"], stored)


def describe_position(position, num_tasks: int) -> str:
    """Where a run goes on, in words."""
    if position.group == len(position.groups):
        return "its end"
    step = 0 if position.training is None else position.training["step"]
    group = f" of group {position.group + 1}" if len(position.groups) > 1 else ""
    return f"task {position.task_id + 1}/{num_tasks}{group}, step {step}"
