"""The hosts that the other tests are made of: they reach who they should, and leave nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT, Host, Network, cannot, network
from tests.waiting import until

LISTEN = "import socket, time; s = socket.create_server(('', 7000)); time.sleep(60)"


@pytest.fixture
def net() -> Iterator[Network]:
    if reason := cannot():
        pytest.skip(reason)
    with network() as made:
        yield made


def reaches(one: Host, other: Host) -> bool:
    program = f"import socket; socket.create_connection(({other.address!r}, 7000), 0.5)"
    return one.run(sys.executable, "-S", "-c", program, check=False).returncode == 0


def listen(host: Host) -> None:
    host.run("sh", "-c", f'{sys.executable} -S -c "{LISTEN}" >/dev/null 2>&1 &')
    until(lambda: reaches(host, host), "the listener")


def listed(host: Host) -> list[str]:
    """What lies in its /tmp; the checkout shows up there too when it is itself below /tmp."""
    return host.run("ls", "/tmp").stdout.split()


def test_hosts_reach_each_other_until_the_cable_is_pulled(net: Network) -> None:
    one, other = net.add("one"), net.add("other")
    listen(other)
    assert reaches(one, other)
    one.unplug()
    assert not reaches(one, other)
    one.plug()
    until(lambda: reaches(one, other), "the way back")


def test_a_host_has_a_name_a_disk_and_processes_of_its_own(net: Network) -> None:
    one, other = net.add("one"), net.add("other")
    assert one.run("hostname").stdout == "one\n"
    one.run("touch", "/tmp/mine")
    assert (one.folder / "tmp" / "mine").exists()
    assert "mine" not in listed(other)
    listen(one)
    assert len(one.processes()) == 2
    assert len(other.processes()) == 1
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    boots = {host.run("cat", "/proc/sys/kernel/random/boot_id").stdout for host in (one, other)}
    assert len(boots | {boot}) == 3


def test_what_is_switched_off_is_gone_but_for_its_disk(net: Network) -> None:
    one, other = net.add("one"), net.add("other")
    listen(other)
    before = other.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    other.run("touch", "/tmp/kept")
    other.power_off()
    assert other.processes() == {}
    assert not reaches(one, other)
    other.power_on()
    assert "kept" in listed(other)
    assert other.run("cat", "/proc/sys/kernel/random/boot_id").stdout != before
    listen(other)
    until(lambda: reaches(one, other), "the host that is back")


def test_two_networks_do_not_meet_and_leave_nothing(net: Network) -> None:
    """They use the same names and addresses."""
    links = set(Path("/sys/class/net").iterdir())
    one = net.add("one")
    with network() as second:
        twin, other = second.add("one"), second.add("other")
        listen(other)
        assert reaches(twin, other)
        assert not reaches(one, other), "the address is free in the first one"
        pids = [twin.pid, other.pid]
        folder = second.folder
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "their end")
    assert not folder.exists()
    assert set(Path("/sys/class/net").iterdir()) == links


def test_hosts_end_with_the_test_that_made_them(net: Network) -> None:
    """Also when it is killed and can clean up nothing."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.cluster.hosts import Network\n"
        f"made = Network(Path({str(net.folder)!r}))\n"
        "host = made.add('short')\n"
        "sys.stdout.write(f'{host.pid} {made.pid}\\n'); sys.stdout.flush()\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pids = child.stdout.readline().split()
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        child.send_signal(signal.SIGKILL)
    until(lambda: not any(running(int(pid)) for pid in pids), "the end of the host and the switch")


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
