"""What is wrong at the moment, by source: the banner of `qd status`."""

from __future__ import annotations

import logging

from agents.controller.stores.database import TO_MEND
from jobs.wire.views import Problem

log = logging.getLogger(__name__)

_FIXES = {
    "storage": "Free disk space; nodes keep what is not stored yet, and it is fetched when there is room.",
    "clock": "Let all machines follow one time server; leases do not depend on it, times in logs do.",
    "registry": "Free disk space, or end what holds its lock; nothing new is acknowledged until then.",
    "registry file": "Nothing is recorded. Put the right one in its place and start the cluster anew; "
    "what runs runs on meanwhile.",
    "damage": TO_MEND,
    "pruning": "Give it as a time such as 7d, and start the cluster anew; meanwhile it is a day.",
    "checkpoint settings": "Give them as sizes such as 200MiB and 2TiB, and start the cluster anew.",
    "checkpoints": "Free disk space on the head, or raise QD_CHECKPOINT_SPACE; it is tried again.",
    "restored": "`qd strays` lists what nodes hold and it does not know; submit again what was lost.",
    "ray": "It is being restarted; jobs that run are not touched. See `qd doctor`.",
}
_FIX_NAME = "Let one of them leave and join again with another --name: `qd leave`, `qd join`."
_FIX_SWEEP = (
    "Its trials run on, and it is tried again. If it stays so: `qd sweep-stop`, and mend the file."
)
_FIX_PIPELINE = "Its jobs run on, and it is tried again; `qd pipeline cancel` ends it."
_FIX_SERVICE = (
    "`qd deployments` shows its state. From a pause: `qd rollout NAME resume`, promote or abort."
)
_FIX = "It is being tried again; `qd doctor` tells more."

_OF_A_KIND = {
    "name": _FIX_NAME,
    "sweep": _FIX_SWEEP,
    "pipeline": _FIX_PIPELINE,
    "service": _FIX_SERVICE,
}


class Problems:
    """At most one problem per source; the newest text counts."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def tell(self, source: str, text: str) -> None:
        """Something is wrong with `source`; an empty text says that it is over."""
        if text and self._texts.get(source) != text:
            log.warning("%s: %s", source, text)
        if text:
            self._texts[source] = text
        else:
            self._texts.pop(source, None)

    def views(self) -> list[Problem]:
        return [
            {
                "what": f"{source}: {text}",
                "fix": _fix(source),
                "severity": "error",
            }
            for source, text in sorted(self._texts.items())
        ]


def _fix(source: str) -> str:
    kind = source.partition(" ")[0]
    return _OF_A_KIND.get(kind) or _FIXES.get(source, _FIX)
