"""A backup restored onto hosts that were never part of the cluster. It ends the site, so it is the last."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.hosts.machines import network
from tests.hosts.site import Site
from tests.waiting import until

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]


def test_backups_are_kept_and_restored_onto_fresh_hosts(site: Site, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    words = ("--output", "note=note.txt", "--", "sh", "-c", "echo told; echo kept > note.txt")
    job = site.submit(*words, user="ben")
    site.qd("wait", job)
    settings = ("-e", f"quarterdeck_backup_to={copies}", "-e", "quarterdeck_backups_kept=2")
    for _ in range(3):
        site.play("backup.yml", *settings)
    here = sorted(copies.iterdir())
    assert len(here) == 2
    assert {path.stat().st_mode & 0o777 for path in here} == {0o600}
    there = site.head.run("sudo ls /var/lib/quarterdeck/backups").stdout.split()
    assert [f"quarterdeck-{name}.tar" for name in there] == [path.name for path in here]
    assert not site.head.run("ls /var/tmp | grep quarterdeck-backup || true").stdout
    with tarfile.open(here[-1]) as archive:
        assert not {"./ray-token", "./audit-key"} & set(archive.getnames())
    rows = site.json("audit", "verify")["rows"]
    for machine in site.network.machines:
        machine.power_off()
    with network("head", "w1") as made:
        made.power_on()
        fresh = Site(made, Path(site.variables["quarterdeck_wheelhouse"]))
        fresh.add_person("ben")
        fresh.play("site.yml")
        spoiled = tmp_path / "spoiled.tar"
        spoiled.write_bytes(here[-1].read_bytes()[:-40960])
        assert fresh.attempt("restore.yml", "-e", f"backup={spoiled}").returncode != 0
        assert fresh.json("jobs") == [], "a backup that is not whole was restored"
        fresh.play("restore.yml", "-e", f"backup={here[-1]}")
        view = fresh.json("job", job)
        assert (view["state"], view["user"]) == ("SUCCEEDED", "ben")
        assert fresh.log(job, 0) == "told\n"
        assert fresh.qd("cat", job, "note").stdout == "kept\n"
        assert fresh.json("audit", "verify")["rows"] >= rows
        until(lambda: fresh.nodes().get("w1") == "READY", "the worker to be back", 180, pause=1)
        fresh.qd("wait", fresh.submit("--nodes", "2", "--", "true"))
        assert (
            not made.machines[0].run("sudo ls /var/lib/quarterdeck/restoring", check=False).stdout
        )
