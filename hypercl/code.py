"""Code that the user brings: a class or a function, named as ``path/to/my.py:Name`` or
``package.module:Name``.

Naming a file runs it, once for each content that it has. A parameter of the class or function that
has a default is an option of the run, by the same name.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
import types
import typing
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hypercl.errors import InputError, NotThere, RunFailed, typed_reason
from hypercl.ranges import (
    Range,
    any_int,
    as_argument,
    finite,
    int_list,
    one_of,
    option,
    or_unset,
    switch,
    text,
)
from hypercl.registry import Entry, require_options
from hypercl.shell import importing, is_out_of_memory

E = TypeVar("E", bound=Entry)


class CodeFile(NamedTuple):
    """A file of the user's."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()


class Code(NamedTuple):
    """What a reference names."""

    what: Callable[..., Any]
    file: CodeFile | None  # None for what is installed


def load(reference: str) -> Code:
    """Import what a reference names.

    A file is run as a module of its own, with its folder behind all others on Python's path.

    Raises:
        InputError: There is no such file, module or name, it cannot be called, or the code raises;
            the message has the error and its line.
    """
    where, _, name = reference.rpartition(":")
    if not where or not name.isidentifier():
        raise InputError(f"{reference} does not name anything in a file: give path/to/my.py:Name")
    file: CodeFile | None
    if where.endswith(".py"):
        file = read_file(Path(os.path.expanduser(where)))
        module = _run(file)
    else:
        module = _import(where)
        file = _own_file(module)
    what = getattr(module, name, None)
    if not callable(what):
        problem = "is no class and no function" if hasattr(module, name) else "does not exist"
        there = ", ".join(_public(module)) or "nothing"
        raise InputError(f"{reference} {problem}: {where} has {there}")
    return Code(what, file)


def read_file(path: Path) -> CodeFile:
    """A file of code.

    Raises:
        InputError: It cannot be read; NotThere, where it does not exist.
    """
    try:
        return CodeFile(path, path.read_bytes())
    except FileNotFoundError:
        raise NotThere(f"{path} does not exist: give the file's path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable") from None


def entry_of(base: type[E], reference: str, code: Code, given: Collection[str]) -> type[E]:
    """An entry whose options are the parameters of a class or function.

    An instance's ``arguments()`` are these options, by the names of the parameters.

    Args:
        base: What the entry is a kind of.
        given: The parameters that are handed over whatever the options.

    Raises:
        InputError: A parameter can be no option, or has no default.
    """
    parameters = list(_parameters(reference, code.what, given))
    for parameter in parameters:
        if parameter.name in _NO_OPTIONS or hasattr(base, parameter.name):
            raise InputError(
                f"{reference}: its parameter {parameter.name} has a name that cannot be an "
                "option's: rename it"
            )
    described = _described(code.what)
    fields = []
    for parameter in parameters:
        allowed = _range_of(parameter, _annotation(code.what, parameter))
        if allowed is None:
            continue
        help_text = described.get(parameter.name, f"parameter of {reference}")
        help_text = help_text.replace("%", "%%")  # argparse fills in what it has behind one
        default = parameter.default
        if isinstance(default, list):
            default = tuple(default)
        fields.append((parameter.name, Any, option(default, allowed, help_text)))
    lists = {p.name for p in parameters if isinstance(p.default, list)}

    def arguments(self: Entry) -> dict[str, Any]:
        values = {name: getattr(self, name) for name, _, _ in fields}
        return {n: list(v) if n in lists and v is not None else v for n, v in values.items()}

    namespace = {"arguments": arguments, "code": code, "__doc__": inspect.getdoc(code.what)}
    made = make_dataclass("Brought", fields, bases=(base,), frozen=True, namespace=namespace)
    made.__module__, made.__qualname__ = base.__module__, f"{base.__qualname__} of {reference}"
    return made


def own_entry(base: type[E], reference: str, code: Code) -> type[E] | None:
    """What a reference names, where that is an entry itself; None where it is something else.

    Raises:
        InputError: Its fields are not all options.
    """
    what = code.what
    if not (inspect.isclass(what) and issubclass(what, base)):
        return None
    try:
        require_options(what)
    except TypeError as error:
        raise InputError(f"{reference}: {error}") from None
    what.code = code  # type: ignore[attr-defined]
    return what


@contextmanager
def calling(code: Code, reference: str) -> Iterator[None]:
    """A context in which the user's code is called: what it raises is said in one line.

    Raises:
        InputError: It raises anything but this.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{reference} fails ({described_error(error, code)}): mend it") from error


@contextmanager
def within_run(kinds: Iterable[Entry]) -> Iterator[None]:
    """A context in which a run uses a network and a method: where these are the user's, whatever is
    raised is said in one line, with the user's line that it came through, or else with ours.

    Raises:
        RunFailed: Something is raised that is no planned end.
    """
    own = [kind for kind in kinds if getattr(kind, "code", None) is not None]
    try:
        yield
    except (InputError, RunFailed):
        raise
    except (Exception, SystemExit) as error:
        if not own or (isinstance(error, Exception) and is_out_of_memory(error)):
            raise
        for kind in own:
            if _own_lines(error, kind.code):  # type: ignore[attr-defined]
                said = described_error(error, kind.code)  # type: ignore[attr-defined]
                raise RunFailed(f"{_named(kind)} fails ({said}): mend it") from error
        names = " or ".join(map(_named, own))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{typed_reason(error)}, {os.path.basename(frame.filename)}:{frame.lineno}"
        raise RunFailed(f"what {names} gives cannot be used ({said}): mend it") from error


def _named(kind: Entry) -> str:
    return f"--{kind.chosen_by}={kind.name}"


def described_error(error: BaseException, code: Code | CodeFile) -> str:
    """What an error in the user's code says, in one line: its type, message, and the last line of
    the user's file that it came through.
    """
    if isinstance(error, SyntaxError):  # it has a line of its own, and none that was run
        return f"{type(error).__name__}: {error.msg}, line {error.lineno}"
    own = _own_lines(error, code)
    return f"{typed_reason(error)}, line {own[-1]}" if own else typed_reason(error)


def _own_lines(error: BaseException, code: Code | CodeFile) -> list[int]:
    """The lines of the user's file that an error came through."""
    file = code if isinstance(code, CodeFile) else code.file
    path = None if file is None else os.path.realpath(file.path)
    frames = traceback.extract_tb(error.__traceback__)
    return [f.lineno or 0 for f in frames if os.path.realpath(f.filename) == path]


def source_of(reference: str) -> CodeFile | None:
    """The file of the user's in which a reference names something; None where there is none.

    Raises:
        InputError: It cannot be read or imported.
    """
    where = reference.rpartition(":")[0]
    if where.endswith(".py"):
        return read_file(Path(os.path.expanduser(where)))
    return _own_file(_import(where))


def look_in(folder: str) -> None:
    """Let what the user's code imports be found in a folder, too."""
    if folder not in sys.path:
        sys.path.append(folder)


_modules: dict[tuple[str, str], types.ModuleType] = {}  # by path and content


def _run(file: CodeFile) -> types.ModuleType:
    path = os.path.realpath(file.path)
    key = (path, file.sha256)
    if key in _modules:
        return _modules[key]
    name = f"hypercl_brought_{file.sha256[:16]}_{len(_modules)}"
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # where dataclasses and pickle look for it
    look_in(os.path.dirname(path))
    try:
        with importing():
            exec(compile(file.content, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(
            f"{file.path} cannot be run ({described_error(error, file)}): mend it"
        ) from error
    _modules[key] = module
    return module


def _import(name: str) -> types.ModuleType:
    try:
        with importing():
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise InputError(
                f"there is no module {missing}: install it, or give path/to/my.py:Name"
            ) from None
        said = typed_reason(error)
        raise InputError(f"{name} cannot be imported ({said}): mend it") from error


def _own_file(module: types.ModuleType) -> CodeFile | None:
    """The file of a module that is not installed."""
    source = getattr(module, "__file__", None)
    if source is None or not source.endswith(".py"):
        return None
    path = os.path.realpath(source)
    paths = sysconfig.get_paths()
    installed = {os.path.realpath(paths[kind]) for kind in ("stdlib", "purelib", "platlib")}
    if any(path.startswith(f"{folder}{os.sep}") for folder in installed):
        return None
    return read_file(Path(source))


def _public(module: types.ModuleType) -> list[str]:
    """What a reference could have named: at most ten classes and functions of the module itself."""
    named = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    return named[:10]


def _parameters(
    reference: str, what: Callable[..., Any], given: Collection[str]
) -> Iterator[inspect.Parameter]:
    """Those that can be options."""
    try:
        signature = inspect.signature(what)
    except (TypeError, ValueError):
        return
    for parameter in signature.parameters.values():
        if parameter.name in given or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        if parameter.default is inspect.Parameter.empty:
            raise InputError(
                f"{reference}: its parameter {parameter.name} has no default, and only "
                f"{' and '.join(given) or 'nothing'} can be handed over: give it one"
            )
        if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            yield parameter


def _annotation(what: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """A parameter's type; what is written as a string is looked up."""
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    function = what.__init__ if inspect.isclass(what) else what
    try:
        return typing.get_type_hints(function).get(parameter.name, parameter.annotation)
    except Exception:  # it names what is not there
        return parameter.annotation


def _range_of(parameter: inspect.Parameter, annotation: Any) -> Range | None:
    """The values that a parameter may have; None where the command line cannot have them."""
    default = parameter.default
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        if default in choices and all(isinstance(choice, str) for choice in choices):
            return one_of(*choices)
    for kind, allowed in _RANGES.items():
        if type(default) is kind:
            return allowed if _takes(allowed, default) else None
    if isinstance(default, tuple | list):
        numbers = [type(item) is int and item > 0 for item in default]
        return int_list() if all(numbers) else None
    if default is None:
        kinds = {k for k in typing.get_args(annotation) if k is not type(None)}
        if len(kinds) == 1 and (kind := kinds.pop()) in (int, float):
            return or_unset(_RANGES[kind])
    return None


def _takes(allowed: Range, default: Any) -> bool:
    """Whether an option may have a default, like no infinite one."""
    try:
        allowed.read(as_argument(default))
    except ArgumentTypeError:
        return False
    return True


_NO_OPTIONS = ("help", "list_presets", "code")  # the command line's own, and an entry's
_RANGES: Mapping[type, Range] = {bool: switch, int: any_int, float: finite, str: text("TEXT")}


def _described(what: Callable[..., Any]) -> dict[str, str]:
    """What docstrings say of parameters, in lines like ``name: what it is.``"""
    documented = [what, what.__init__] if inspect.isclass(what) else [what]
    found = {}
    for part in documented:
        for line in (inspect.getdoc(part) or "").splitlines():
            if match := re.fullmatch(r"\s*(\w+)(?: \([^)]*\))?: (.+?)\.?", line):
                found[match[1]] = match[2]
    return found
