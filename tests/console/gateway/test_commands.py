"""Commands through the gateway, by OpenSSH's own client."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path

from tests.console.gateway.conftest import Served, until


async def test_a_command_gives_what_it_gives_at_home(served: Served) -> None:
    said = await served.ssh("mira", "jobs", "--json")
    assert (said.code, json.loads(said.out), said.err.count(b"qd:")) == (0, [], 0)
    said = await served.ssh("mira", "qd jobs")  # the word may be there, as at home
    assert (said.code, said.out) == (0, b"")
    assert b"no jobs yet" in said.err


async def test_a_job_comes_on_standard_input_and_its_exit_code_comes_back(served: Served) -> None:
    text = b"name: seven\ncommand: exit 7\n"
    said = await served.ssh("mira", "submit", "--wait", stdin=text)
    assert (said.code, said.out) == (7, b"j1\n"), said.err
    assert (await served.plane.get("/v1/jobs/j1"))["user"] == "mira"
    said = await served.ssh("mira", "submit", "-", "--wait", stdin=b"command: echo hi\n")
    assert said.code == 0
    said = await served.ssh("mira", "logs", "j2")
    assert b"hi\n" in said.out
    said = await served.ssh("mira", "submit", stdin=b"comand: x\n")
    assert said.code == 2
    assert b"<stdin>:1" in said.err


async def test_a_log_is_followed_to_its_end(served: Served) -> None:
    job = await served.plane.submit("echo one; sleep 0.3; echo two")
    said = await served.ssh("vic", "logs", "-f", job)
    assert said.code == 0
    assert said.out.splitlines()[-1].endswith(b"two")


async def test_much_output_is_whole_and_in_order(served: Served) -> None:
    job = await served.plane.submit("seq 1 300000")
    await served.plane.wait(job)
    said = await served.ssh("mira", "logs", job)
    assert [int(line) for line in said.out.split()] == list(range(1, 300001))


async def test_a_viewer_may_not_cancel(served: Served) -> None:
    job = await served.plane.submit("sleep 60")
    said = await served.ssh("vic", "cancel", job)
    assert said.code == 4
    assert b"vic is a viewer, and this needs an operator" in said.err
    last = [line for line in served.journal if line["what"] == "end"][-1]
    assert (last["user"], last["role"], last["code"]) == ("vic", "viewer", 4)
    assert [line["command"] for line in served.journal if line["what"] == "command"] == [
        f"cancel {job}"
    ]
    assert (await served.ssh("mira", "cancel", job)).code == 0


REFUSED = {
    "down": "not offered",
    "gateway": "not offered",
    "context list": "not offered",
    "web": "not offered",
    "pull last": "not offered",
    "model import /etc m": "not offered",
    "model policy m /etc/passwd": "not offered",
    "deploy /etc/passwd --to staging": "file of the gateway's machine",
    "qd --host other jobs": "not offered",
    "jobs --context other": "not offered",
    "submit /etc/passwd": "file of the gateway's machine",
    "submit ../../audit.log": "file of the gateway's machine",
    "submit --workdir /etc -- ls": "file of the gateway's machine",
    "submit --workdir .. -- ls": "file of the gateway's machine",
    "sweep /etc/passwd": "file of the gateway's machine",
}


async def test_nothing_of_the_gateways_machine_is_had(served: Served) -> None:
    for words, why in REFUSED.items():
        said = await served.ssh("mira", words)
        assert said.code == 4, (words, said)
        assert why in said.err.decode()
    for text in (b"command: ls\nworkdir: /etc\n", b"command: ls\nworkdir: ../..\n"):
        said = await served.ssh("mira", "submit", stdin=text)
        assert said.code in (2, 4), said
    assert (await served.plane.get("/v1/jobs"))["jobs"] == []


async def test_a_sweep_brings_its_job_and_names_no_file_of_it(served: Served) -> None:
    said = await served.ssh("mira", "sweep", "-", "--dry-run", stdin=b"job: /etc/passwd\n")
    assert said.code == 4
    text = (
        b"name: s\njob: {command: 'echo {lr}'}\nspace: {lr: {low: 1, high: 2}}\n"
        b"objective: {metric: m, goal: maximize}\nsampler: random\ntrials: 1\n"
    )
    said = await served.ssh("mira", "sweep", "-", "--dry-run", stdin=text)
    assert said.code == 0, said.err


async def test_quotes_that_do_not_close_and_words_that_are_none(served: Served) -> None:
    said = await served.ssh("mira", "jobs 'x")
    assert said.code == 2
    assert b"cannot be read" in said.err
    said = await served.ssh("mira", "frobnicate")
    assert said.code == 2
    said = await served.ssh("mira", "$(touch was-here); jobs")  # no shell reads it
    assert said.code == 2
    said = await served.ssh("mira", "jobs; ls")
    assert said.code == 2


async def test_without_a_command_and_a_terminal_there_is_help(served: Served) -> None:
    said = await served.ssh("mira", options=("-T",))
    assert said.code == 0
    assert b"Usage: qd" in said.out


async def test_a_connection_that_is_dropped_ends_its_program(served: Served) -> None:
    job = await served.plane.submit("sleep 60")
    client = await served.client("mira", "logs", "-f", job)
    await until(lambda: served.programs)
    client.kill()
    await client.communicate()
    await until(lambda: any(line["what"] == "end" for line in served.journal))
    assert not served.programs
    end = [line for line in served.journal if line["what"] == "end"][-1]
    # On a busy machine it may not get to die of the first one in the seconds that it has.
    assert end["code"] in (-signal.SIGHUP, -signal.SIGKILL)
    left = served.plane.root / "run" / "gateway"
    await until(lambda: not list(left.iterdir()))
    assert (await served.plane.get(f"/v1/jobs/{job}"))["state"] == "RUNNING"


async def test_the_end_of_input_ends_nothing(served: Served) -> None:
    job = await served.plane.submit("sleep 0.5; echo late")
    said = await served.ssh("mira", "logs", "-f", job, options=("-n",))
    assert b"late" in said.out


async def test_a_control_plane_that_is_away_is_said_so(served: Served) -> None:
    await served.plane.stop()
    said = await served.ssh("mira", "jobs")
    assert said.code == 5
    assert b"control plane" in said.err
    await served.plane.start()
    assert (await served.ssh("mira", "jobs")).code == 0


async def test_many_at_once(served: Served) -> None:
    """Fifty, each on a connection of its own, and no limit is in their way."""

    async def one() -> int:
        return (await served.ssh("mira", "jobs", "--json")).code

    codes: list[int] = []
    for _ in range(5):  # a connection takes a core for some hundredths of a second: in tens
        codes += await asyncio.gather(*(one() for _ in range(10)))
    assert codes == [0] * 50
    assert served.programs == []


async def test_a_work_folder_comes_along(served: Served, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / ".git").mkdir(parents=True)
    # What git would run, if it were to look at a repository that a guest has sent.
    (here / ".git" / "config").write_text(f"[core]\nfsmonitor = touch {tmp_path}/ran\n")
    (here / "say.py").write_text("print('from the folder')\n")
    (here / "job.yaml").write_text("command: python3 say.py\n")
    tar = await asyncio.create_subprocess_exec("tar", "c", ".", cwd=here, stdout=subprocess.PIPE)
    archive, _ = await tar.communicate()
    said = await served.ssh("mira", "submit -f job.yaml --workdir - --wait", stdin=archive)
    assert said.code == 0, said.err
    assert b"from the folder" in (await served.ssh("mira", "logs", "last")).out
    assert not (tmp_path / "ran").exists()
    said = await served.ssh("mira", "submit --workdir - -- cat say.py", stdin=archive)
    assert said.code == 0, said.err


async def test_a_command_beside_a_rank(served: Served) -> None:
    said = await served.ssh("mira", "submit", stdin=b"command: sleep 60\nenv: {COLOUR: blue}\n")
    await served.plane.wait("j1", "RUNNING")
    said = await served.ssh("mira", "exec j1 -- sh -c 'cat; echo $COLOUR; exit 5'", stdin=b"hi\n")
    assert (said.code, said.out) == (5, b"hi\nblue\n"), said.err
    said = await served.ssh("vic", "exec j1 -- env")
    assert said.code == 4
