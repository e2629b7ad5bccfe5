"""What the API says: the shapes of its answers, shared by the controller and every client.

They are `TypedDict`s: the controller checks and publishes them (OpenAPI), mypy checks both sides, and
a client pays nothing for them at run time. Times are RFC 3339 in UTC, sizes bytes, durations seconds,
utilisation percent (0 to 100), power watts, temperatures degrees Celsius.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from jobs.base.numbers import Number
from jobs.base.states import JobState

AttemptState = Literal[
    "PLACING",
    "STAGING",
    "RUNNING",
    "STOPPING",
    "SUCCEEDED",
    "FAILED",
    "CANCELLED",
    "PREEMPTED",
    "LOST",
]
RankState = Literal["PENDING", "RUNNING", "EXITED", "LOST"]
NodeState = Literal["READY", "DRAINING", "DRAINED", "SUSPECT", "LOST", "QUARANTINED"]


class Problem(TypedDict):
    """Something wrong, and what to do about it."""

    what: str
    fix: str
    severity: Literal["warning", "error"]


class ClusterView(TypedDict):
    nodes: int
    gpus: int
    simulated: bool
    cpus: float
    jobs: dict[str, int]  # how many jobs are in each state that is not terminal


class StorageView(TypedDict):
    """The store of blobs: snapshots, outputs and checkpoints."""

    blobs: int
    bytes: int  # on disk
    free: int  # bytes left on its disk now
    measured_at: str  # when the first two were found


class LeftFoldersView(TypedDict):
    """Checkpoint folders on a node of jobs that this registry does not know."""

    node: str
    folders: int
    bytes: int  # on disk


class PruneView(TypedDict):
    """What `qd prune` has let go of, or would."""

    dry_run: bool
    older_than: float  # seconds for which nobody has counted on it
    blobs: int
    bytes: int  # on disk
    checkpoints: int  # of populations, that no further turn can begin with
    kept: int
    kept_bytes: int
    left: list[LeftFoldersView]  # on nodes, which the controller's own daily round leaves alone
    unanswered: list[str]  # nodes that could not be asked


class Unanswered(TypedDict):
    """A node that has not confirmed the leases of its attempts."""

    node: str
    jobs: list[str]


class MaintenanceView(TypedDict):
    """A planned absence of the head."""

    since: str
    until: str
    left: float  # seconds
    reason: str
    user: str
    attempts: int  # that run, and have leases
    unanswered: list[Unanswered]  # nodes whose ranks stop when their ordinary leases end


class StatusView(TypedDict):
    state: Literal["ok", "degraded", "unreachable"]
    version: str
    cluster: ClusterView
    problems: list[Problem]
    cluster_id: NotRequired[str]
    uptime: NotRequired[float]
    pid: NotRequired[int]
    memory: NotRequired[int]  # resident bytes of the controller
    ray: NotRequired[str]  # "connected", "connecting"
    storage: NotRequired[StorageView]
    maintenance: NotRequired[MaintenanceView]  # while the head is in maintenance


class StrayView(TypedDict):
    """An attempt that a node holds and the registry never gave."""

    node: str
    key: str  # its name on the node's disk
    run: str  # as that registry called it, "j7.2"
    cluster: str
    ours: bool  # of this cluster, from before its registry was restored
    state: Literal["staged", "running", "stopping", "ended"]
    outcome: str
    ranks: int
    gpus: list[str]  # UUIDs
    log_bytes: int  # on the node


class CheckView(TypedDict):
    """One line of `qd doctor`."""

    name: str
    ok: bool
    detail: str
    fix: str


class ErrorFacts(TypedDict):
    code: str  # of a class of `jobs.base.errors`
    message: str  # what happened, to what, in one sentence
    hint: str  # what to do next, or empty
    details: dict[str, Any]


class ErrorView(TypedDict):
    """The answer to whatever is refused or fails."""

    error: ErrorFacts


class SubmitView(TypedDict):
    id: str
    state: JobState
    created: bool
    reason: str


class AtHome(TypedDict):
    """What of a work folder did not travel, since git ignores it; debris and environments apart."""

    files: int
    bytes: int
    paths: list[str]  # the heaviest files and folders (with `/` at the end), 200 at most


class GitView(TypedDict):
    commit: str
    branch: str
    dirty: bool
    diff: NotRequired[str]  # `git diff HEAD`, cut at 1 MiB
    at_home: NotRequired[AtHome]


class MetricValue(TypedDict):
    value: Number | None  # None where the script logged NaN
    step: int
    at: str


class JobView(TypedDict):
    """One row of `qd jobs`."""

    id: str
    name: str
    user: str
    state: JobState
    reason: str  # for people: why it waits, or how it ended
    priority: int
    nodes: int
    ranks: int
    gpus: float
    cpus: float
    kind: str
    tags: dict[str, str]
    attempt: int  # 0 before the first
    restarts: int
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None  # of the first failing rank; 0 after success
    placed_on: list[str]  # node names of the current or last attempt
    objective: MetricValue | None
    revision: int  # grows with each change of this row
    stalled: NotRequired[bool]  # it runs, and makes no progress; `reason` says since when


class FirstFailure(TypedDict):
    rank: int | None  # None: not a rank's doing (a node was lost, nothing could be staged)
    node: str
    exit_code: int | None
    signal: str | None  # "SIGKILL"
    tail: list[str]  # its last log lines
    reason: str


class RankView(TypedDict):
    rank: int
    node: str
    local_rank: int
    pid: int | None
    gpus: list[str]  # UUIDs, "SIM-..." for simulated ones
    state: RankState
    exit_code: int | None
    signal: str | None
    log_bytes: int


class LeftView(TypedDict):
    """What an attempt wrote below its work folder that no output names: it stays on its node for a while."""

    files: int
    bytes: int


class AttemptView(TypedDict):
    id: str  # "j1.2"
    number: int
    state: AttemptState
    reason: str
    started_at: str | None
    ended_at: str | None
    first_failure: FirstFailure | None
    ranks: list[RankView]
    left: NotRequired[LeftView]


class ArtifactView(TypedDict):
    name: str
    path: str
    digest: str
    size: int
    attempt: int
    kind: NotRequired[Literal["file", "folder"]]  # of a folder, the digest is that of a manifest
    files: NotRequired[int]
    data: NotRequired[str]  # the version of a data set that it became


class FileView(TypedDict):
    """One file that a job wrote."""

    place: Literal["output", "checkpoint", "work"]
    name: str  # of the output, else empty
    path: str  # below the work folder, or below the checkpoint folder
    size: int
    mode: int
    at: str | None  # when it was last written
    node: str | None  # where it is; None: in the control plane's store
    sha256: str | None  # hex; known of what is in the store
    link: NotRequired[str]  # where a link leads; it has no bytes


class FilesView(TypedDict):
    """`missing` says in words what could not be listed."""

    id: str
    attempt: int
    files: list[FileView]  # by place and path
    until: str | None  # from when on the nodes may remove theirs
    missing: list[str]


class CopyView(TypedDict):
    """A checkpoint that was copied to the head."""

    names: list[str]
    step: int | None
    at: str  # when the newest of its files was written
    copied_at: str
    seconds: float  # that it took
    files: int
    size: int  # bytes
    sent: int  # bytes that were not there before
    attempt: int
    digest: str


class CheckpointView(TypedDict):
    """How a job's checkpoints are copied, and what a restart on other nodes would cost now."""

    copy: Literal["latest", "all", "off"]
    copies: list[CopyView]  # newest first
    progress: str  # of a copy that is being made
    problem: str  # why none is made
    lost_steps: int | None  # since the newest copy, or since the beginning
    lost_seconds: float | None
    text: str  # all of it in a sentence


class JobDetail(JobView):
    spec: dict[str, Any]
    snapshot: str | None  # "sha256:..."
    image: NotRequired[str]  # "sha256:..." of its container image, once a node has it
    git: GitView | None
    attempts: list[AttemptView]  # oldest first
    metrics: dict[str, MetricValue]  # latest value of each name, rank 0 first
    artifacts: list[ArtifactView]
    warnings: NotRequired[list[str]]  # about its outputs
    checkpoint: CheckpointView | None  # of a job whose checkpoints are copied


class JobPage(TypedDict):
    jobs: list[JobView]  # newest first
    next: str | None  # pass as `before` for the following page
    total: int  # jobs that match, on all pages


class Unblock(TypedDict):
    """One change that would let a waiting job start, smallest first."""

    change: str
    command: str  # a qd command line, or empty


class ExplainView(TypedDict):
    id: str
    state: JobState
    summary: str  # one sentence
    reasons: list[str]
    unblock: list[Unblock]
    first_failure: FirstFailure | None
    story: list[str]  # events of the job, oldest first, "12:03:11 placed on n1"
    checkpoint: NotRequired[str]  # which was copied last, and what a restart would cost now


class StackGroup(TypedDict):
    ranks: list[int]
    thread: str
    frames: list[str]  # innermost first


class StacksView(TypedDict):
    id: str
    groups: list[StackGroup]  # equal stacks together, largest group first
    failed: dict[str, str]  # rank -> why its stack could not be read


class ShellView(TypedDict):
    id: str
    rank: int
    new: bool  # false: somebody had left it there


class GpuView(TypedDict):
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
    sm_clock: int | None  # MHz
    mem_clock: int | None  # MHz
    throttle: list[str]  # reasons in words, empty when not throttled
    ecc_errors: int | None  # uncorrected, since the driver was loaded
    pcie_rx: float | None  # bytes per second
    pcie_tx: float | None
    processes: list[int]  # pids that use it, as far as the driver tells
    job: str | None
    rank: int | None


class CpuView(TypedDict):
    count: float
    util: float | None
    load: float | None  # 1 minute


class MemoryView(TypedDict):
    used: int | None
    total: int


class NodeView(TypedDict):
    name: str
    address: str
    state: NodeState
    reason: str
    gpus: list[GpuView]
    cpu: CpuView
    memory: MemoryView
    disk: MemoryView
    net_rx: float | None  # bytes per second
    net_tx: float | None
    jobs: list[str]  # ids of jobs with ranks here
    free_gpus: float
    free_cpus: float
    seen_at: str | None
    age: float  # seconds since the last sample, by the controller's clock
    labels: dict[str, str]
    note: NotRequired[str]  # what the request that this answers has done besides


class LogLine(TypedDict):
    rank: int
    offset: int  # byte offset of the line's start in the rank's log
    at: str  # when the agent first saw it; resolution about 0.2 s
    line: str  # bytes that are not UTF-8 appear as \\xNN; no newline
    attempt: int


class MetricPoint(TypedDict):
    name: str
    step: int
    at: str
    value: Number | None
    rank: int


class SeriesPoint(TypedDict):
    step: int
    at: float  # seconds since the epoch
    value: Number | None


class EventView(TypedDict):
    id: int
    at: str
    kind: str  # "job.state", "node.lost", ...
    severity: Literal["info", "warning", "error"]
    job: str | None
    node: str | None
    user: str | None
    message: str


class HistoryPoint(TypedDict):
    """One down-sampled telemetry sample: the mean of the bucket, and its extremes."""

    at: float
    mean: float
    low: float
    high: float


class Delta(TypedDict):
    """One line of `GET /v1/watch`.

    `reset` tells the client to drop what it holds of the topic: full state follows as `put`s and ends
    with `ready`. `put` carries a whole new value for a key, `del` removes one. `ping` comes each
    second when nothing else does, so that a client can tell silence from a cut.
    """

    rev: int
    op: Literal["reset", "put", "del", "ready", "ping"]
    topic: str  # "jobs", "nodes", "events", "job:j1"
    key: NotRequired[str]
    value: NotRequired[Any]  # JobView, NodeView, EventView, JobDetail
    boot: NotRequired[str]  # with `ready` and `ping`: names this controller process
