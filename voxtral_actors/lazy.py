"""A click group whose commands are imported when they are called, and not for its help.

So `voxtral-actors serve` starts on a machine without the client's libraries, and a command whose
libraries are missing says which extra brings them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import click


@contextmanager
def names_missing(extra: str) -> Iterator[None]:
    """Around imports: a library that is not installed is named, with the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in {"", __package__}:
            raise  # a fault of this package, not of the installation
        raise click.ClickException(
            f"this needs {library}, which is not installed: pip install 'voxtral-actors[{extra}]'"
        ) from error


@attrs.frozen
class Target:
    """Where a command is, and what must be installed for it."""

    attribute: str
    """`package.module:name` of the click command."""
    extra: str
    """The extra of this package that brings what the module imports."""
    summary: str
    """One line for the group's help."""


class LazyCommand(click.Command):
    """Stands in for a command until it is called."""

    def __init__(self, name: str, target: Target) -> None:
        super().__init__(name, short_help=target.summary)
        self._target = target

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        # The context carries the real command, and click goes on with that one.
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> click.Command:
        module, _, attribute = self._target.attribute.partition(":")
        with names_missing(self._target.extra):
            command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - narrows the type
        return command


class LazyGroup(click.Group):
    """A group that takes `Target`s beside its own commands."""

    def __init__(self, *args: Any, lazy: dict[str, Target], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, target in lazy.items():
            self.add_command(LazyCommand(name, target), name)
