"""Ask a deployed digits model about real images, and see whether it is right.

    ask.py URL [--requests N] [--callers N] [--faded] [--show] [--write FILE]

It ends after so many requests, or on SIGTERM, and says how many were answered, and how many rightly. The
exit code is 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlparse

from sklearn.datasets import load_digits

MODEL = "digits"
SHADES = " .:-=+*#%@"


def request(image: list[float]) -> bytes:
    """One image in the Open Inference Protocol."""
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 64], "data": image}
    return json.dumps({"inputs": [tensor]}).encode()


def picture(image: list[float]) -> str:
    shades = [SHADES[min(9, int(value * 10 / 17))] * 2 for value in image]
    return "\n".join("    " + "".join(shades[row : row + 8]) for row in range(0, 64, 8))


class Callers:
    def __init__(self, url: str, requests: int, callers: int, *, faded: bool = False) -> None:
        self._address = urlparse(url)
        self._numbers = itertools.count()
        self._limit = requests
        self.told: Counter[str] = Counter()
        self.going = True
        self._threads = [threading.Thread(target=self._run) for _ in range(callers)]
        digits = load_digits()
        images = digits.data // 2 if faded else digits.data
        self.images, self.labels = images.tolist(), digits.target.tolist()

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        while self.going and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.05)  # not join: a signal is heard here
        self.going = False
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address.netloc, timeout=30)
        while self.going and (number := next(self._numbers)) < self._limit:
            place = number % len(self.images)
            try:
                self.told["right" if self.ask(connection, place) else "wrong"] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.told["failed"] += 1
                print(f"failed: {error!r}", file=sys.stderr)
                connection.close()
        connection.close()

    def ask(self, connection: http.client.HTTPConnection, place: int) -> bool:
        path = f"/v2/models/{MODEL}/infer"
        connection.request("POST", path, request(self.images[place]))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {body[:200]!r}")
        scores = json.loads(body)["outputs"][0]["data"]
        return bool(scores.index(max(scores)) == self.labels[place])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--faded", action="store_true", help="as of a scanner that needs cleaning")
    parser.add_argument("--show", action="store_true", help="the first image, as it is sent")
    parser.add_argument("--write", type=Path, help="the first request, for `qd predict`")
    args = parser.parse_args()
    callers = Callers(args.url, args.requests, args.callers, faded=args.faded)
    if args.show:
        print(picture(callers.images[0]), flush=True)
    if args.write:
        args.write.write_bytes(request(callers.images[0]))

    def end(*_: object) -> None:
        callers.going = False

    signal.signal(signal.SIGTERM, end)
    callers.run()
    told = callers.told
    asked = told["right"] + told["wrong"]
    print(f"{asked} answers, {told['right']} of them right; {told['failed']} requests failed")
    return 1 if told["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
