"""What can be reached and heard from outside the cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.hosts.machines import Machine
from tests.hosts.site import Site
from tests.waiting import until

pytestmark = pytest.mark.timeout(900)
CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"


def reached(site: Site, machine: Machine, port: int, source: Machine | None = None) -> bool:
    """Whether a port can be connected to from another host, or from outside."""
    if source is not None:
        words = f'python3 -c "{CONNECT}" {machine.address} {port}'
        return source.run(words, check=False).returncode == 0
    done = site.network.outside("python3", "-c", CONNECT, machine.address, str(port))
    return done.returncode == 0


def listening(machine: Machine) -> set[int]:
    """TCP ports that something of ours listens on, other than for the host alone."""
    lines = machine.run("sudo ss -Htln").stdout.splitlines()
    ends = [line.split()[3] for line in lines]
    return {int(end.rpartition(":")[2]) for end in ends if not end.startswith(("127.", "[::1]"))}


def test_ports_are_pinned_and_closed_to_outsiders(site: Site) -> None:
    for machine in site.network.machines:
        ports = listening(machine) - {22}
        assert ports, f"nothing listens on {machine.name}"
        assert ports <= set(range(19000, 19100)), f"{machine.name} listens on {sorted(ports)}"
        other = next(one for one in site.network.machines if one is not machine)
        for port in ports:
            assert reached(site, machine, port, source=other), f"{machine.name}:{port}"
            assert not reached(site, machine, port), f"{machine.name}:{port} is open to all"
        assert reached(site, machine, 22), "SSH is left alone"


@contextlib.contextmanager
def heard(site: Site, machine: Machine, word: str) -> Iterator[dict[str, int]]:
    """Frames on a host's link, and those that hold a word."""
    counts: dict[str, int] = {}
    with site.network.sniffer(machine, word) as sniffer:
        yield counts
        sniffer.terminate()
        assert sniffer.stdout is not None
        counts["frames"], counts["found"] = map(int, sniffer.stdout.readline().split())


def test_nothing_between_hosts_can_be_read(site: Site) -> None:
    token = site.head.run("sudo cat /etc/quarterdeck/token").stdout.strip()
    with heard(site, site.workers[0], token) as counts:
        worker = site.workers[0]
        worker.run("sudo systemctl restart quarterdeck-worker")
        until(lambda: site.nodes()[worker.name] == "READY", "the node to be back", 120)
        job = site.submit("--nodes", "2", "--", "true")
        site.qd("wait", job)
    assert counts["frames"] > 100
    assert counts["found"] == 0, "the token was on the wire in clear"


def test_a_host_without_tls_is_told_at_once(site: Site) -> None:
    worker = site.workers[0]
    worker.run("sudo sed -i s/RAY_USE_TLS=1/RAY_USE_TLS=0/ /etc/quarterdeck/environment")
    try:
        worker.run("sudo systemctl restart quarterdeck-worker")
        status = "systemctl show -P StatusText quarterdeck-worker"
        until(
            lambda: "speaks TLS, and this host has it off" in worker.run(status).stdout, "words", 30
        )
    finally:
        worker.run("sudo sed -i s/RAY_USE_TLS=0/RAY_USE_TLS=1/ /etc/quarterdeck/environment")
        worker.run("sudo systemctl restart quarterdeck-worker")
    until(lambda: site.nodes()[worker.name] == "READY", "the node to be back", 120)


def test_no_rank_reads_keys_or_settings_of_the_cluster_in_its_environment(site: Site) -> None:
    job = site.submit("--", "sh", "-c", "env")
    site.qd("wait", job)
    said = site.log(job, 0)
    token = site.head.run("sudo cat /etc/quarterdeck/token").stdout.strip()
    assert "QD_JOB=" in said
    assert "TLS" not in said
    assert "RAY_" not in said
    assert token not in said
