"""`voxtral-actors drain`: a drain that has the time it needs, asked for by another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import attrs
import trio

from tests.server.server_process import ServerProcess, server_process
from voxtral_actors.protocol.events import Done, Error

SILENCE = bytes(32_000)
SHORT = {"VOXTRAL_DRAIN_TIMEOUT_S": "2", "WS_CLOSE_GRACE_S": "0.5"}


@attrs.define
class Command:
    """`voxtral-actors drain`, run to its end."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    status: int | None = None
    said: str = ""

    async def run(self, *args: str) -> None:
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            [sys.executable, "-m", "voxtral_actors", "drain", *args],
            env={"PATH": os.environ["PATH"]},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        self.status, self.said = done.returncode, (done.stdout + done.stderr).decode()
        self.ended.set()


def pid(server: ServerProcess) -> str:
    return str(server.process.pid)


async def test_p16_a_patient_drain_ends_with_the_last_utterance_however_long_it_is() -> None:
    command = Command()
    with trio.fail_after(30):
        async with (
            server_process(**SHORT) as server,
            server.session() as speaking,
            server.session() as listening,
            trio.open_nursery() as nursery,
        ):
            await speaking.start()
            await speaking.send(SILENCE)
            await speaking.alive()
            nursery.start_soon(command.run, "--pid", pid(server))

            await listening.refused("shutting_down", "shutting_down")
            assert await listening.closed() == (1012, "shutting_down")
            assert (await server.http("/readyz")).status == 503
            async with server.connect() as late:
                await late.refused("shutting_down", "shutting_down")

            await trio.sleep(float(SHORT["VOXTRAL_DRAIN_TIMEOUT_S"]) + 0.5)  # SIGTERM would cut
            assert not command.ended.is_set()
            await speaking.finish_whole(SILENCE, audio_s=2)
            assert isinstance(await speaking.next(), Error)
            assert await speaking.closed() == (1012, "shutting_down")
            assert await server.exit_status() == 0
            await command.ended.wait()
    assert (command.status, command.said) == (0, "")


async def test_p16_sigterm_sets_a_deadline_to_a_patient_drain() -> None:
    command = Command()
    with trio.fail_after(20):
        async with server_process(**SHORT) as server, server.session() as speaking:
            await speaking.start()
            await speaking.send(SILENCE)
            await speaking.alive()
            await command.run("--pid", pid(server), "--within", "0.2")
            assert command.status == 1
            assert command.said == "Error: utterances still run after 0.2 s: the server goes on\n"
            await speaking.alive()

            signalled = trio.current_time()
            server.signal(signal.SIGTERM)
            await speaking.hear_past_deltas(Done)
            assert await server.exit_status() == 0
            assert trio.current_time() - signalled < float(SHORT["VOXTRAL_DRAIN_TIMEOUT_S"])


async def test_p16_a_server_without_sessions_ends_at_once() -> None:
    command = Command()
    with trio.fail_after(20):
        async with server_process() as server:
            await server.said("engine.ready")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command.run, "--pid", pid(server))
                assert await server.exit_status() == 0
    assert command.status == 0


async def test_nobody_is_killed_who_does_not_know_the_signal() -> None:
    command = Command()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            other: trio.Process = await nursery.start(trio.run_process, ["sleep", "60"])
            await command.run("--pid", str(other.pid))
            assert other.poll() is None
            nursery.cancel_scope.cancel()
    assert command.status == 1
    assert "is no server" in command.said


async def test_a_server_that_is_not_there_is_said_so() -> None:
    command = Command()
    with trio.fail_after(20):
        gone = await trio.run_process(
            [sys.executable, "-c", "import os; print(os.getpid())"], capture_stdout=True
        )
        await command.run("--pid", gone.stdout.decode().strip())
    assert command.status == 1
    assert "there is no process" in command.said
