"""Ask a service: python load.py URL CALLERS SECONDS. Each caller asks again when it is answered."""

import asyncio
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


async def answer(reader: asyncio.StreamReader) -> tuple[str, str, bool]:
    """Status, body, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    status, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    body = await reader.readexactly(int(headers["content-length"]))
    return status.split()[1], body.decode(), headers.get("connection") != "close"


async def main(url: str, callers: int, seconds: float) -> None:
    where, end = urlsplit(url), time.monotonic() + seconds
    told: Counter[str] = Counter()
    by: Counter[str] = Counter()
    times: list[float] = []

    async def call() -> None:
        streams = None
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                streams = streams or await asyncio.open_connection(where.hostname, where.port)
                streams[1].write(REQUEST)
                status, body, stays = await answer(streams[0])
            except (OSError, asyncio.IncompleteReadError) as error:
                told[f"failed: {error!r}"] += 1
                streams = None
                continue
            told[status] += 1
            by[body.strip()[:40]] += 1
            times.append(time.monotonic() - began)
            if not stays:
                streams[1].close()
                streams = None

    await asyncio.gather(*(call() for _ in range(callers)))
    times.sort()
    p50, p99, longest = (times[int(q * (len(times) - 1))] for q in (0.5, 0.99, 1))
    print("answers by status:", dict(told))
    print(f"p50 {p50:.3f} s, p99 {p99:.3f} s, longest {longest:.3f} s")
    print("answers by replica:", dict(by))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
