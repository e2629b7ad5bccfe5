"""Which of a gang's GPUs on a node belong to which of its local ranks."""

from __future__ import annotations

from collections.abc import Sequence


def gpus_of_rank(gpus: Sequence[str], procs: int, local_rank: int) -> list[str]:
    """The GPUs (UUIDs) that a local rank is expected to use.

    Every rank *sees* all of them, as under torchrun, where LOCAL_RANK picks; this is the share that
    display and telemetry bind to it: equal runs where they divide, shared in turn where there are
    fewer GPUs than ranks.
    """
    if not gpus:
        return []
    if len(gpus) < procs:
        return [gpus[local_rank % len(gpus)]]
    share = len(gpus) // procs
    return list(gpus[local_rank * share : (local_rank + 1) * share])
