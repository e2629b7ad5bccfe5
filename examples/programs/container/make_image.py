"""Make a small image with this machine's Python and a shell, without a registry: for podman on this node.

python make_image.py [NAME]
"""

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

name = sys.argv[1] if len(sys.argv) > 1 else "localhost/quarterdeck-example:1"
stdlib = Path(sysconfig.get_path("stdlib"))
program = Path(os.path.realpath(sys.executable))
shell = [shutil.which(word) for word in ("sh", "env", "sleep", "ls", "cat")]


def libraries(binary: Path) -> set[str]:
    """Shared libraries that a program is linked with, the loader among them."""
    said = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/\S+) \(0x", said))


def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts
    heavy = {"site-packages", "dist-packages", "test", "__pycache__", "idlelib", "ensurepip"}
    return (
        None if heavy & set(parts) or any(part.startswith("config-") for part in parts) else entry
    )


binaries = [program, *map(Path, filter(None, shell)), *stdlib.glob("lib-dynload/*.so")]
with tempfile.TemporaryDirectory() as folder, tarfile.open(f"{folder}/image.tar", "w") as tar:
    tar.add(stdlib, str(stdlib), filter=wanted)
    tar.add(program, str(program))
    for path in filter(None, shell):
        tar.add(os.path.realpath(path), f"/usr/bin/{Path(path).name}")
    for path in sorted(set().union(*map(libraries, binaries))):
        tar.add(os.path.realpath(path), path)
    for link in ("/usr/bin/python", "/usr/bin/python3"):
        entry = tarfile.TarInfo(link)
        entry.type, entry.linkname = tarfile.SYMTYPE, str(program)
        tar.addfile(entry)
    for place, mode in (("/tmp", 0o1777), ("/root", 0o700), ("/proc", 0o755), ("/sys", 0o755)):
        entry = tarfile.TarInfo(place)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        tar.addfile(entry)
    entry = tarfile.TarInfo("/bin")
    entry.type, entry.linkname = tarfile.SYMTYPE, "usr/bin"
    tar.addfile(entry)
    passwd = b"root:x:0:0:root:/root:/bin/sh\n"
    entry = tarfile.TarInfo("/etc/passwd")
    entry.size = len(passwd)
    tar.addfile(entry, io.BytesIO(passwd))
    tar.close()
    settings = ["-c", "ENV PATH=/usr/bin", "-c", "ENV MADE_BY=make_image.py"]
    subprocess.run(["podman", "import", "--quiet", *settings, tar.name, name], check=True)
print(name)
