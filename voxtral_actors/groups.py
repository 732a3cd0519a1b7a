"""Looking into exception groups: nurseries nest them, and their reader wants the errors inside."""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def leaves(error: E | BaseExceptionGroup[E]) -> list[E]:
    """The errors inside nested groups, in order; a bare error is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def describe(error: BaseException) -> str:
    """The leaves in one line, each with its type."""
    return "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves(error))
