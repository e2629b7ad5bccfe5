"""A cluster that is upgraded, grows and shrinks while a job runs on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.hosts.site import Site
from tests.waiting import until

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]


def test_an_upgrade_goes_on_under_a_running_job(site: Site, tmp_path: Path) -> None:
    """To the same code in another archive, which makes it another release."""
    archive = tmp_path / "other.tar"
    shutil.copy(site.variables["quarterdeck_wheelhouse"], archive)
    with archive.open("ab") as file:
        file.write(bytes(10240))  # tar allows any number of empty blocks at the end
    before = site.head.run("readlink /usr/local/bin/qd").stdout
    job = site.steady()
    ranks = site.ranks(job)
    site.variables["quarterdeck_wheelhouse"] = str(archive)
    site.play("upgrade.yml")
    assert site.head.run("readlink /usr/local/bin/qd").stdout != before
    for machine in site.network.machines:
        release = machine.run("readlink -f /usr/local/bin/qd").stdout.split("/bin/")[0]
        unit = "quarterdeck-head" if machine is site.head else "quarterdeck-worker"
        pid = machine.run(f"systemctl show -P MainPID {unit}").stdout.strip()
        assert release in machine.run(f"sudo tr '\\0' ' ' < /proc/{pid}/cmdline").stdout
    assert all(site.machine(node).runs(pid) for node, pid in ranks.items())
    assert site.ranks(job) == ranks
    view = site.finish(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)


def test_a_node_leaves_and_comes_back(site: Site) -> None:
    leaver = site.workers[-1]
    site.play("remove-node.yml", "-e", f"node={leaver.name}")
    assert leaver.name not in site.nodes()
    assert not leaver.run("pgrep -u quarterdeck", check=False).stdout
    assert leaver.run("sudo test -e /etc/quarterdeck/token", check=False).returncode != 0
    site.write_inventory(site.workers[:-1])
    site.play("site.yml")
    assert leaver.address not in site.head.run("sudo nft list ruleset").stdout
    site.write_inventory(site.workers)
    counted = site.play("add-node.yml", "-e", f"node={leaver.name}")
    assert counted[leaver.name]["changed"] > 0
    until(lambda: site.nodes().get(leaver.name) == "READY", "the node to be back", 120)
    job = site.submit("--nodes", "2", "--", "true")
    site.qd("wait", job)


def test_the_token_and_all_certificates_are_changed_under_a_running_job(site: Site) -> None:
    secrets = ("/etc/quarterdeck/token", "/etc/quarterdeck/tls/authority.crt")
    old = [site.head.run(f"sudo cat {path}").stdout for path in secrets]
    job = site.steady(lease="5m")
    ranks = site.ranks(job)
    site.head.run("sudo rm -r /etc/quarterdeck/token /etc/quarterdeck/tls")
    site.play("site.yml")
    for machine in site.network.machines:
        new = [machine.run(f"sudo cat {path}").stdout for path in secrets]
        assert all(one != before for one, before in zip(new, old, strict=True))
        assert new == [site.head.run(f"sudo cat {path}").stdout for path in secrets]
    until(lambda: set(site.nodes().values()) == {"READY"}, "all nodes to be back", 180, pause=1)
    assert all(site.machine(node).runs(pid) for node, pid in ranks.items())
    view = site.finish(job)
    assert (view["state"], len(view["attempts"])) == ("SUCCEEDED", 1)
