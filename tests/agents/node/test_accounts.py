"""What a root agent does with the rights of a user, by the accounts that every machine has."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agents.node import accounts
from agents.node.guard import records
from agents.node.results import tree
from agents.node.staging import environment
from agents.node.staging.envcache import EnvCache
from tests.accounts import needs_root
from tests.agents.node.conftest import Node, plan_of

NAME = "nobody"
SYSTEM = "/usr/bin/python3"
"""An interpreter that everybody may run."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others can get to, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="qda-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def user() -> accounts.Account:
    found = accounts.find(NAME)
    assert found is not None
    return found


@pytest.fixture
async def theirs(place: Path) -> AsyncIterator[Node]:
    """A node whose folder users can get to."""
    node = Node(place / "node")
    await node.agent.start()
    yield node
    await node.agent.close()


def test_an_account_that_is_not_here_is_refused_in_words() -> None:
    with pytest.raises(accounts.NoAccount, match="no account 'qd-nobody' on this node"):
        accounts.find("qd-nobody")
    assert accounts.find(pwd.getpwuid(os.geteuid()).pw_name) is None  # it is the agent's own


@pytest.mark.skipif(os.geteuid() == 0, reason="root may run ranks as others")
def test_an_agent_that_is_not_root_says_that_it_cannot() -> None:
    with pytest.raises(accounts.NoAccount, match="does not run as root"):
        accounts.find("root")


@needs_root
def test_what_is_read_for_a_user_is_what_they_could_read(
    place: Path, user: accounts.Account
) -> None:
    work, secret = place / "work", place / "secret"
    work.mkdir()
    secret.write_text("secret")
    secret.chmod(0o600)
    (work / "leak").symlink_to(secret)
    os.chown(work, user.uid, user.gid)
    assert (work / "leak").read_text() == "secret"
    before = os.getgroups()
    elsewhere: list[str] = []
    with accounts.acting_for(work):
        with pytest.raises(PermissionError):
            (work / "leak").read_text()
        with pytest.raises(PermissionError):
            (place / "new").write_text("")
        (work / "new").write_text("")
        other = threading.Thread(target=lambda: elsewhere.append(secret.read_text()))
    other.start()
    other.join()
    assert elsewhere == ["secret"] and secret.read_text() == "secret"
    assert os.getgroups() == before
    assert (work / "new").stat().st_uid == user.uid
    with pytest.raises(ValueError, match="on the way"), accounts.acting_for(work):
        raise ValueError("on the way")
    assert secret.read_text() == "secret"


@needs_root
def test_a_folder_that_is_swapped_for_a_link_shows_nothing(
    place: Path, user: accounts.Account
) -> None:
    """The walk below it may follow a link that was a folder when it was looked at."""
    hidden = place / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "name").write_text("")
    work = place / "work"
    work.mkdir()
    os.chown(work, user.uid, user.gid)
    (work / "inner").symlink_to(hidden)
    with accounts.acting_for(work):
        assert [*tree.walk(work / "inner")] == []
    assert [path for path, _ in tree.walk(work / "inner")] == ["name"]


@needs_root
def test_giving_a_folder_away_follows_no_link(place: Path, user: accounts.Account) -> None:
    work = place / "work"
    (work / "inner").mkdir(parents=True)
    (work / "inner" / "file").write_text("")
    (work / "link").symlink_to(place)
    accounts.give(work, user)
    owners = {path.lstat().st_uid for path in (work, *work.rglob("*"))}
    assert owners == {user.uid}
    assert place.stat().st_uid == 0


@needs_root
async def test_ranks_are_the_users_and_records_are_not(theirs: Node) -> None:
    entry = pwd.getpwnam(NAME)
    script = (
        "id -u; echo $USER; umask; test -r ../launch.json || echo sealed; echo x >> /dev/stderr"
    )
    await theirs.run("sh", "-c", f"{script}; touch made", run_as=NAME, env={"LONG": "1"})
    report = await theirs.end()
    assert report["outcome"] == "done", report
    said = (theirs.folder() / "rank-0.log").read_text()
    assert said.split() == [str(entry.pw_uid), NAME, "0022", "sealed", "x"]
    owners = {path.name: path.lstat().st_uid for path in theirs.folder().iterdir()}
    assert {name for name, uid in owners.items() if uid} == {"work", "own", "rank-0.log"}
    assert report["left"] is not None and report["left"]["files"] == 1
    files = await theirs.agent.list_files("c-j1.1", "work", [], written=True)
    assert [file["path"] for file in files["files"]] == ["made"]
    await theirs.restart()
    await theirs.until(lambda report: report.get("left") is not None)
    await theirs.sync(forget=["c-j1.1"])
    kept = await theirs.agent.list_files("c-j1.1", "work", [], written=True)
    assert [file["path"] for file in kept["files"]] == ["made"]


@needs_root
async def test_metrics_and_letters_of_a_user_lead_nowhere_else(theirs: Node, place: Path) -> None:
    secret = place / "secret"
    secret.write_text('{"combination": 1234}\n')
    secret.chmod(0o600)
    plant = f"ln -s {secret} ../own/outbox.json; ln -s {secret} ../own/metrics-0.jsonl"
    await theirs.run("sh", "-c", f"{plant}; echo planted; sleep 60", run_as=NAME, kind="service")
    await theirs.log("planted")
    assert await theirs.agent.exchange("c-j1.1", b"a letter") == b""
    assert (theirs.folder() / "own" / "inbox.json").stat().st_uid == pwd.getpwnam(NAME).pw_uid
    reply = await theirs.sync(metrics={"c-j1.1": {0: 0}})
    assert b"combination" not in b"".join(chunk["data"] for chunk in reply["metrics"])
    await theirs.stop()
    await theirs.end()


@needs_root
async def test_a_node_that_the_user_cannot_get_to_is_to_blame(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    await node.agent.start()
    reply = await node.stage(plan_of(run_as=NAME))
    assert (reply["state"], reply["blame"]) == ("failed", "node")
    assert "lets nobody else through" in reply["detail"]
    reply = await node.stage(plan_of("c-j2.1", run_as="qd-nobody"))
    assert (reply["state"], reply["blame"]) == ("failed", "node")
    assert "there is no account 'qd-nobody'" in reply["detail"]
    await node.agent.close()


@needs_root
async def test_what_installs_packages_runs_as_the_user(place: Path, user: accounts.Account) -> None:
    """A package's setup.py is the user's code, run where it would be the agent's."""
    package = place / "package"
    package.mkdir()
    (package / "setup.py").write_text(
        "import os, setuptools\n"
        "open(f'/tmp/{os.environ[\"MARK\"]}', 'w').write(str(os.getuid()))\n"
        "setuptools.setup(name='mine', py_modules=[])\n"
    )
    os.chown(package, user.uid, user.gid)
    mark = Path("/tmp") / f"qd-mark-{os.getpid()}"
    cache = EnvCache(place / "envs")
    (place / "envs").mkdir(mode=0o711)
    environ = environment.base_environment({"HOME": "/root"}) | {
        "PIP_NO_BUILD_ISOLATION": "1",
        "PIP_NO_INDEX": "1",
        "MARK": mark.name,
    }
    try:
        python = await cache.ensure(str(package), SYSTEM, environ, lambda words: None, user)
        assert mark.read_text() == str(user.uid)
    finally:
        mark.unlink(missing_ok=True)
    folder = EnvCache.of(str(python))
    assert {path.lstat().st_uid for path in (folder, *folder.iterdir())} == {user.uid}
    assert [item.path for item in cache.items()] == [folder]
    assert folder != cache.folder(str(package), SYSTEM)  # nobody else's
    again = await cache.ensure(str(package), SYSTEM, environ, lambda words: None, user)
    assert again == python


@needs_root
async def test_a_ray_driver_or_a_container_is_not_a_users(theirs: Node) -> None:
    reply = await theirs.stage(plan_of(run_as=NAME, kind="ray"))
    assert (reply["state"], reply["blame"]) == ("failed", "job")
    assert "a Ray driver cannot run as nobody" in reply["detail"]


@needs_root
async def test_a_guard_that_dies_takes_the_users_ranks_along(theirs: Node) -> None:
    report = await theirs.run("sleep", "600", run_as=NAME)
    pid = report["ranks"][0]["pid"]
    assert pid is not None
    os.kill(theirs.guard_pid(), 9)
    report = await theirs.end()
    assert report["outcome"] == "died"
    assert records.start_time(pid) is None


def test_a_users_variables_lead_to_no_folder_of_the_agents() -> None:
    base = {"HOME": "/root", "HF_HOME": "/root/hf", "TMPDIR": "/scratch", "PATH": "/root/bin:/bin"}
    env = environment.user_environment(base, {"HOME": "/home/ada", "USER": "ada"})
    wanted = {"HOME": "/home/ada", "USER": "ada", "TMPDIR": "/scratch", "PATH": "/root/bin:/bin"}
    assert env == wanted
