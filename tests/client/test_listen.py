"""`listen` with a microphone that is scripted, and without one."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from tests.client.stub import CREATED, KEY, Peer, polite, serving
from voxtral_actors.client import cli, limits, listening
from voxtral_actors.client.microphone import Microphone, MicrophoneError
from voxtral_actors.client.running import Interrupts, Server
from voxtral_actors.client.showing import Output
from voxtral_actors.protocol.commands import Start

LIMIT_S = 10
BLOCK = bytes(2560)


class PortAudioError(Exception):
    pass


class FakeDevice:
    """Stands in for the sounddevice module; `speak` is its callback thread."""

    PortAudioError = PortAudioError

    def __init__(self, rates: tuple[int, ...] = (16_000,)) -> None:
        self.rates = rates
        self.callback: Callable[..., None]
        self.running = False
        self.closed = False

    def check_input_settings(self, *, samplerate: int, **_: Any) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    def query_devices(self, *_: Any) -> dict[str, float]:
        if not self.rates:
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": float(self.rates[0])}

    def RawInputStream(self, *, callback: Callable[..., None], **_: Any) -> FakeDevice:  # noqa: N802
        self.callback = callback
        return self

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def close(self) -> None:
        self.closed = True

    def speak(self, block: bytes, times: int = 1) -> None:
        def run() -> None:
            for _ in range(times):
                self.callback(memoryview(block), 0, None, SimpleNamespace(input_overflow=False))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()


async def test_blocks_come_in_order_and_stop_ends_after_them() -> None:
    device = FakeDevice()
    with trio.fail_after(LIMIT_S), Microphone(device, None, 80) as microphone:
        assert device.running
        device.speak(b"\1\0" * 1280)
        device.speak(b"\2\0" * 1280)
        microphone.stop()
        assert [block async for block in microphone] == [b"\1\0" * 1280, b"\2\0" * 1280]
    assert device.closed


async def test_another_rate_is_resampled() -> None:
    device = FakeDevice(rates=(48_000,))
    with trio.fail_after(LIMIT_S), Microphone(device, None, 80) as microphone:
        device.speak(bytes(3840 * 2), times=50)
        microphone.stop()
        samples = sum(len([*block]) // 2 for block in [b async for b in microphone])
    assert samples == pytest.approx(50 * 1280, rel=0.02)


async def test_memory_is_bounded_and_losses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MICROPHONE_BUFFER_S", 0.8)
    device = FakeDevice()
    with trio.fail_after(LIMIT_S), Microphone(device, None, 80) as microphone:
        device.speak(BLOCK, times=15)
        microphone.stop()
        assert len([block async for block in microphone]) == 10
        assert microphone.lost_s == pytest.approx(0.4)


async def test_the_callback_never_raises_after_the_run() -> None:
    device = FakeDevice()

    async def main() -> None:
        with Microphone(device, None, 80):
            pass

    await trio.to_thread.run_sync(trio.run, main)
    device.speak(BLOCK)


async def test_no_microphone() -> None:
    with pytest.raises(MicrophoneError, match="there is no microphone"):
        Microphone(FakeDevice(rates=()), None, 80)


async def test_the_first_ctrl_c_finalises_and_prints_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = FakeDevice()
    monkeypatch.setattr(listening, "load_sounddevice", lambda: device)
    interrupts = Interrupts()
    status: list[int] = []
    with trio.fail_after(LIMIT_S):
        async with serving(polite) as stub, trio.open_nursery() as nursery:

            async def listen() -> None:
                out = Output(lambda: None)
                server = Server(stub.url, KEY)
                status.append(
                    await listening.listen_until_interrupted(server, None, 80, out, interrupts)
                )

            nursery.start_soon(listen)
            while interrupts.soften is None:
                await trio.testing.wait_all_tasks_blocked()
            device.speak(BLOCK, times=10)
            interrupts.received(2)
            assert not interrupts.scope.cancel_called
        assert status == [0]
        captured = capsys.readouterr()
        assert captured.out == "one two 0.8\n"
        assert "listening; Ctrl-C to finish" in captured.err

        interrupts.received(2)
        assert interrupts.scope.cancel_called
        assert interrupts.status == 130


async def test_a_server_that_closes_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(CREATED)
        await peer.expect(Start)
        await peer.close(4003, "max_duration")

    monkeypatch.setattr(listening, "load_sounddevice", FakeDevice)
    with trio.fail_after(LIMIT_S):
        async with serving(script) as stub:
            status = await listening.listen_until_interrupted(
                Server(stub.url, KEY), None, 80, Output(lambda: None), Interrupts()
            )
        assert status == 1
        assert "4003 max_duration" in capsys.readouterr().err


PACKAGE, LIBRARY = "pip install 'voxtral-actors[mic]'", "apt-get install libportaudio2"


@pytest.mark.parametrize(
    ("fault", "hint", "other"),
    [(ModuleNotFoundError, PACKAGE, LIBRARY), (OSError, LIBRARY, PACKAGE)],
    ids=["package", "library"],
)
def test_a_missing_library_says_which_one_and_how_to_install_it(
    fault: type[Exception], hint: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def fake(name: str, *rest: Any) -> Any:
        if name == "sounddevice":
            raise fault("PortAudio library not found")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", fake)
    result = CliRunner().invoke(cli.listen, [])
    assert result.exit_code == 2
    assert hint in result.stderr
    assert other not in result.stderr
    assert result.stdout == ""
