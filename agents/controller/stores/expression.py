"""A regular expression of somebody's, searched for in a process of its own.

An expression such as `(a+)+$` can take years over one line, and Python's `re` holds the interpreter
all that time: in the controller it would stop every lease from being renewed. Here it can only end
its own process, which counts the CPU time of each search and dies when there was too much.

Run as a program (`python -I -S expression.py SECONDS PATTERN`) this file is that process: it reads
a JSON list of texts a line, and answers with the list of the indices of those that match; to `null`
it says what is wrong with the expression.
"""

from __future__ import annotations

import json
import re
import signal
import sys

MAX_CPU = 1.0
"""Seconds of CPU for one search, which is of some hundred lines: thousandths of one as a rule."""


def fault(pattern: str) -> str:
    """Why this is not a regular expression; empty when it is one."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error) or type(error).__name__
    return ""


def serve(pattern: str, seconds: float) -> None:
    """Answer until the input ends: to null, why it is no expression; to texts, which of them match."""
    for request in sys.stdin.buffer:
        # The signal's default ends the process also in the midst of a match, where no handler of
        # ours would ever be called.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        texts = json.loads(request)
        answer: object
        if texts is None:
            answer = fault(pattern)
        else:
            search = re.compile(pattern).search
            answer = [number for number, text in enumerate(texts) if search(text)]
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[2], float(sys.argv[1]))
