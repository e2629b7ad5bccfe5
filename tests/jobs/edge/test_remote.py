"""The scripts that run on hosts, run here by sh: parts, releases, the switch, and what was altered."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.base.errors import InvalidInput
from jobs.edge import remote
from jobs.edge.remote import Looked, Release

ONE, TWO = b"one" * 1000, b"two"
SHELLS = [name for name in ("dash", "bash", "busybox") if shutil.which(name)]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def release(push: int = 7) -> Release:
    files = {"a b/one.bin": ONE, "two": TWO, "again": TWO}
    return Release.of("digits", "3", push, {path: (sha(d), len(d)) for path, d in files.items()})


class Far:
    """A host's folder. The name is one that a careless script would trip over."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.path, self._shell = folder / "it's $HOME", shell

    def run(self, script: str, data: bytes = b"") -> tuple[int, list[str]]:
        words = [self._shell, *(["sh"] if self._shell == "busybox" else []), "-c", script]
        done = subprocess.run(words, input=data, capture_output=True, check=False)
        found = remote.parsed(done.stdout.decode())
        assert found is not None, done
        return found

    def send(self, *files: bytes) -> None:
        for data in files:
            assert self.run(remote.append(str(self.path), sha(data), 0), data)[0] == 0

    def make(self, of: Release) -> tuple[int, list[str]]:
        return self.run(remote.complete(str(self.path), of), of.hashes().encode())

    def deploy(self, of: Release) -> None:
        self.run(remote.sizes(str(self.path)))
        self.send(ONE, TWO)
        assert self.make(of)[0] == 0
        assert self.run(remote.switch(str(self.path), of.name))[0] == 0

    @property
    def current(self) -> str:
        link = self.path / "current"
        return str(link.readlink()) if link.is_symlink() else ""


@pytest.fixture(params=SHELLS)
def far(tmp_path: Path, request: pytest.FixtureRequest) -> Far:
    return Far(tmp_path, request.param)


def test_parts_are_resumed_and_made_a_release(far: Far) -> None:
    path, of = str(far.path), release()
    asked = "".join(f"{part}\n" for part in of.parts()).encode()
    assert far.run(remote.sizes(path), asked) == (0, ["0", "0"])
    assert far.run(remote.append(path, sha(ONE), 0), ONE[:1000])[0] == 0
    far.send(TWO)
    order = {sha(ONE): "1000", sha(TWO): "3"}
    assert far.run(remote.sizes(path), asked)[1] == [order[part] for part in of.parts()]
    assert far.run(remote.append(path, sha(ONE), 999), b"x")[0] != 0, "somebody else has written"
    assert far.run(remote.append(path, sha(ONE), 1000), ONE[1000:])[0] == 0
    assert far.make(of) == (0, [])
    made = far.path / "releases" / "digits-3.7"
    assert (made / "a b" / "one.bin").read_bytes() == ONE
    assert (made / "again").read_bytes() == (made / "two").read_bytes() == TWO
    assert not (far.path / ".parts").exists()
    assert far.make(of) == (0, []), "once more is nothing new"


def test_a_part_that_is_not_what_it_is_called_is_sent_again(far: Far) -> None:
    of = release()
    far.run(remote.sizes(str(far.path)))
    far.send(TWO)
    far.run(remote.append(str(far.path), sha(ONE), 0), ONE[:-1] + b"X")
    assert far.make(of) == (remote.DAMAGED, [f"bad {sha(ONE)}"])
    assert not (far.path / "releases" / "digits-3.7").exists()
    far.send(ONE)
    assert far.make(of)[0] == 0


def test_the_switch_and_the_way_back(far: Far) -> None:
    path = str(far.path)
    far.deploy(release(7))
    assert far.current == "releases/digits-3.7"
    assert far.run(remote.switch(path, "digits-3.7"))[0] == 0, "twice is once"
    far.deploy(release(8))
    assert far.current == "releases/digits-3.8"
    assert far.run(remote.back(path, "digits-3.7"))[0] == 0
    assert far.current == "releases/digits-3.8", "it is another push's"
    assert far.run(remote.back(path, "digits-3.8"))[0] == 0
    assert far.current == "releases/digits-3.7"
    assert far.run(remote.back(path, "digits-3.7"))[0] == 0
    assert far.current == "", "before it there was nothing"


def test_what_is_no_link_of_ours_is_left_alone(far: Far) -> None:
    (far.path / "current").mkdir(parents=True)
    assert far.run(remote.switch(str(far.path), "digits-3.7")) == (4, ["current is no link"])


def test_what_was_altered_is_named(far: Far) -> None:
    path = str(far.path)
    assert far.run(remote.look(path))[0] != 0, "there is no such folder, and none is made"
    assert not far.path.exists()
    far.deploy(release())
    assert remote.looked(far.run(remote.look(path))[1]) == Looked("digits-3.7")
    here = far.path / "current"
    (here / "a b" / "one.bin").write_bytes(b"other")
    (here / "two").unlink()
    (here / "new file").write_bytes(b"")
    found = remote.looked(far.run(remote.look(path))[1])
    assert found == Looked("digits-3.7", ("a b/one.bin", "two"), ("new file",))
    assert remote.version_of(found.release) == "digits:3"


def test_health_and_its_words(far: Far) -> None:
    far.deploy(release())
    script = remote.health(str(far.path), "digits-3.7", 'echo "$RELEASE"; test -f two')
    assert far.run(script) == (0, ["| digits-3.7"])
    bad = remote.health(str(far.path), "digits-3.7", "echo no >&2; exit 9")
    assert far.run(bad) == (9, ["| no"])
    assert sorted(path.name for path in far.path.iterdir()) == ["current", "releases"]


def test_old_releases_go_but_what_is_used_stays(far: Far) -> None:
    for push in range(1, 6):
        far.deploy(release(push))
        assert far.run(remote.prune(str(far.path), f"digits-3.{push}", 2))[0] == 0
    left = {path.name for path in (far.path / "releases").iterdir() if path.is_dir()}
    assert {"digits-3.5", "digits-3.4"} <= left and len(left) <= 3


def test_a_link_that_was_lost_is_no_exit_code() -> None:
    assert remote.parsed("") is None
    assert remote.parsed("5\n") is None
    assert remote.parsed("5\n\nqd-exit 0\n") == (0, ["5"])


def test_a_name_that_no_list_can_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="line break"):
        Release.of("digits", "3", 7, {"a\nb": (sha(TWO), 3)})
