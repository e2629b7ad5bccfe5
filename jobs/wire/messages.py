"""What controller and node agents say to each other.

Plain dicts, so that they survive a rolling upgrade: a field that is new has a default on the reading
side, an unknown one is ignored. Every request that acts carries `(key, epoch)`, is idempotent, and is
refused when the epoch is older than one the agent has seen for the same job.

Clocks. `clock` is the node's CLOCK_BOOTTIME in seconds: it never jumps and counts sleep. A lease is a
moment on that clock. The controller computes it from a clock reading that the agent itself reported
(`lease_until = reported clock + lease`), so a renewal that was delayed on the network can never extend
a lease beyond what the controller assumes (docs/decisions/0003-leases.md).
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Protocol, TypedDict

from jobs.wire.dataviews import DataPin

PROTOCOL = 2
"""Raised when an old agent could misunderstand a new controller; agents refuse others in words."""


class GpuFacts(TypedDict):
    index: int
    uuid: str
    model: str
    memory: int  # bytes
    simulated: bool


class NodeFacts(TypedDict):
    cpus: int
    memory: int
    gpus: list[GpuFacts]
    driver: str  # NVIDIA driver version, "" without one
    cuda: str
    kernel: str
    python: str
    ray: str
    containers: NotRequired[str]  # "podman 4.3.1"; absent where ranks cannot run in one


class Hello(TypedDict):
    protocol: int
    version: str
    node: str
    boot_id: str
    clock: float
    facts: NodeFacts
    attempts: list[AttemptReport]
    problems: list[str]
    given: NotRequired[dict[str, Given]]  # by the cluster's id
    boot: NotRequired[str]  # of this machine (`jobs.life.boots`)


class Given(TypedDict):
    """The highest numbers that a node has met, of attempts that are over and forgotten too."""

    job: int
    epoch: int


class Meeting(TypedDict):
    """Where the ranks of a gang will meet. While the gang is staged, the agent of `node` listens
    there and answers with the attempt's key."""

    node: str
    address: str
    port: int


class LaunchPlan(TypedDict):
    """Everything an agent needs to stage and launch its part of a gang. Written to the attempt's
    folder (without `secrets`), where the guard reads it and an adopting agent finds it again."""

    key: str  # names.AttemptKey
    job: str  # "j1"
    attempt: int
    epoch: int
    kind: Literal["gang", "ray", "service"]
    node_rank: int
    nnodes: int
    procs: int  # ranks on this node
    first_rank: int  # global rank of local rank 0
    world_size: int
    argv: list[str]
    env: dict[str, str | None]  # what the user asked for, over the base environment; None unsets
    python: str | None  # interpreter whose folder leads PATH
    requirements: str | None  # text of the requirements file; its hash names the cached environment
    snapshot: str | None  # "sha256:..." of the manifest
    gpus: float  # on this node, for all local ranks together
    cpus: float
    memory: int | None
    params: dict[str, Any]  # quarterdeck.params
    seed: int | None
    grace: float  # seconds between SIGTERM and SIGKILL
    notice: float  # seconds that should_stop() is true before SIGTERM, for scripts that ask it
    lease: float  # seconds
    outputs: dict[str, str]  # name -> path below the work folder
    user: str
    checkpoint: NotRequired[str | None]  # "sha256:..." of the manifest that its folder begins with
    data: NotRequired[dict[str, DataPin]]  # what the job calls it -> the version
    models: NotRequired[dict[str, DataPin]]  # the same of versions of models
    copy: NotRequired[Copied]  # whether its checkpoints are copied; absent when they are not
    resume: NotRequired[Resume]  # the newest copy, unless the node has something newer
    metrics: NotRequired[list[dict[str, str]]]  # patterns on log lines (jobs.metrics.patterns)
    launch: NotRequired[
        str
    ]  # how ranks learn of each other (jobs.spec.launch); "torchrun" when absent
    carried: NotRequired[Carried]  # what an earlier attempt wrote in its work folder
    image: NotRequired[ImagePin]  # what the ranks run in
    mounts: NotRequired[list[str]]  # paths of the node that they see then (jobs.spec.fields)
    run_as: NotRequired[str]  # account of the ranks; absent: the one that the agent runs as
    meet: NotRequired[Meeting]  # to a node that is staged: see whether rank 0's node can be reached


class Carried(TypedDict):
    """What an earlier attempt wrote in its work folder. `key`: of the attempt; `digest`: "sha256:..." of the
    manifest, empty where this node has the folder itself; `size`: bytes."""

    key: str
    digest: str
    size: int


class ImagePin(TypedDict):
    """A container image. `digest`: "sha256:...", empty until the first node of the job has resolved
    the name."""

    ref: str
    digest: str


class Copied(TypedDict):
    """How a job's checkpoints are copied. `asked`: by the person, not by default."""

    what: Literal["latest", "all"]
    asked: bool


class Resume(TypedDict):
    """A copied checkpoint. `digest`: of its manifest, "sha256:..."; `at`: the unix time of the newest of its
    files; `mine`: the same of those that came from this node; `moved`: the gang runs on other nodes than when
    it was copied."""

    digest: str
    at: float
    mine: float | None
    moved: bool


Place = Literal["work", "checkpoint", "held"]
"""A folder of an attempt on its node: the one that its ranks begin in, its job's checkpoints, or what of
them is held while it is copied (see `AgentClient.hold`)."""


class HeldFile(TypedDict):
    path: str  # below the checkpoint folder
    mode: int
    size: int  # bytes
    mtime: float  # unix time
    sha256: str  # hex; empty for a link
    held: bool  # to be read as the file `sha256` of the place "held"; else by its path
    link: NotRequired[str]


class HeldUnit(TypedDict):
    """A file or folder at the top of a checkpoint folder (`jobs.checkpoints.units`). One that is not whole
    has no files."""

    name: str
    whole: bool
    files: list[HeldFile]
    missing: list[str]  # shards that other nodes must have
    sharded: bool  # it has shards whose list is in a `.metadata`
    headed_at: float | None  # unix time of that `.metadata`, where it is
    step: int | None  # the last step that was logged before it was written


class HoldReply(TypedDict):
    state: Literal["working", "ready"]
    detail: str
    units: list[HeldUnit]


class NodeFile(TypedDict):
    path: str  # below its folder
    mode: int  # 0o644 or 0o755
    size: int  # bytes
    mtime: float  # unix time
    link: NotRequired[str]  # of a link: where it leads; it has no bytes


class FileList(TypedDict):
    files: list[NodeFile]  # by path
    more: int  # how many are there that were not listed: too many, or names that are not text
    until: (
        float | None
    )  # unix time from which the node may remove them; None: not yet to be removed


class Leftover(TypedDict):
    """What an attempt wrote below its work folder that no output names."""

    files: int
    bytes: int


class StageReply(TypedDict):
    state: Literal["ready", "working", "failed"]
    detail: str  # what it is doing or what went wrong
    missing: list[str]  # digests of blobs that the agent needs pushed (`put_blobs`) first
    port: int | None  # a free port for MASTER_PORT, from node rank 0
    gpus: list[str]  # UUIDs allotted here
    clock: float
    blame: NotRequired[Literal["job", "node"]]  # of a failure; "job" when absent
    image: NotRequired[str]  # "sha256:..." of the image that it has; absent without one
    boot: NotRequired[str]  # of this machine, in which it was staged


class LaunchRequest(TypedDict):
    key: str
    epoch: int
    master_addr: str
    master_port: int
    node_addresses: list[str]  # by node rank
    secrets: dict[str, str]
    lease_until: float  # on the agent's own clock
    ray_address: NotRequired[str | None]


class StopRequest(TypedDict):
    key: str
    epoch: int
    grace: float
    reason: str  # "cancelled", "gang", "timeout", "stalled", "preempted", "drained"


class RankVitals(TypedDict):
    """How a rank is that runs (`jobs.life.stalls.Vitals`); durations in seconds on the node's boot clock."""

    process: str  # "running", "sleeping", "disk", "stopped", "traced", "" unknown
    process_for: float
    quiet: float  # since it last wrote a log line or a metric
    usual: float | None  # the usual gap between two writes
    longest: float
    kept: float  # how long it had been writing


class RankReport(TypedDict):
    rank: int
    local_rank: int
    pid: int | None
    started_at: float | None  # unix time, the node's wall clock
    exit_code: int | None
    signal: int | None
    ended_at: float | None
    ran: NotRequired[float]  # seconds so far, on the node's boot clock
    log_size: int  # bytes in its log file now
    metrics_size: int  # bytes in its metrics file now
    vitals: NotRequired[RankVitals]  # while it runs


class AttemptReport(TypedDict):
    """What a node knows of its part of an attempt.

    `state`: staged (nothing started) · running · stopping · ended (the guard wrote its record, or
    is confirmed dead and so are its ranks). `outcome`, once ended: done (every rank exited 0) ·
    failed (a rank failed; the guard stopped the others) · stopped (asked to) · fenced (lease ran
    out) · died (the guard was killed; its ranks died with it) · refused (a stop came before the
    launch).
    """

    key: str
    epoch: int
    state: Literal["staged", "running", "stopping", "ended"]
    outcome: Literal["", "done", "failed", "stopped", "fenced", "died", "refused"]
    reason: str
    first_failed: int | None  # global rank that failed first on this node
    first_failed_at: float | None  # unix time, to order failures between nodes
    gpus: list[str]
    ranks: list[RankReport]
    left: NotRequired[Leftover | None]  # once ended; None while it is being counted
    checkpoints: NotRequired[int]  # grows when another checkpoint is whole; absent without any
    lease: NotRequired[float]  # until when its guard lets it run; 0 before it is launched


class ProcessSample(TypedDict):
    pid: int
    gpu: str  # UUID
    memory: int


class GpuSample(TypedDict):
    index: int
    uuid: str
    model: str
    simulated: bool
    util: float | None
    mem_used: int | None
    mem_total: int
    power: float | None
    power_limit: float | None
    temp: float | None
    sm_clock: int | None
    mem_clock: int | None
    throttle: list[str]
    ecc_errors: int | None  # uncorrected, volatile
    ecc_corrected: int | None
    xid: int | None  # last Xid seen since the agent started; a fatal one stays
    pcie_rx: float | None
    pcie_tx: float | None
    nvlink_rx: float | None
    nvlink_tx: float | None
    processes: list[ProcessSample]
    error: str  # why the GPU could not be read ("GPU is lost"), "" when it could


class NodeSample(TypedDict):
    at: float  # unix time
    cpu_util: float
    load: float
    mem_used: int
    mem_total: int
    disk_used: int
    disk_total: int
    net_rx: float
    net_tx: float
    gpus: list[GpuSample]


class LogChunk(TypedDict):
    key: str
    rank: int
    offset: int
    data: bytes
    times: list[
        tuple[int, float]
    ]  # (offset, unix time): bytes from offset on were seen at that time


class MetricChunk(TypedDict):
    key: str
    rank: int
    offset: int  # byte offset in the rank's metrics file
    data: bytes  # whole NDJSON lines only


class SyncRequest(TypedDict):
    """One round of the controller's loop with an agent. The reply comes at once when there is
    something to tell, else after `wait` seconds."""

    protocol: int
    seen: int  # `revision` of the last reply that was processed, 0 at first
    wait: float
    leases: dict[str, float]  # key -> lease_until on the agent's clock
    logs: dict[str, dict[int, int]]  # key -> rank -> bytes the controller holds durably
    metrics: dict[str, dict[int, int]]
    forget: list[str]  # keys whose folder may go: all recorded
    max_bytes: int


class SyncReply(TypedDict):
    revision: int  # grows when an attempt changes; not with telemetry or log growth
    clock: float
    boot_id: str
    attempts: list[AttemptReport]  # all that the node holds
    logs: list[LogChunk]
    metrics: list[MetricChunk]
    sample: NodeSample | None  # the newest, None when the controller has it already
    problems: list[str]  # "disk full", "NVML: driver mismatch"


class RankStack(TypedDict):
    rank: int
    threads: list[dict[str, Any]]  # {"name": str, "frames": [str innermost first]}
    error: str


class ShellRequest(TypedDict):
    """A program to run beside a rank, in its environment and work folder.

    `name` is the attempt's own; `keep`: it goes on while nobody reads. `tool`: a program of ours, whose
    options `argv` is (`agents/node/shells/tools.py`); "" or left out: `argv` is the program.
    """

    name: str
    argv: list[str]
    env: dict[str, str]
    terminal: bool
    rows: int
    columns: int
    keep: bool
    tool: NotRequired[str]


class ShellReply(TypedDict):
    """What such a program has written: records of `agents/node/shells/holder.py`.

    `position`: the offset behind them, for the next question. `code` counts once it has ended.
    """

    position: int
    ended: bool
    code: int
    data: bytes


class LeftFolder(TypedDict):
    """The checkpoint folder of a job of which nothing else is on a node."""

    job: str  # as in the keys of its attempts
    files: int
    bytes: int  # on disk


class AgentClient(Protocol):
    """The agent as the controller sees it. Any call may raise errors.Unreachable."""

    async def hello(self) -> Hello: ...
    async def stage(self, plan: LaunchPlan) -> StageReply: ...
    async def put_blobs(self, pack: bytes) -> int: ...
    async def put_chunk(self, digest: str, offset: int, size: int, data: bytes) -> int: ...
    async def fetch_blob(self, digest: str, size: int, url: str) -> int: ...
    async def launch(self, request: LaunchRequest) -> AttemptReport: ...
    async def stop(self, request: StopRequest) -> AttemptReport: ...
    async def sync(self, request: SyncRequest) -> SyncReply: ...
    async def stacks(self, key: str) -> list[RankStack]: ...
    async def exchange(self, key: str, letter: bytes) -> bytes: ...
    async def open_shell(self, key: str, rank: int, request: ShellRequest) -> bool: ...
    async def shell(
        self, key: str, name: str, kind: str, number: int, data: bytes, wait: float
    ) -> ShellReply: ...
    async def list_files(
        self, key: str, place: Place, patterns: list[str], written: bool
    ) -> FileList: ...
    async def read_file(
        self, key: str, place: Place, path: str, offset: int, limit: int
    ) -> bytes: ...
    async def hash_file(
        self, key: str, place: Place, path: str, offset: int, limit: int
    ) -> str: ...
    async def hold(self, key: str, what: Literal["latest", "all", ""]) -> HoldReply:
        """Keep what is whole in a job's checkpoint folder as it is, under the digests of its files, and say
        what that is. Call it again until it is ready; "" lets go of it."""
        ...

    async def left_folders(
        self, jobs: list[str] | None, before: float, remove: bool
    ) -> list[LeftFolder]:
        """Checkpoint folders of jobs of which nothing else is here: the names alone (`jobs` None), or how
        large those of these jobs are in which nothing is newer than `before` (unix time); with `remove`
        they are removed. None at all where nodes share the folder."""
        ...
