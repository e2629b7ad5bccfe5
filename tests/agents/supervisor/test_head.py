from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agents.supervisor import head
from agents.supervisor.__main__ import node_name
from agents.supervisor.policy import Size
from jobs.base.places import Places


def test_the_users_settings_for_ray_and_threads_do_not_reach_it(where: Places) -> None:
    user = {
        "PATH": "/bin",
        "RAY_ADDRESS": "elsewhere:1",
        "OMP_NUM_THREADS": "1",
        "QD_SIMULATE_GPUS": "9",
        "QD_HOME": "/h",
    }
    env = head.environment(user, where, "n1", Size(2, 0, simulated=False), "127.0.0.1")
    assert "RAY_ADDRESS" not in env
    assert "OMP_NUM_THREADS" not in env
    assert "QD_SIMULATE_GPUS" not in env, "real GPUs were asked for"
    assert (env["PATH"], env["QD_HOME"], env["QD_NODE_NAME"]) == ("/bin", "/h", "n1")
    assert env["QD_NODE_STATE"] == str(where.node)
    assert env["RAY_AUTH_MODE"] == "token"


def test_simulated_gpus_are_told_to_ray_and_to_the_agent(where: Places) -> None:
    size = Size(2, 3, simulated=True)
    assert head.environment({}, where, "n1", size, "127.0.0.1")["QD_SIMULATE_GPUS"] == "3"
    assert "--num-gpus=3" in head.command(where, "n1", size, "127.0.0.1", 20001)


def test_the_token_is_secret_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    head.make_token(path)
    token = path.read_text()
    assert len(token) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    head.make_token(path)
    assert path.read_text() == token


def test_the_port_stays_the_same_unless_somebody_else_has_it() -> None:
    port = head.free_port(None)
    assert port in head.PORTS
    assert head.free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert head.free_port(port) != port


def test_ports_that_are_to_be_known_are_those_of_one_block(where: Places) -> None:
    size = Size(2, 0, simulated=False)
    words = head.command(where, "n1", size, "10.0.0.1", 25000, 25000)
    words += head.join_command(where, "n2", size, "10.0.0.2", "10.0.0.1:25000", 25000)
    numbers = [int(w.partition("=")[2]) for w in words if "-port=" in w]
    assert {n for n in numbers if n} <= set(range(25000, 25100))  # 0: it does not listen at all
    for part in ("node-manager", "object-manager", "runtime-env-agent", "min-worker", "max-worker"):
        assert sum(word.startswith(f"--{part}-port=") for word in words) == 2
    assert "-manager-port" not in " ".join(head.command(where, "n1", size, "10.0.0.1", 25000))


def test_rays_folder_is_ours_alone_and_keeps_only_the_last_session(where: Places) -> None:
    head.prepare_folder(where)
    assert where.ray_temp.stat().st_mode & 0o777 == 0o700
    for name in ("session_2026-01-01_a", "session_2026-01-02_b", "session_2026-01-03_c"):
        (head.folder(where) / name).mkdir()
    (head.folder(where) / "session_latest").symlink_to("session_2026-01-03_c")
    head.prepare_folder(where)
    assert sorted(path.name for path in head.folder(where).iterdir()) == [
        "session_2026-01-03_c",
        "session_latest",
    ]


def test_a_link_in_place_of_rays_folder_is_not_followed(where: Places, tmp_path: Path) -> None:
    where.ray_temp.symlink_to(tmp_path)
    try:
        with pytest.raises(OSError, match="somebody else"):
            head.prepare_folder(where)
    finally:
        where.ray_temp.unlink()


def test_rays_sockets_fit_into_what_the_kernel_allows(where: Places) -> None:
    longest = (
        f"{head.folder(where)}/session_2026-11-23_06-43-33_947377_4194304/sockets/plasma_store"
    )
    assert len(longest) <= 107


@pytest.mark.parametrize(
    ("environ", "name"),
    [({"QD_NODE_NAME": "gpu-1"}, "gpu-1"), ({"QD_NODE_NAME": "a b/c"}, "a-b-c")],
)
def test_a_node_is_called_as_rays_labels_allow(environ: dict[str, str], name: str) -> None:
    assert node_name(environ) == name
    assert node_name({})


def test_the_supervisor_is_small() -> None:
    """It runs for months on the head node: nothing of Ray, nor asyncio or pydantic, is loaded."""
    program = (
        "import sys, agents.supervisor.__main__\n"
        "heavy = {'ray', 'asyncio', 'pydantic', 'sqlmodel', 'psutil'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ))
