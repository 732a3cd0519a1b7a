"""What the text of a setting may be: types, each with the words that say what is allowed.

A type is annotated with `Allowed`: the words and, where the plain type admits too much, a test.
`parse` turns text into a value of such a type with one cattrs hook a type. A hook raises
`ValueError` for a text that it does not take, and the caller says so in the words of the type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import attrs
import cattrs
import msgspec

from voxtral_actors.limits import MAX_QUOTED_CHARS
from voxtral_actors.secret import Secret


@attrs.frozen
class Allowed:
    """What is allowed, in words that follow "allowed:", and the test that goes beyond the type."""

    words: str
    holds: Callable[[Any], bool] = lambda _: True


def at_least(low: float, kind: str = "a number") -> Allowed:
    return Allowed(f"{kind}, {low:g} or more", lambda value: value >= low)


def between(low: float, high: float, kind: str = "a number") -> Allowed:
    return Allowed(f"{kind} from {low:g} to {high:.10g}", lambda value: low <= value <= high)


_ORIGIN = re.compile(
    r"\* | [a-z][a-z0-9+.-]* :// (?: \[[0-9a-f:.]+\] | [^\s*/:?\#@\[\]]+ ) (?: :[0-9]{1,5} )?",
    re.VERBOSE,
)

# A line break or an escape sequence in a name or key is an accident of quoting.
Text: TypeAlias = Annotated[str, Allowed("a text of printable characters", str.isprintable)]
Address: TypeAlias = Annotated[
    str,
    Allowed(
        "an address that begins with http:// or https://",
        lambda text: re.fullmatch(r"https?://[!-~]+", text) is not None,
    ),
]
Flag: TypeAlias = Annotated[bool, Allowed("true or false")]
Key: TypeAlias = Annotated[Secret, Allowed("a text of printable ASCII characters")]
Keys: TypeAlias = Annotated[
    tuple[Secret, ...],
    Allowed("one key or several, separated by commas, none of them empty, in printable ASCII"),
]
Origins: TypeAlias = Annotated[
    tuple[str, ...],
    Allowed(
        "origins as scheme://host or scheme://host:port, or *, separated by commas",
        lambda items: all(map(_ORIGIN.fullmatch, items)),
    ),
]
JsonObject: TypeAlias = Annotated[dict[str, Any], Allowed("a JSON object")]
Count: TypeAlias = Annotated[int, at_least(1, "a whole number")]
CountOrOff: TypeAlias = Annotated[int, at_least(0, "a whole number")]
Port: TypeAlias = Annotated[int, between(0, 65535, "a whole number")]
Seconds: TypeAlias = Annotated[float, at_least(0.001, "a number of seconds")]
LongSeconds: TypeAlias = Annotated[float, at_least(1, "a number of seconds")]
SecondsOrOff: TypeAlias = Annotated[float, at_least(0, "a number of seconds")]
SegmentSeconds: TypeAlias = Annotated[
    float, Allowed("0, or a number of seconds, 5 or more", lambda value: value == 0 or value >= 5)
]
MuteSeconds: TypeAlias = Annotated[
    float,
    Allowed("0, or a number of seconds from 2 to 30", lambda value: value == 0 or 2 <= value <= 30),
]
Delay: TypeAlias = Annotated[
    int,
    Allowed("a multiple of 80 from 80 to 2400", lambda ms: 80 <= ms <= 2400 and ms % 80 == 0),
]


def words(kind: Any) -> str:
    """What a setting of this type allows."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    for note in getattr(kind, "__metadata__", ()):
        if isinstance(note, Allowed):
            return note.words
    # `Key | None`: that it may be left out needs no words, it has a default.
    return words(next(arg for arg in get_args(kind) if arg is not type(None)))


def parse(text: str, kind: Any) -> Any:
    """The value that `text` stands for.

    Raises:
        ValueError: it stands for none of this type.
    """
    return _converter.structure(text, kind)


def _is_checked(kind: Any) -> bool:
    return any(isinstance(note, Allowed) for note in getattr(kind, "__metadata__", ()))


def _checked(text: str, kind: Any) -> Any:
    """The value of the plain type under the annotation, if every test on it holds."""
    value = _converter.structure(text, kind.__origin__)
    if all(note.holds(value) for note in kind.__metadata__ if isinstance(note, Allowed)):
        return value
    raise ValueError


def _to_float(text: str, _: Any) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError


def _to_bool(text: str, _: Any) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError


def _to_secret(text: str, _: Any) -> Secret:
    if text and text.isascii() and text.isprintable():  # headers carry nothing else safely
        return Secret(text)
    raise ValueError


def _to_choice(text: str, kind: Any) -> str:
    if (choice := text.lower()) in get_args(kind):
        return choice
    raise ValueError


def _to_tuple(text: str, kind: Any) -> tuple[Any, ...]:
    items = [item.strip() for item in text.split(",")]
    if all(items):
        return tuple(_converter.structure(item, get_args(kind)[0]) for item in items)
    raise ValueError


def _made_of(origin: Any) -> Callable[[Any], bool]:
    """Predicate: a type such as `Literal[…]` or `dict[…]`, by what stands before the bracket."""
    return lambda kind: get_origin(kind) is origin


_converter = cattrs.Converter()
_converter.register_structure_hook(str, lambda text, _: text)
_converter.register_structure_hook(int, lambda text, _: int(text))
_converter.register_structure_hook(float, _to_float)
_converter.register_structure_hook(bool, _to_bool)
_converter.register_structure_hook(Secret, _to_secret)
_converter.register_structure_hook_func(_made_of(Literal), _to_choice)
_converter.register_structure_hook_func(_made_of(tuple), _to_tuple)
_converter.register_structure_hook_func(
    _made_of(dict), lambda text, kind: msgspec.json.decode(text, type=kind)
)
_converter.register_structure_hook_func(_is_checked, _checked)


def quote(text: str, kind: Any) -> str:
    """A wrong value as its fault shows it."""
    if "Secret" in str(kind):
        return "a value that is not shown"
    return repr(text if len(text) <= MAX_QUOTED_CHARS else text[:MAX_QUOTED_CHARS] + "…")


def find_engine(name: str) -> EntryPoint:
    """Where the engine of this name is installed.

    Raises:
        ValueError: nowhere; the message is the fault of VOXTRAL_ENGINE.
    """
    installed = {entry.name: entry for entry in entry_points(group="voxtral_actors.engines")}
    if name not in installed:
        allowed = f"one of the engines installed here: {', '.join(sorted(installed))}"
        raise ValueError(f"VOXTRAL_ENGINE is {quote(name, str)}; allowed: {allowed}.")
    return installed[name]
