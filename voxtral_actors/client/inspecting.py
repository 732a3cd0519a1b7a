"""What a server tells of itself at `/debug/actors`, asked for over HTTP beside its WebSocket.

The answer is taken apart by type: what is missing or of another kind makes it no answer of this
server, what is new in a later version is ignored.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Final

import attrs
import msgspec
import trio

from voxtral_actors.client import limits
from voxtral_actors.client.errors import ConnectFailed, ConnectionRefused
from voxtral_actors.client.stream import Address, plain_reason
from voxtral_actors.protocol.closing import Close

_OK: Final = 200
_UNAUTHORISED: Final = 401
_BUSY: Final = 503


@attrs.frozen
class Process:
    tasks: int
    threads: int
    open_files: int | None
    loop_lag_s: float


@attrs.frozen
class Engine:
    state: str
    name: str
    model: str | None
    generation: int
    slots: int
    slots_taken: int
    slots_leaving: int
    deaths: int
    backlog_s: float


@attrs.frozen
class Queue:
    waiting: int
    size: int


@attrs.frozen
class Spoken:
    """An utterance."""

    request_id: str
    state: str


@attrs.frozen
class Connection:
    """One that is still being opened has the first four only."""

    id: str
    peer: str
    age_s: float
    state: str
    lag_s: float = 0.0
    stuck: list[str] = attrs.field(factory=list)
    queues: dict[str, Queue] = attrs.field(factory=dict)
    utterances: list[Spoken] = attrs.field(factory=list)


@attrs.frozen
class Connections:
    """`shown` are the first ones, in the order of their trouble."""

    open: int
    limit: int
    worst_lag_s: float
    shown: list[Connection]


@attrs.frozen
class Live:
    """A moment of a server."""

    status: str
    process: Process
    engine: Engine
    connections: Connections


async def ask(url: str, api_key: str | None, rows: int) -> Live:
    """Ask the server whose WebSocket is at `url` for `rows` of its connections.

    Raises:
        ConnectFailed: there is none, or it gave no such answer.
        ConnectionRefused: the key is missing or wrong.
    """
    address = Address.parse(url)
    path = f"{address.resource.partition('?')[0].rpartition('/')[0]}/debug/actors"
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    status, body = await trio.to_thread.run_sync(
        _get, address, f"{path}?limit={rows}", headers, abandon_on_cancel=True
    )
    if status == _UNAUTHORISED:
        spec = Close.BAD_KEY.spec
        raise ConnectionRefused(spec.slug, spec.meaning, spec.code)
    shown = address.shown.removesuffix(address.resource.partition("?")[0]) + path
    if status != _OK:
        problem = f"{shown} is answered with {status}"
        raise ConnectFailed(problem, retry=status == _BUSY, status=status)
    try:
        return msgspec.json.decode(body, type=Live)
    except msgspec.DecodeError as error:
        problem = f"{shown} is not answered as this server does: {error}"
        raise ConnectFailed(problem, retry=False, status=status) from None


def _get(address: Address, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """In a thread: one request, bounded in time and size."""
    where, patience = (address.host, address.port), limits.ASK_S
    line = http.client.HTTPConnection(*where, timeout=patience)
    if address.tls:
        context = ssl.create_default_context()
        line = http.client.HTTPSConnection(*where, timeout=patience, context=context)
    try:
        line.request("GET", target, headers=dict(headers))
        answer = line.getresponse()
        return answer.status, answer.read(limits.MAX_MESSAGE_BYTES)
    except ssl.SSLError as error:
        raise ConnectFailed(f"no TLS with {address.shown}: {error}", retry=False) from None
    except OSError as error:
        raise ConnectFailed(f"cannot reach {address.shown}: {plain_reason(error)}") from None
    except http.client.HTTPException as error:
        problem = f"{address.shown} does not speak HTTP: {type(error).__name__}"
        raise ConnectFailed(problem, retry=False) from None
    finally:
        line.close()
