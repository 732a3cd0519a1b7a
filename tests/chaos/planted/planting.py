"""A planted bug: a named edit of a line or two of the server, and how to run the server with it.

The edit is of source text, so a bug reads like the diff that would bring it, and one whose line has
changed is found at once: the text must stand exactly once in the function that it names. The edited
module is compiled, and the function gets the new code in place of its own until the block is left.
Nothing is imported twice, so it does not matter who holds the function under which name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType

import attrs


@attrs.frozen
class Edit:
    """`old` becomes `new` in one function, which is named like `connection.bridge:Bridge.run`."""

    where: str
    old: str
    new: str


class Bug:
    """One planted bug: its name, what is wrong with the server that has it, and the edits.

    `finding` is in the words of a violation that it causes: it must be found for what it is.
    """

    def __init__(self, name: str, sentence: str, *edits: Edit, finding: str) -> None:
        self.name = name
        self.sentence = sentence
        self.edits = edits
        self.finding = finding


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The server has this bug while the block runs."""
    with ExitStack() as stack:
        for edit in bug.edits:
            stack.enter_context(_edited(edit))
        yield


@contextmanager
def _edited(edit: Edit) -> Iterator[None]:
    function = _find(edit.where)
    sound, function.__code__ = function.__code__, _broken(function, edit)
    try:
        yield
    finally:
        function.__code__ = sound


def _find(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: object = import_module(f"voxtral_actors.{module}")
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    found = inspect.unwrap(found)  # type: ignore[arg-type]  # of a context manager
    assert isinstance(found, FunctionType), where
    return found


def _broken(function: FunctionType, edit: Edit) -> CodeType:
    """The code of the function with the edit made."""
    path = function.__code__.co_filename
    block, first = inspect.getsourcelines(function)
    text = "".join(block)
    assert text.count(edit.old) == 1, f"{edit.where} has {edit.old!r} {text.count(edit.old)} times"
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    lines[first - 1 : first - 1 + len(block)] = [text.replace(edit.old, edit.new)]
    module = compile("".join(lines), path, "exec", dont_inherit=True)
    (code,) = (code for code in _codes(module) if code.co_qualname == function.__qualname__)
    return code


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
