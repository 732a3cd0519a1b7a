"""`voxtral-actors top`: a server's sessions, those in most trouble first, drawn again and again.

On a terminal it takes the whole screen until Ctrl-C, and outlasts a server that restarts. With
`--once`, or where stdout is no terminal, it prints one picture and is done.
"""

from __future__ import annotations

import sys

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from voxtral_actors.client.errors import ConnectFailed, ConnectionRefused
from voxtral_actors.client.inspecting import Connection, Live, ask
from voxtral_actors.client.limits import TOP_ROWS
from voxtral_actors.client.running import CANNOT_CONNECT, OK, Interrupts, Server, explain
from voxtral_actors.client.showing import Output, printable

_PLAIN_WIDTH = 80
_HEAD_LINES = 6
_ID_CHARS = len("sess-") + 8
_WARN_LAG_S = 1.0
"""Text that is later than this is late to somebody who reads along."""


async def watch(
    server: Server, interval_s: float, once: bool, out: Output, interrupts: Interrupts
) -> int:
    """Returns the exit status."""
    if once or not sys.stdout.isatty():
        return await _print(server, out)
    console = Console()
    with trio.CancelScope() as scope:
        interrupts.soften = scope.cancel
        return await _draw(server, interval_s, console, out)
    return OK


async def _print(server: Server, out: Output) -> int:
    try:
        live = await ask(server.url, server.api_key, TOP_ROWS)
    except (ConnectFailed, ConnectionRefused) as error:
        out.complain(explain(error, server))
        return CANNOT_CONNECT
    console = Console(width=_PLAIN_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(picture(live))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    out.write("\n".join(lines) + "\n")
    return OK


async def _draw(server: Server, interval_s: float, console: Console, out: Output) -> int:
    """Draw until cancelled. Who was never reached, or says no, ends it."""
    reached = False
    # Drawn from here and not from a thread of rich's: it changes when there is news.
    with Screen(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            shown: RenderableType
            try:
                rows = max(1, min(TOP_ROWS, console.height - _HEAD_LINES))
                shown, reached = picture(await ask(server.url, server.api_key, rows)), True
            except (ConnectFailed, ConnectionRefused) as error:
                if not reached or not error.retry:
                    problem = explain(error, server)
                    break
                shown = Text(printable(f"{error}; trying again"), style="red")
            screen.update(shown, refresh=True)
            await trio.sleep(interval_s)
    out.complain(problem)  # on the screen that was there before
    return CANNOT_CONNECT


_COLUMNS: dict[str, int | None] = {
    "SESSION": _ID_CHARS, "PEER": 21, "AGE": 6, "STATE": 11, "LAG": 6, "QUEUES": 7,
    "UTTERANCE": None,
}  # fmt: skip
"""By width; the last one gets what is left of the line."""
_TO_THE_RIGHT = {"AGE", "LAG", "QUEUES"}


def picture(live: Live) -> Group:
    """Three lines about the server, and a row for each connection."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", expand=True)
    for name, width in _COLUMNS.items():
        table.add_column(
            name,
            width=width,
            ratio=1 if width is None else None,
            justify="right" if name in _TO_THE_RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for connection in live.connections.shown:
        late = connection.lag_s >= _WARN_LAG_S
        style = "red" if connection.stuck else "yellow" if late else ""
        table.add_row(*map(_cell, _row(connection)), style=style)
    return Group(*map(_cell, _head(live)), "", table)


def _row(connection: Connection) -> list[str]:
    state = f"stuck {connection.stuck[0]}" if connection.stuck else connection.state
    names = [utterance.request_id for utterance in connection.utterances]
    return [
        connection.id[:_ID_CHARS],
        connection.peer,
        _duration(connection.age_s),
        state,
        f"{connection.lag_s:.1f}s",
        "/".join(str(queue.waiting) for queue in connection.queues.values()),
        names[-1] + (f" +{len(names) - 1}" if names[1:] else "") if names else "",
    ]


def _cell(text: str) -> Text:
    """Request ids are the clients' own: they must neither steer the terminal nor break a line."""
    return Text(printable(text).replace("\n", " ").replace("\t", " "))


def _head(live: Live) -> list[str]:
    engine, sessions, process = live.engine, live.connections, live.process
    leaving = f" ({engine.slots_leaving} leaving)" if engine.slots_leaving else ""
    files = "" if process.open_files is None else f", files {process.open_files}"
    life = f"life {engine.generation}, deaths {engine.deaths}"
    slots = f"slots {engine.slots_taken}/{engine.slots}{leaving}"
    lag = f"lag {sessions.worst_lag_s:.1f}s, waiting {engine.backlog_s:.1f}s"
    tasks = f"tasks {process.tasks}, threads {process.threads}{files}"
    return [
        f"server {live.status}: engine {engine.name} {engine.state}, {life}",
        f"sessions {sessions.open}/{sessions.limit}, {slots}, {lag}",
        f"loop {process.loop_lag_s * 1000:.1f}ms, {tasks}",
    ]


def _duration(seconds: float) -> str:
    """`7s`, `12m03`, `3h07`: never wider than six characters for a week."""
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}" if hours else f"{minutes}m{rest:02}"
