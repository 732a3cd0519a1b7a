"""Logging for the whole process: one line an event on stderr, for people or as JSON.

structlog events and records of the standard library (Hypercorn, Quart) go through the same
processors and one handler. Secrets are kept out in three ways, because a log line can be built by
code that is not ours: values under telling names are masked, texts that carry a key in a known form
(`api_key=…`, an authorization header, the WebSocket subprotocol) are cut, and the server's own keys
are masked wherever they turn up in a finished line, tracebacks included.

Times are ISO 8601 in UTC. An event's text has no control characters, so nothing that a client sent
can forge a line or move a terminal's cursor.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Literal
from urllib.parse import quote

import structlog

from voxtral_actors.limits import MIN_MASKED_SECRET_CHARS
from voxtral_actors.secret import Secret

MASK = "********"

# `max_tokens` and `prompt_tokens` are counts and stay: a telling name ends in one of these words.
_TELLING_NAME = re.compile(
    r"(^|[^a-z])(api_?keys?|keys?|token|secrets?|passwords?|authorization)$", re.IGNORECASE
)
_KNOWN_FORMS = re.compile(
    r"""(?P<lead>
          api_?key(?:=|%3D)                               # the query of a URL, or key=value
        | voxtral-api-key\.                               # the WebSocket subprotocol
        | (?:x-api-key|authorization)(?:\\*["']\s*[:,]|\s*[:=])\s*(?:b?\\*["'])?  # a header
          (?:Bearer\s+|Basic\s+)?
        | \bBearer\s+
        )
        (?P<secret>[^\s&\#"',;\\]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(
    level: str, form: Literal["text", "json"] = "text", secrets: Iterable[Secret] = ()
) -> None:
    """Send the logs of this process to stderr; a second call replaces the first.

    `secrets` are masked verbatim wherever they appear.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(form),
            _Masker(secrets),
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: mask what stands under a telling name, escape control characters of the text."""
    # structlog keeps its own objects under names with a leading underscore.
    masked = {
        name: value if name.startswith("_") else _masked(name, value)
        for name, value in event.items()
    }
    masked["event"] = _CONTROL.sub(_escape, str(event.get("event", "")))
    return masked


def _masked(name: object, value: Any) -> Any:
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if isinstance(name, str) and _TELLING_NAME.search(name):
        return MASK
    match value:
        case Mapping():
            return {key: _masked(key, item) for key, item in value.items()}
        case (str() | bytes() as key, item):  # a header
            return (key, _masked(key, item))
        case list() | tuple():
            return [_masked(None, item) for item in value]
        case _:
            return value


def _escape(found: re.Match[str]) -> str:
    return ascii(found.group())[1:-1]


def _renderers(form: str) -> list[structlog.typing.Processor]:
    if form == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    # No rich tracebacks: they print local variables, and those hold keys and audio.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,
            repr_native_str=True,
        )
    ]


class _Masker:
    """Last processor: masks secrets in the finished line."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        texts = [secret.reveal() for secret in secrets]
        # A very short key would mask ordinary words; the known forms still cover it.
        texts = [text for text in texts if len(text) >= MIN_MASKED_SECRET_CHARS]
        # As it is, and as URLs, JSON and Python's repr write it.
        forms = {
            form
            for text in texts
            for form in (text, quote(text, safe=""), json.dumps(text)[1:-1], repr(text)[1:-1])
        }
        # The longest first, so that no rest of a key stays behind the mask of a shorter one.
        alternatives = map(re.escape, sorted(forms, key=len, reverse=True))
        self._secrets = re.compile("|".join(alternatives)) if texts else None

    def __call__(self, _: Any, __: str, line: Any) -> str:
        text = str(line)
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return _KNOWN_FORMS.sub(rf"\g<lead>{MASK}", text)
