"""Start the processes of one node of a job in a container, with the variables that their launcher would set.

    python3 quarterdeck_ranks.py --nodes 2 --procs 4 --launch torchrun -- python train.py
    python3 quarterdeck_ranks.py --ready /health        # exits with 0 if $PORT answers 200 there

In a cluster of Quarterdeck a guard does this. In an image that `qd export image` made there is none, and
this file takes its place: standard library only. $NODE_RANK says which node this is, or
$JOB_COMPLETION_INDEX, which an indexed Job of Kubernetes sets; $MASTER_ADDR says where rank 0 is. Ranks write
to this process's own output. When one fails, the others get SIGTERM and, after the grace time, SIGKILL; the
exit code is the first failure's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import time

TORCH, JAX, TF = 0, 1, 2
"""Ports from $MASTER_PORT on: for torch's store, JAX's coordinator, and TF_CONFIG's workers."""


def variables(
    nodes: int,
    procs: int,
    launch: str,
    node: int,
    local: int,
    *,
    address: str = "127.0.0.1",
    port: int = 29500,
    gpus: int = 0,
) -> dict[str, str]:
    """What one rank finds, in the words of its launcher.

    Args:
        node: place of this node, from 0. local: place of the rank on it, from 0.
        address, port: where rank 0 waits for the others.
        gpus: those of the node, which JAX's processes share.
    """
    rank, size = node * procs + local, nodes * procs
    env = {"QD_RANK": str(rank), "QD_WORLD_SIZE": str(size)}
    meeting = {"MASTER_ADDR": address, "MASTER_PORT": str(port + TORCH)}
    jax = {
        "JAX_COORDINATOR_ADDRESS": f"{address}:{port + JAX}",
        "JAX_NUM_PROCESSES": str(size),
        "JAX_PROCESS_ID": str(rank),
    }
    mpi = {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
    }
    if launch == "torchrun":
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        env.update(meeting, **jax)
        env.update(
            RANK=str(rank),
            LOCAL_RANK=str(local),
            WORLD_SIZE=str(size),
            LOCAL_WORLD_SIZE=str(procs),
            NODE_RANK=str(node),
            GROUP_RANK=str(node),
            TORCHELASTIC_RUN_ID=os.environ.get("TORCHELASTIC_RUN_ID", "export"),
            TORCHELASTIC_RESTART_COUNT=restarts,
        )
        if nodes == 1 and size > 1:  # of several pods only the first one's name is known here
            workers = [f"{address}:{port + TF + place}" for place in range(procs)]
            task = {"type": "worker", "index": rank}
            env["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    elif launch == "mpi":
        env.update(meeting, OMPI_COMM_WORLD_LOCAL_SIZE=str(procs), **mpi)
    elif launch == "jax":
        env.update(jax, **mpi)
        env["OMPI_MCA_orte_hnp_uri"] = f"0.0;tcp://{address}:{port + JAX}"
        each = gpus // procs
        if each:
            first = local * each
            env["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(first, first + each)))
    return env


def is_ready(path: str) -> bool:
    """Whether what listens on $PORT here answers 200 to a GET of this path."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=4)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def run(processes: list[subprocess.Popen[bytes]], grace: float) -> int:
    """Wait for all; the exit code as a shell has it, of the first that failed."""
    stopped: list[float] = []

    def stop(number: int = signal.SIGTERM, frame: object = None) -> None:
        stopped.append(time.monotonic())
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    code = 0
    while True:
        ended = [process.poll() for process in processes]
        failed = [one for one in ended if one]
        if failed and not code:
            code = 128 - failed[0] if failed[0] < 0 else failed[0]
            stop()
        if None not in ended:
            return code
        if stopped and time.monotonic() > stopped[0] + grace:
            for process in processes:
                if process.poll() is None:
                    process.kill()
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(prog="quarterdeck_ranks", description=__doc__)
    parser.add_argument("--ready", metavar="PATH")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--procs", type=int, default=1)
    parser.add_argument("--launch", choices=["torchrun", "plain", "jax", "mpi"], default="torchrun")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--grace", type=float, default=10.0, help="seconds")
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    if args.ready is not None:
        return 0 if is_ready(args.ready) else 1
    if not args.command:
        parser.error("no command")
    node = int(os.environ.get("NODE_RANK") or os.environ.get("JOB_COMPLETION_INDEX") or "0")
    address = os.environ.get("MASTER_ADDR") or "127.0.0.1"
    port = int(os.environ.get("MASTER_PORT") or "29500")
    if not 0 <= node < args.nodes:
        parser.error(
            f"this is node {node} of {args.nodes}: $NODE_RANK or $JOB_COMPLETION_INDEX is wrong"
        )
    gang = (args.nodes, args.procs, args.launch, node)
    meeting = {"address": address, "port": port, "gpus": args.gpus}
    places = [{**os.environ, **variables(*gang, local, **meeting)} for local in range(args.procs)]
    if args.procs == 1:
        os.execvpe(args.command[0], args.command, places[0])  # noqa: S606 - that is what it is for
    return run([subprocess.Popen(args.command, env=env) for env in places], args.grace)


if __name__ == "__main__":
    sys.exit(main())
