"""Streams and fetches in threads: they post a message when something came, and touch no widget.

Threads are daemons and are told to stop: quitting never waits for a slow network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from console.tui.core.base.link import Link, retry_delay
from console.tui.core.base.world import Fold, Resume, Table
from console.tui.source import Closable, Source
from jobs.base.errors import QuarterdeckError, Unreachable

Opener = Callable[[], Closable]


class Clock(Protocol):
    def wall(self) -> float:
        """Seconds since the epoch: compares with times in the API's answers."""
        ...

    def mono(self) -> float:
        """Seconds that never jump: measures how long ago something was heard."""
        ...


class Reader:
    """Keeps one stream open in a thread, and opens it again with backoff when it is cut.

    Args:
        name: of the thread.
        opener: opens the stream; called again for each try.
        take: is given each document, in the thread. False ends the reading for good.
        ended: is called when the stream ended or could not be opened, with the error (None when it
            ended in good order); False ends the reading for good.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        take: Callable[[Any], None],
        ended: Callable[[QuarterdeckError | None], bool],
    ) -> None:
        self._opener = opener
        self._take = take
        self._ended = ended
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._stream: Closable | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end; does not wait for it."""
        self._stop.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.close()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        tries = 0
        while not self._stop.is_set():
            error: QuarterdeckError | None = None
            try:
                stream = self._opener()
                with self._lock:
                    self._stream = stream
                try:
                    # A stop that came while the stream was being opened did not see it.
                    while not self._stop.is_set():
                        document = next(stream, None)
                        if document is None:
                            break
                        tries = 0
                        self._take(document)
                finally:
                    stream.close()
            except QuarterdeckError as caught:
                error = caught
            if self._stop.is_set() or not self._ended(error):
                return
            tries += 1
            self._stop.wait(retry_delay(tries))


class Feed:
    """One watched set of topics, folded in the thread that reads it.

    `wake` is called in that thread when there is something new, at most once until `take` was called.
    """

    def __init__(
        self, source: Source, topics: Iterable[str], clock: Clock, wake: Callable[[], object]
    ) -> None:
        self.topics = tuple(topics)
        self._source = source
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._fold = Fold()
        self._link = Link()
        self._woken = False
        self._reader: Reader | None = None

    @property
    def running(self) -> bool:
        return self._reader is not None

    def start(self) -> None:
        """Watch; goes on from where an earlier watch stopped."""
        if self._reader is None:
            self._reader = Reader(
                f"qd-watch-{self.topics[0]}", self._open, self._on_delta, self._on_end
            )
            self._reader.start()

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def close(self, timeout: float) -> None:
        """Stop, and wait for the thread for at most `timeout` seconds."""
        reader = self._reader
        self.stop()
        if reader is not None:
            reader.join(timeout)

    def take(self) -> tuple[dict[str, Table], frozenset[str], Link]:
        """What is known now: immutable snapshots by topic, the topics known in full, the link."""
        with self._lock:
            self._woken = False
            tables = {topic: self._fold.table(topic) for topic in self.topics}
            return tables, self._fold.ready, self._link

    @property
    def pending(self) -> bool:
        """Whether something came that was not taken yet."""
        return self._woken

    def _open(self) -> Closable:
        with self._lock:
            resume: Resume | None = self._fold.resume
        return self._source.watch(self.topics, resume)

    def _on_delta(self, delta: Any) -> None:
        with self._lock:
            changed = self._fold.apply(delta)
            opened = self._link.phase != "open"
            self._link = self._link.on_data(self._clock.mono())
            self._signal(changed or opened)

    def _on_end(self, error: QuarterdeckError | None) -> bool:
        refused = error is not None and not isinstance(error, Unreachable)
        message = error.message if error else "the control plane ended the stream"
        hint = error.hint if error else ""
        with self._lock:
            self._fold.cut()
            link = self._link
            self._link = link.on_refusal(message, hint) if refused else link.on_cut(message, hint)
            self._signal(True)
        return not refused

    def _signal(self, worth_it: bool) -> None:
        if worth_it and not self._woken:
            self._woken = True
            self._wake()


class Fetches:
    """One-off calls in threads, at most one in flight for each key.

    A request for a key that is in flight is remembered, and made when the answer is there: the newest
    wins, and a slow link carries no queue of stale questions.
    """

    def __init__(self, deliver: Callable[[str, Any, QuarterdeckError | None], None]) -> None:
        self._deliver = deliver
        self._lock = threading.Lock()
        self._flying: dict[str, Callable[[], Any] | None] = {}

    def start(self, key: str, call: Callable[[], Any]) -> None:
        """Make `call` in a thread and deliver `(key, result, error)` from there."""
        with self._lock:
            if key in self._flying:
                self._flying[key] = call
                return
            self._flying[key] = None
        threading.Thread(target=self._run, args=(key, call), name=f"qd-{key}", daemon=True).start()

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._flying)

    def _run(self, key: str, call: Callable[[], Any] | None) -> None:
        while call is not None:
            try:
                self._deliver(key, call(), None)
            except QuarterdeckError as error:
                self._deliver(key, None, error)
            with self._lock:
                call = self._flying[key]
                if call is None:
                    del self._flying[key]
                else:
                    self._flying[key] = None
