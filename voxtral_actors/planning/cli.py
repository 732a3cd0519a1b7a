"""`voxtral-actors plan`: the capacity planner's command line and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import click

from voxtral_actors.planning import dimensions, memory, plan
from voxtral_actors.planning.gpus import GPUS, Gpu

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class Duration(click.ParamType[float]):
    """15s, 500ms, 10m, 1h; a bare number is seconds."""

    name = "duration"

    def convert(self, value: object, param: object, ctx: object) -> float:
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value))
        seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
        if not 0 < seconds <= 24 * 3600:
            self.fail(f"{value!r} is no length of time such as 15s, 10m or 1h, up to 24h")
        return seconds


class Steps(click.ParamType[dict[int, float]]):
    """STREAMS=MS,STREAMS=MS,..."""

    name = "steps"

    def convert(self, value: object, param: object, ctx: object) -> dict[int, float]:
        if isinstance(value, dict):
            return value
        try:
            pairs = [item.split("=") for item in str(value).split(",")]
            points = {int(streams): float(ms) for streams, ms in pairs}
        except ValueError:
            points = {}
        if len(points) < 2 or min(points) < 1 or min(points.values()) <= 0:
            self.fail(f"{value!r} is not two or more of STREAMS=MILLISECONDS, as in 1=5.1,8=7.9")
        return points


@click.command("plan")
@click.option("--gpu", type=click.Choice(list(GPUS)), required=True, help="The kind of GPU.")
@click.option("--gpus", type=click.IntRange(1, 8), default=1, help="Tensor parallel size.")
@click.option("--memory", type=click.FloatRange(1, 1000), help="GiB of a GPU, if not the usual.")
@click.option(
    "--utterance", type=Duration(), default="15s", show_default=True, help="Longest utterance."
)
@click.option(
    "--duty",
    type=click.FloatRange(0.01, 1),
    default=1.0,
    show_default=True,
    help="Share of its time in which a session has an utterance open.",
)
@click.option(
    "--refused",
    type=click.FloatRange(0, 0.5),
    default=0.001,
    show_default=True,
    help="Share of utterances that may find no stream free.",
)
@click.option(
    "--delay",
    type=click.Choice([str(ms) for ms in range(80, 2401, 80)]),
    default="400",
    metavar="MS",
    show_default=True,
    help="VOXTRAL_TRANSCRIPTION_DELAY_MS.",
)
@click.option(
    "--kv-dtype", type=click.Choice(list(memory.KV_BYTES)), default="auto", show_default=True
)
@click.option(
    "--utilization",
    type=click.FloatRange(0.1, 0.99),
    default=0.92,
    show_default=True,
    help="VLLM_GPU_MEMORY_UTILIZATION.",
)
@click.option(
    "--params",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="params.json of another Voxtral Realtime.",
)
@click.option(
    "--steps", type=Steps(), metavar="N=MS,...", help="Measured milliseconds of a step, by streams."
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def main(
    *,
    gpu: str,
    gpus: int,
    memory: float | None,
    utterance: float,
    duty: float,
    refused: float,
    delay: str,
    kv_dtype: str,
    utilization: float,
    params: Path | None,
    steps: dict[int, float] | None,
    as_json: bool,
) -> None:
    """Say how many live sessions fit on a GPU, and which limit binds.

    Memory is counted as vLLM counts it. The time of a step is an estimate from published figures of
    one GPU unless --steps gives your own, which a running server shows in /metrics.

    \b
    Examples:
      voxtral-actors plan --gpu l40s --utterance 15s --duty 0.5
      voxtral-actors plan --gpu h100 --utterance 10m --steps 1=5.0,8=7.6,32=17
    """
    try:
        model = dimensions.read(params) if params else dimensions.VOXTRAL_MINI_4B
        device = GPUS[gpu] if memory is None else attrs.evolve(GPUS[gpu], memory=memory)
        hardware = plan.Hardware(gpu=device, gpus=gpus, utilization=utilization, kv_dtype=kv_dtype)
        load = plan.Load(utterance=utterance, duty=duty, refused=refused, delay_ms=int(delay))
        made = plan.make(model, hardware, load, steps)
    except (dimensions.ModelFileError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(attrs.asdict(made), indent=2))
    else:
        click.echo(_table(made, device, gpus, load))


def _table(made: plan.Plan, gpu: Gpu, gpus: int, load: plan.Load) -> str:
    many = f" x {gpus}, each with" if gpus > 1 else " with"
    how = "from the steps given" if made.step_measured else "estimated, see --steps"
    settings = "\n".join(f"{name}={value}" for name, value in made.settings.items())
    return f"""\
{gpu.name}{many} {made.weights_gib:.1f} GiB of weights and {made.kv_cache_gib:.1f} GiB of KV cache

limit           streams  from
{_limits(made)}

streams   {made.streams:6}  live at once; a step of all takes {made.step_ms:.1f} ms ({how})
spare     {made.spare:6}  more, for utterances that go over to a new stream
sessions  {made.sessions:6}  that have an utterance open {load.duty:.0%} of the time, with at most
                  {load.refused:.2%} of utterances refused

{settings if made.streams else "There is no room for a stream of this length."}"""


def _limits(made: plan.Plan) -> str:
    return "\n".join(
        f"{limit.name:14}  {limit.streams:7}  {limit.reason}"
        + ("  <- binds" if limit is made.binding else "")
        for limit in made.limits
    )
