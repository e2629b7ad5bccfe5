"""One contract for blobs: in a folder, in a small S3 server, in moto's. Then what only object storage has."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.controller.stores import objects
from agents.controller.stores.blobplace import open_blobs
from agents.controller.stores.blobs import BlobStore, FolderBlobs
from agents.controller.stores.objectblobs import IN_USE, ObjectBlobs
from agents.controller.stores.objects import Objects, Place
from jobs.base.errors import (
    Conflict,
    Damaged,
    InvalidInput,
    NotFound,
    StorageFull,
    Unreachable,
)
from tests.objects import BUCKET, Storage, credentials, moto_program, moto_server, own_server

pytest.importorskip("obstore")

LARGE = os.urandom(2 * objects.PART + 12_345)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(objects, "_AGAIN", (0.01, 0.01))
    with own_server() as found:
        yield found


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


def s3(url: str, folder: Path, clock: Callable[[], float], **more: Any) -> ObjectBlobs:
    folder.mkdir(exist_ok=True)
    place = Place(BUCKET, f"at/{folder.parent.name}", url)
    return ObjectBlobs(Objects(place, credentials(folder)), folder, clock, **more)


@pytest.fixture(params=["folder", "own", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[BlobStore]:
    if request.param == "folder":
        yield FolderBlobs(tmp_path, clock)
        return
    if request.param == "moto" and moto_program() is None:
        pytest.skip("moto's server is not installed (see tests/objects.py)")
    url = request.getfixturevalue("storage").url if request.param == "own" else ""
    made = s3(url or request.getfixturevalue("moto"), tmp_path / "s", clock)
    yield made
    made.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: BlobStore, data: bytes) -> str:
    store.put(digest(data), io.BytesIO(data))
    return digest(data)


def test_what_is_put_is_there_once_whole(store: BlobStore) -> None:
    for data in (b"", b"small", LARGE):
        name = put(store, data)
        assert put(store, data) == name
        assert store.has(name)
        assert store.has(f"sha256:{name}")
        assert store.size(name) == len(data)
        assert store.read(name) == data
        with store.local(name).open("rb") as file:
            file.seek(max(0, len(data) - 10))
            assert file.read() == data[-10:]
        assert store.check(name) == ""
    assert sorted(item.digest for item in store.items()) == sorted(
        map(digest, (b"", b"small", LARGE))
    )


def test_what_is_not_there_is_said(store: BlobStore) -> None:
    one, other = put(store, b"one"), digest(b"other")
    assert not store.has(other)
    assert store.missing([other, one, f"sha256:{other}"]) == [other, f"sha256:{other}"]
    for look in (store.size, store.local, store.read):
        with pytest.raises(NotFound):
            look(other)
    assert store.check(other) == "is gone"
    for look in (store.has, store.size, store.read):
        with pytest.raises(InvalidInput):
            look("../../etc/passwd")


def test_other_content_and_what_is_not_finished_are_not_stored(store: BlobStore) -> None:
    with pytest.raises(InvalidInput, match="does not have that digest"):
        store.put(digest(b"this"), io.BytesIO(b"that"))
    with store.incoming() as incoming:
        incoming.write(b"half")
    assert store.items() == []
    with store.incoming() as incoming:
        incoming.write(b"wh")
        incoming.write(b"ole")
        assert incoming.commit() == digest(b"whole")
    assert store.read(digest(b"whole")) == b"whole"


def test_what_is_counted_on_is_not_removed(store: BlobStore, clock: Clock) -> None:
    old, held, again = (put(store, data) for data in (b"old", b"held", b"again"))
    clock.now += 10_000
    assert store.has(held)
    put(store, b"again")
    before = clock.now - 5_000
    assert [store.remove(name, before) for name in (old, held, again)] == [True, False, False]
    assert not store.remove(old, before)
    assert not store.has(old)
    with pytest.raises(NotFound):
        store.read(old)
    assert store.read(held) == b"held"
    assert put(store, b"old") == old
    assert store.read(old) == b"old"


# -- object storage alone ---------------------------------------------------------------------------------


@pytest.fixture
def away(storage: Storage, tmp_path: Path, clock: Clock) -> Iterator[ObjectBlobs]:
    made = s3(storage.url, tmp_path / "s", clock)
    yield made
    made.close()


def forget(store: ObjectBlobs) -> None:
    for file in store._cache.glob("??/*"):
        file.unlink()


def test_a_damaged_object_is_found_and_located(storage: Storage, away: ObjectBlobs) -> None:
    name = put(away, b"content")
    ((key, _),) = storage.objects.items()
    for content, words in ((b"CONTENT", "was changed"), (b"cont", "has 4 bytes instead of 7")):
        storage.objects[key] = content
        assert words in away.check(name), "though the cache has it"
        forget(away)
        with pytest.raises(Damaged, match=f"{name[:2]}/{name} of s3://{BUCKET}.*{words}"):
            away.read(name)
    del storage.objects[key]
    assert away.check(name) == "is gone"
    with pytest.raises(NotFound):
        away.read(name)


def test_no_question_costs_a_request(storage: Storage, away: ObjectBlobs) -> None:
    name = put(away, b"content")
    storage.requests.clear()
    assert away.has(name)
    assert away.missing([name, digest(b"x")]) == [digest(b"x")]
    assert away.size(name) == 7
    assert away.read(name) == b"content"
    assert len(away.items()) == 1
    put(away, b"content")
    assert storage.requests == []


def test_an_error_of_the_server_is_retried(storage: Storage, away: ObjectBlobs) -> None:
    storage.failing = 3
    name = put(away, b"content")
    assert [word for word, _ in storage.requests].count("PUT") == 4
    large = put(away, LARGE)
    forget(away)
    storage.failing = 3
    assert away.read(name) == b"content"
    storage.failing = 3
    assert away.read(large) == LARGE
    key = next(key for key in storage.objects if large in key)
    storage.objects[key] = LARGE[: objects.PART - 1]
    assert f"has {objects.PART - 1} bytes" in away.check(large)


def test_a_storage_that_is_away_is_said_and_nothing_is_acknowledged(
    storage: Storage, away: ObjectBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = put(away, b"before")
    forget(away)
    storage.away = True
    for work in (lambda: put(away, b"content"), lambda: away.read(name)):
        with pytest.raises(Unreachable, match=r"does not answer: HTTP error: [^\n]*$"):
            work()
        away._objects._down = 0.0, ""
    assert not away.has(digest(b"content"))
    assert away.has(name), "what was acknowledged is still known"
    with pytest.raises(Unreachable):
        put(away, b"content")
    storage.away = False
    requests = len(storage.requests)
    with pytest.raises(Unreachable):
        put(away, b"content")
    assert len(storage.requests) == requests, "for a moment nothing is tried"
    away._objects._down = 0.0, ""
    put(away, b"content")
    storage.refusing = True
    with pytest.raises(Unreachable, match="refuses the credentials"):
        put(away, b"more")
    storage.refusing = False
    with pytest.raises(Unreachable, match="no bucket"):
        Objects(replace(away._objects.place, bucket="other"), credentials(away._cache)).range(
            "k", 0, 1
        )


def test_an_upload_is_not_begun_again_at_a_storage_that_is_away(
    storage: Storage, away: ObjectBlobs
) -> None:
    """Each upload is patient in itself: three of them keep people waiting for minutes."""
    storage.away = True
    with pytest.raises(Unreachable):
        put(away, b"content")
    puts = [word for word, _ in storage.requests].count("PUT")
    assert 1 <= puts <= objects._RETRIES + 1
    heads = len(storage.requests) - puts
    assert 1 <= heads <= 4, "and it is asked once whether it is there"


def test_an_upload_whose_answer_was_lost_is_there(
    storage: Storage, away: ObjectBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = away._objects._library
    uploads = []

    class Losing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def put(self, *args: Any, **options: Any) -> None:
            uploads.append(real.put(*args, **options))
            raise OSError("the answer was lost")

    monkeypatch.setattr(away._objects, "_library", Losing())
    name = put(away, b"content")
    assert len(uploads) == 1
    forget(away)
    assert away.read(name) == b"content"


def test_a_file_of_the_cache_that_is_not_whole_is_brought_again(
    storage: Storage, away: ObjectBlobs
) -> None:
    """After a loss of power a name may be there without its content."""
    name = put(away, b"content")
    for left in (b"", b"cont"):
        away._cached(name).write_bytes(left)
        assert away.read(name) == b"content"


def test_what_is_handed_out_while_the_cache_shrinks_stays(
    storage: Storage, tmp_path: Path, clock: Clock
) -> None:
    store = s3(storage.url, tmp_path / "s", clock, cache=1_500)
    one = put(store, b"1" * 1_000)
    clock.now += IN_USE + 1
    shrinking = False

    def now() -> float:
        nonlocal shrinking
        if shrinking and store._room.locked():  # its files were looked at, and none is removed yet
            shrinking = False
            assert store.local(one)
        return clock.now

    store._now, shrinking = now, True
    put(store, b"2" * 1_000)
    assert not shrinking
    assert store._cached(one).exists()
    store.close()


def test_a_check_on_a_full_disk_says_so(away: ObjectBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    name = put(away, b"content")

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(away._objects, "get", full)
    with pytest.raises(StorageFull, match="No space left"):
        away.check(name)


def test_an_upload_that_was_killed_is_in_no_index_and_is_tidied(
    storage: Storage, tmp_path: Path, clock: Clock
) -> None:
    code = (
        "import io, os, signal, sys; from pathlib import Path; from tests.agents.controller.stores import"
        " test_blobstores as t\n"
        "from agents.controller.stores.blobindex import BlobIndex\n"
        "BlobIndex.add = lambda *words: os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.put(t.s3(sys.argv[1], Path(sys.argv[2]), lambda: 0.0), b'content')"
    )
    words = [sys.executable, "-c", code, storage.url, str(tmp_path / "s")]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert len(storage.objects) == 1, "it was there already"
    store = s3(storage.url, tmp_path / "s", clock)
    assert not store.has(digest(b"content"))
    assert list(store._drafts.iterdir()) == []
    (key,) = storage.objects
    assert store.tidy(storage.written[key] - 1.0) == 0
    assert store.tidy(storage.written[key] + 1.0) == 1
    assert storage.objects == {}
    put(store, b"content")
    assert store.tidy(2e9) == 0, "what is in the index stays"
    store.close()


def test_an_index_that_is_lost_is_made_again(
    storage: Storage, tmp_path: Path, clock: Clock
) -> None:
    store = s3(storage.url, tmp_path / "s", clock)
    names = [put(store, b"%d" % n) for n in range(5)]
    store.close()
    clock.now += 1e6
    found = s3(storage.url, tmp_path / "fresh", clock)
    assert found.missing(names) == []
    found.close()
    for file in (tmp_path / "s").glob("index.db*"):
        file.unlink()
    again = s3(storage.url, tmp_path / "s", clock)
    assert again.missing(names) == []
    assert {item.held_at for item in again.items()} == {clock.now}, "all of it stays for a while"
    again.close()


def test_the_cache_is_bounded_and_what_is_in_use_stays(
    storage: Storage, tmp_path: Path, clock: Clock
) -> None:
    store = s3(storage.url, tmp_path / "s", clock, cache=2_500)
    for number in range(4):
        put(store, b"%d" % number * 1_000)
    assert len(list(store._cache.glob("??/*"))) == 4, "somebody may be reading them"
    clock.now += IN_USE + 1
    store.local(digest(b"0" * 1_000))
    put(store, b"4" * 1_000)
    left = {file.name for file in store._cache.glob("??/*")}
    assert left == {digest(b"0" * 1_000), digest(b"4" * 1_000)}
    requests = len(storage.requests)
    assert store.read(digest(b"4" * 1_000)) == b"4" * 1_000
    assert len(storage.requests) == requests
    assert store.read(digest(b"1" * 1_000)) == b"1" * 1_000
    store.close()


def test_the_url_is_read_and_a_store_is_not_changed_unseen(
    storage: Storage, tmp_path: Path
) -> None:
    for wrong in (
        "http://x",
        "s3://",
        "s3://b?colour=red",
        "s3://k:s@b",
        "s3://b?endpoint=ftp://x",
    ):
        with pytest.raises(InvalidInput, match="QD_BLOBS_URL"):
            Place.parse(wrong)
    url = f"s3://{BUCKET}/a/b/?endpoint={storage.url}"
    assert Place.parse(url) == Place(BUCKET, "a/b", storage.url)
    config, state = tmp_path / "config", tmp_path / "state"
    config.mkdir()
    credentials(config)
    folder = open_blobs(state, config, {})
    name = put(folder, b"here")
    with pytest.raises(Conflict, match=r"are in .*state/blobs"):
        open_blobs(state, config, {"QD_BLOBS_URL": url})
    folder.remove(name, 2e12)
    there = open_blobs(state, config, {"QD_BLOBS_URL": url})
    put(there, b"there")
    there.close()
    with pytest.raises(Conflict, match="QD_BLOBS_URL is not set"):
        open_blobs(state, config, {})
    with pytest.raises(Conflict, match="QD_BLOBS_URL says"):
        open_blobs(state, config, {"QD_BLOBS_URL": f"{url}&region=x".replace("a/b", "c")})


def test_credentials_that_cannot_be_read_are_not_shown(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "wrong"
    file.write_text("aws_secret_access_key = hush")
    found = Objects(Place(BUCKET, "", storage.url), file)
    with pytest.raises(Unreachable) as refused:
        found.range("k", 0, 1)
    assert "hush" not in str(refused.value)
    assert str(file) in str(refused.value)
