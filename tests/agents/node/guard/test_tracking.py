"""The guard's listener and the tracker behind it, with real ranks."""

from __future__ import annotations

import json
import sys

import psutil

from tests.agents.node.conftest import Node, eventually

SCRIPT = """
import base64, json, os, time, urllib.error, urllib.request
env = os.environ
user = env["MLFLOW_TRACKING_USERNAME"] + ":" + env["MLFLOW_TRACKING_PASSWORD"]
def call(path, **args):
    for _ in range(300):
        request = urllib.request.Request(env["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/" + path,
            json.dumps(args).encode(), {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()})
        try:
            return json.load(urllib.request.urlopen(request, timeout=60))
        except (urllib.error.URLError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError):
                raise
            time.sleep(0.05)  # it was just killed: the client's own retries
run = call("runs/create", experiment_id="0")["run"]["info"]["run_id"]
for step in range(200):
    call("runs/log-metric", run_id=run, key="loss", value=1.0, timestamp=1000 + step, step=step)
    print(step, flush=True)
    time.sleep(0.005)
"""


def trackers(node: Node) -> list[psutil.Process]:
    children = psutil.Process(node.guard_pid()).children()
    return [child for child in children if "tracking/server.py" in " ".join(child.cmdline())]


async def test_a_tracker_that_is_killed_loses_nothing_and_repeats_nothing(node: Node) -> None:
    await node.run(sys.executable, "-c", SCRIPT)
    for line in ("10", "90"):
        await node.log(f"\n{line}\n")
        (tracker,) = await found(node)
        tracker.kill()
    report = await node.end()
    assert report["outcome"] == "done", (node.folder() / "rank-0.log").read_text()
    lines = (node.folder() / "metrics-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["s"] for line in lines] == list(range(200))
    assert not tracker.is_running()


async def found(node: Node) -> list[psutil.Process]:
    await eventually(lambda: len(trackers(node)) == 1)
    return trackers(node)


async def test_nobody_pays_for_what_is_not_used(node: Node) -> None:
    await node.run(
        "sh", "-c", "echo $MLFLOW_TRACKING_URI $MLFLOW_TRACKING_USERNAME; exec sleep 300"
    )
    assert b"http://127.0.0.1:" in await node.log("rank-0\n")
    assert trackers(node) == []
    launch = (node.folder() / "launch.json").read_text()
    assert "PASSWORD" not in launch


async def test_a_server_that_the_job_names_itself_is_its_own(node: Node) -> None:
    await node.stage_ready(
        "sh", "-c", "echo is ${MLFLOW_TRACKING_URI-none} $MLFLOW_TRACKING_USERNAME."
    )
    secrets = {"MLFLOW_TRACKING_URI": "https://elsewhere"}
    await node.agent.launch(node.request(secrets=secrets))
    assert await node.log("is") == b"is https://elsewhere .\n"
