"""The shape of the package, held by reading its syntax trees: who may import whom, and what for.

Imports point one way. `protocol` and `utterance` are pure, `engine.port` and `connection.transport`
are the ports, connections know only those, the server knows connections, the command line knows
all. Each outside library that could leak everywhere has the few modules that may import it.

Every test collects the offenders as {module: what it does wrong}, so a failure names them all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import attrs

import voxtral_actors

ROOT = Path(voxtral_actors.__file__).parent
MAX_LINES = 300


@attrs.frozen
class Module:
    """A source file: its name inside the package and what it imports, wherever in the file."""

    name: str
    source: str = attrs.field(repr=False)
    tree: ast.Module = attrs.field(repr=False)
    outside: frozenset[str]
    """Top-level names of other packages."""
    inside: frozenset[str]
    """Modules of this package, without the package's name."""

    def within(self, *places: str) -> bool:
        return _within(self.name, *places)


def _within(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            module = node.module or ""
            for alias in node.names:
                path = module.replace(".", "/").removeprefix("voxtral_actors")
                is_module = (ROOT / f"./{path}/{alias.name}.py").exists()
                is_package = (ROOT / f"./{path}/{alias.name}/__init__.py").exists()
                ours = module.partition(".")[0] == "voxtral_actors"
                yield f"{module}.{alias.name}" if ours and (is_module or is_package) else module


def _read(path: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    imported = [name.partition(".") for name in _imports(tree)]
    return Module(
        name=".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"),
        source=source,
        tree=tree,
        outside=frozenset(top for top, _, _ in imported if top != "voxtral_actors"),
        inside=frozenset(rest for top, _, rest in imported if top == "voxtral_actors" and rest),
    )


MODULES = [_read(path) for path in sorted(ROOT.rglob("*.py"))]

# What each part may import of this package beside itself; the first entry that fits counts.
KNOWN_LEAVES = ("limits", "secret", "groups", "standstill")
MAY_IMPORT: list[tuple[str, tuple[str, ...]]] = [
    ("protocol", ("limits",)),
    ("utterance", ("limits",)),
    ("engine.port", ("limits", "utterance.timing")),
    ("engine", (*KNOWN_LEAVES, "settings", "setting_types", "utterance")),
    ("connection.transport", ("limits",)),
    ("connection", (*KNOWN_LEAVES, "settings", "protocol", "utterance", "engine.port")),
    (
        "server",
        (*KNOWN_LEAVES, "settings", "logs", "protocol", "utterance", "engine", "connection"),
    ),
    ("client.cli", (*KNOWN_LEAVES, "client", "protocol", "lazy")),
    ("client", ("limits", "protocol", "groups")),
    (
        "demo",
        (*KNOWN_LEAVES, "settings", "logs", "server", "client", "protocol", "engine.registry"),
    ),
    ("cli", ("logs", "lazy", "settings", "server", "demo", "engine.fetch_cli")),
    ("__main__", ("cli",)),
    ("planning", ("engine.port",)),
    ("settings", ("limits", "secret", "setting_types")),
    ("setting_types", ("limits", "secret")),
    ("logs", ("limits", "secret")),
    ("standstill", ("limits",)),
]

# Outside libraries that only these modules may import.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "hypercorn": ("server.wire", "server.websocket_stream", "server.listener"),
    "quart": ("server.quart_app",),
    "quart_trio": ("server.quart_app",),
    # Two files for the server process; the others are loaded by vLLM into processes of its own.
    "vllm": (
        "engine.vllm_library",
        "engine.vllm_request",
        "engine.vllm_plugin",
        "engine.vllm_worker",
    ),
    "torch": ("engine.vllm_library", "engine.vllm_request", "engine.vllm_batch"),
    "zmq": ("engine.vllm_line",),
    "uvloop": ("engine.loopthread",),
    "psutil": ("engine.vllm_processes", "engine.vllm_worker"),
    "huggingface_hub": ("engine.snapshot",),
    "asyncio": (
        "engine.loopthread",
        "engine.hosted",
        # Engines that live in the loop thread.
        "engine.vllm_realtime",
        "engine.vllm_session",
        "engine.vllm_line",
        "engine.vllm_processes",
    ),
    "pocketsphinx": ("engine.sphinx_worker",),
    "trio_websocket": ("client",),
    "click": ("cli", "lazy", "client.cli", "client.showing", "demo.run", "planning.cli"),
    "dotenv": ("cli",),
    "cattrs": ("setting_types",),
    "msgspec": ("protocol.codec", "client", "settings", "setting_types", "engine.vllm_request"),
    "pybase64": ("protocol.codec", "client"),
}

PURE = ("protocol", "utterance")
PURE_LIBRARIES = {"attrs"}
STANDARD = set(sys.stdlib_module_names)
CODEC_LIBRARIES = {"msgspec", "pybase64"}
IMPURE_STANDARD = {
    "asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "secrets", "select", "selectors", "signal", "socket", "subprocess", "sys",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip


def test_imports_point_one_way() -> None:
    def strangers(module: Module) -> set[str]:
        part = module.name.partition(".")[0]
        port = module.within("engine.port", "connection.transport")
        own = (part,) if (ROOT / part).is_dir() and not port else ()
        allowed = next((places for place, places in MAY_IMPORT if module.within(place)), ())
        return {name for name in module.inside if not _within(name, *own, *allowed)}

    assert _offenders(strangers) == {}


def test_each_outside_library_has_its_place() -> None:
    def misplaced(module: Module) -> set[str]:
        limited = module.outside & ONLY_IN.keys()
        return {library for library in limited if not module.within(*ONLY_IN[library])}

    assert _offenders(misplaced) == {}


def test_the_pure_parts_have_no_io_no_clock_no_logs_and_no_trio() -> None:
    def impure(module: Module) -> set[str]:
        if not module.within(*PURE):
            return set()
        codec = CODEC_LIBRARIES if module.within("protocol.codec") else set()
        return set(module.outside) - (STANDARD - IMPURE_STANDARD) - PURE_LIBRARIES - codec

    assert _offenders(impure) == {}


def test_the_environment_is_read_in_one_place() -> None:
    """The command line hands it to `settings.load`; nothing else looks at it.

    One module writes into it and reads nothing: some of vLLM's switches are environment variables.
    """
    readers = {"environ", "environb", "getenv", "getenvb"}

    def reads(module: Module) -> set[str]:
        if module.within("cli", "engine.vllm_environ"):
            return set()
        nodes = list(ast.walk(module.tree))
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        return readers & (attributes | {node.name for node in nodes if isinstance(node, ast.alias)})

    assert _offenders(reads) == {}


def test_no_handler_swallows_cancellation() -> None:
    """`except:` and `except BaseException` catch it; such a handler ends by raising it again."""

    def swallowing(module: Module) -> set[int]:
        nodes = list(ast.walk(module.tree))
        handlers = [node for node in nodes if isinstance(node, ast.ExceptHandler)]
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        return {
            handler.lineno
            for handler in handlers
            if (handler.type is None or "BaseException" in _names(handler.type))
            and not isinstance(handler.body[-1], ast.Raise)
        } | {
            call.lineno
            for call in calls
            if "suppress" in _names(call.func)
            and any("BaseException" in _names(argument) for argument in call.args)
        }

    assert _offenders(swallowing) == {}


def test_no_file_is_long() -> None:
    lengths = {module.name: module.source.count("\n") for module in MODULES}

    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_file_opens_with_what_it_is_for() -> None:
    assert [m.name for m in MODULES if m.source and not ast.get_docstring(m.tree)] == []


def _offenders(faults: Callable[[Module], Collection[object]]) -> dict[str, list[str]]:
    return {module.name: sorted(map(str, found)) for module in MODULES if (found := faults(module))}


def _names(node: ast.AST) -> set[str]:
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Name | ast.Attribute)
    }


def test_the_whole_package_was_read() -> None:
    assert {"settings", "protocol.events", "connection.transport"} <= {m.name for m in MODULES}
