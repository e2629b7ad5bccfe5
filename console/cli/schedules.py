"""`qd schedule` and `qd schedules`: pipelines, jobs and sweeps that run by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from console.cli.format import local_moment
from console.cli.options import Json
from console.cli.output import Column, emit, narrate, paint_state, say
from console.cli.output import show as table
from console.client import Client, segment
from console.text import neutralise
from jobs.base.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.wire.flowviews import ScheduleView

ScheduleName = Annotated[
    str, typer.Argument(metavar="NAME", help="A schedule.", show_default=False)
]
_SCHEDULES = [
    Column("NAME", flex=True),
    Column("PIPELINE", flex=True),
    Column("USER", flex=True),
    Column("STATE", states=True),
    Column("WHEN", flex=True),
    Column("NEXT"),
    Column("FIRED", right=True),
    Column("LAST", flex=True),
]
_WHEN = ("cron", "every", "on", "into", "cooldown", "overlap")
"""Fields of a file that another answer to when it runs leaves no meaning."""
_FIRINGS = [
    Column("MOMENT"),
    Column("STATE", states=True),
    Column("PIPELINE"),
    Column("REASON", flex=True),
]


def schedule(as_json: Json = False) -> None:
    """Run pipelines, jobs and sweeps automatically.

    Without a command it lists the schedules.
    """
    schedules(as_json)


def schedules(as_json: Json = False) -> None:
    """List schedules, with the next firing of each."""
    rows = cast("list[ScheduleView]", Client.from_environment().get("/v1/schedules"))
    if as_json:
        emit(rows)
    elif rows:
        table(_SCHEDULES, [_row(view) for view in rows])
    else:
        narrate("no schedules yet; try `qd schedule add FILE --every 6h`")


def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A pipeline, job or sweep file (YAML).", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The schedule's name; by default the file's.")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="LINE", help='As in crontab: "30 2 * * 1-5".')
    ] = None,
    every: Annotated[str | None, typer.Option(metavar="SPAN", help="An interval: 6h.")] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="data NAME, alert RULE or drift SERVICE."),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --on: the parameter for what has happened."),
    ] = None,
    cooldown: Annotated[
        str | None, typer.Option(metavar="SPAN", help="With --on: minimum time between runs.")
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Time zone of --cron: Europe/Berlin; UTC by default."),
    ] = None,
    catch_up: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="Missed firings: skip, once (default) or all."),
    ] = None,
    at_most: Annotated[
        int | None, typer.Option(metavar="N", help="With --catch-up all: the newest N.")
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="If the last run is not over: skip (default), queue, replace."
        ),
    ] = None,
    jitter: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Delay each firing by a random time up to this."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A parameter of the pipeline; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a schedule: a file, and when it runs.

    \b
      qd schedule add nightly.yaml --cron "30 2 * * *" --zone Europe/Berlin
      qd schedule add job.yaml --every 6h --catch-up skip
      qd schedule add loop.yaml --on "data digits" --into data --cooldown 1h

    A pipeline file may contain it as `schedule:`; options override that.
    """
    from console.cli.pipelines import asked
    from jobs.flows.schedules import Schedule
    from jobs.flows.spec import load_scheduled

    spec, folders = load_scheduled(file)
    given: dict[str, Any] = spec.schedule.to_json() if spec.schedule is not None else {}
    options = {
        "cron": cron, "every": every, "on": on, "into": into, "cooldown": cooldown, "zone": zone,
        "catch_up": catch_up, "at_most": at_most, "overlap": overlap, "jitter": jitter,
    }  # fmt: skip
    if cron is not None or every is not None or on is not None:
        given = {key: value for key, value in given.items() if key not in _WHEN}
    given |= {key: value for key, value in options.items() if value is not None}
    if not any(given.get(name) for name in ("cron", "every", "on")):
        raise InvalidInput(
            f"there is no schedule for {file}",
            "Give --cron, --every or --on, or `schedule:` in the file.",
        )
    wanted = Schedule.from_json(given)
    client = Client.from_environment()
    body = asked(client, spec, folders, settings or [])
    body |= {"name": name or spec.name, "schedule": wanted.to_json()}
    view = cast("ScheduleView", client.act("/v1/schedules", body))
    if as_json:
        emit(view)
        return
    say(neutralise(view["name"]))
    moments = ", ".join(local_moment(at) for at in view["next"])
    narrate(f"next: {moments}" if moments else view["told"])


def show(name: ScheduleName, as_json: Json = False) -> None:
    """Show a schedule: its next five firings and latest results."""
    view = cast("ScheduleView", Client.from_environment().get(_path(name)))
    if as_json:
        emit(view)
        return
    say(f"{neutralise(view['name'])} {paint_state(view['state'])} {neutralise(view['told'])}")
    how = view["schedule"]
    if how.get("on") is None:
        say(neutralise(f"catch up: {how['catch_up']}, overlap: {how['overlap']}"))
    else:
        into = f", into {how['into']}" if how["into"] else ""
        say(neutralise(f"overlap: {how['overlap']}{into}"))
    for at in view["next"]:
        say(f"next {local_moment(at)}")
    if view["firings"]:
        table(
            _FIRINGS,
            [
                [
                    local_moment(f["moment"]),
                    f["state"],
                    f["pipeline"] or "-",
                    f["cause"] or f["reason"],
                ]
                for f in view["firings"]
            ],
        )


def pause(name: ScheduleName, as_json: Json = False) -> None:
    """Pause a schedule; what it has started continues."""
    _steer(name, "pause", as_json)


def resume(name: ScheduleName, as_json: Json = False) -> None:
    """Resume a schedule from now on."""
    _steer(name, "resume", as_json)


def run(name: ScheduleName, as_json: Json = False) -> None:
    """Run a schedule once, now."""
    view = cast("ScheduleView", Client.from_environment().post(_path(name, "run")))
    if as_json:
        emit(view)
    else:
        say(view["firings"][0]["pipeline"] or "")


def rm(name: ScheduleName, as_json: Json = False) -> None:
    """Remove a schedule; the pipelines that it started remain."""
    view = cast("ScheduleView", Client.from_environment().post(_path(name, "remove")))
    if as_json:
        emit(view)
    else:
        narrate(f"{view['name']} is removed")


def _steer(name: str, verb: str, as_json: bool) -> None:
    view = cast("ScheduleView", Client.from_environment().post(_path(name, verb)))
    if as_json:
        emit(view)
    else:
        say(f"{neutralise(view['name'])} {paint_state(view['state'])}")


def _path(name: str, *rest: str) -> str:
    return "/".join(["/v1/schedules", segment(name), *rest])


def _row(view: ScheduleView) -> list[str]:
    last = view["firings"][0] if view["firings"] else None
    return [
        view["name"],
        view["pipeline"],
        view["user"],
        view["state"],
        view["told"],
        local_moment(view["next"][0]) if view["next"] else "-",
        str(view["fired"]),
        "-" if last is None else f"{last['state']} {last['pipeline'] or last['reason']}",
    ]
