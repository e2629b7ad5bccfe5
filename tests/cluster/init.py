"""The first process of a host: sets the host up, says so, and reaps what is orphaned until it is killed.

    python init.py NAME FOLDER KEEP...

Runs in namespaces of its own (mount, pid, net, uts, ipc). /tmp becomes FOLDER/tmp; each KEEP is a
folder that must stay visible even when it lies below /tmp. Its end is the host's: the kernel kills
every process of the host with it.
"""

import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def main() -> None:
    name, folder, keep = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    socket.sethostname(name)
    tmp = folder / "tmp"
    for path in keep:
        if path.startswith("/tmp/"):
            (folder / path[1:]).mkdir(parents=True, exist_ok=True)
            mount("--rbind", path, str(folder / path[1:]))
    # Each start of a host is a boot of its own, for whoever asks.
    (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
    mount("--bind", str(folder / "boot_id"), "/proc/sys/kernel/random/boot_id")
    mount("-t", "tmpfs", "tmpfs", "/dev/shm")
    mount("--rbind", str(tmp), "/tmp")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.chdir("/")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)


main()
