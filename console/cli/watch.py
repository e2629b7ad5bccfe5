"""`qd submit --watch`: a job's logs and changes until it ends, then how it went."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from console.cli.details import not_kept
from console.cli.follow import follow_logs
from console.cli.format import elapsed, number, size
from console.cli.ids import Target
from console.cli.logs import print_lines
from console.cli.output import emit_line, narrate
from console.cli.patience import Patience
from console.cli.wait import until_ended
from console.client import Client, Stream
from jobs.base.errors import QuarterdeckError
from jobs.base.names import OUTPUT_EVENT

if TYPE_CHECKING:
    from jobs.wire.views import JobDetail, JobView


def watch(client: Client, job: Target, ranks: int, *, as_json: bool) -> JobView:
    """Follow a job until it ends: lines of its ranks on stdout, changes of its state on stderr.

    Returns the job as it ended. KeyboardInterrupt leaves it running.
    """
    with _Changes(client, job):
        query: dict[str, Any] = {}
        lines = follow_logs(client, job, query, list(range(ranks)), Patience(client))
        if as_json:
            for line in lines:
                emit_line(line)
        else:
            print_lines(lines, named=ranks > 1)
        view = until_ended(client, job, Patience(client))
    assert view is not None  # there was no deadline
    return view


def summary(client: Client, view: JobView) -> None:
    """Say on stderr how a job went: time, its objective or metrics, artifacts, first failure."""
    detail = cast("JobDetail", client.get(Target(view["id"]).path()))
    took = elapsed(view["started_at"], view["ended_at"], time.time())
    reason = f": {view['reason']}" if view["reason"] else ""
    narrate(f"{view['id']} {view['state']} after {took}{reason}")
    objective = detail["spec"].get("objective") or {}
    shown = [objective["metric"]] if objective.get("metric") in detail["metrics"] else None
    for name in shown or detail["metrics"]:
        metric = detail["metrics"][name]
        narrate(f"  {name} = {number(metric['value'])} at step {metric['step']}")
    for artifact in detail["artifacts"]:
        became = f", {artifact['data']}" if "data" in artifact else ""
        narrate(f"  {artifact['name']}: {artifact['path']} ({size(artifact['size'])}{became})")
    for warning in detail.get("warnings", ()):
        narrate(f"  warning: {warning}")
    newest = detail["attempts"][-1] if detail["attempts"] else None
    left = newest.get("left") if newest else None
    if newest and left and left["files"]:
        narrate(f"  not kept: {not_kept(view['id'], left)}")
    last = newest["first_failure"] if newest else None
    if last is not None and last["rank"] is not None and view["state"] == "FAILED":
        how = last["signal"] or f"exit code {last['exit_code']}"
        narrate(f"  first failure: rank {last['rank']} on {last['node']}: {how}")


class _Changes:
    """Narrates the events of a job from a thread of its own, while its logs are read."""

    def __init__(self, client: Client, job: Target) -> None:
        self._client = client
        self._job = job
        self._stream: Stream | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(timeout=self._client.timeout)

    def _run(self) -> None:
        after = 0
        while not self._left.is_set():
            # The logs say when the control plane is away, and when it stays away.
            with suppress(QuarterdeckError):
                self._stream = self._client.stream(
                    "/v1/events", job=self._job.job, after=after, follow=True
                )
                with self._stream as stream:
                    if self._left.is_set():  # set while the stream was opened, and not closed
                        return
                    for event in stream:
                        after = event["id"]
                        if event["kind"] != OUTPUT_EVENT:  # the summary has those
                            narrate(event["message"])
            self._left.wait(0.5)
