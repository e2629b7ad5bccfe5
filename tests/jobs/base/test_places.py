"""Where things live on disk."""

from __future__ import annotations

from pathlib import Path

from jobs.base.places import database_file, places


def test_a_state_folder_from_before_keeps_its_database(tmp_path: Path) -> None:
    assert database_file(tmp_path) == tmp_path / "state.db"
    (tmp_path / "registry.db").touch()
    assert database_file(tmp_path) == tmp_path / "registry.db"


def test_a_service_has_the_folders_that_a_system_gives_it(tmp_path: Path) -> None:
    here = places({"QD_SYSTEM": "1", "HOME": "/home/me", "XDG_STATE_HOME": "/elsewhere"})
    assert str(here.state) == "/var/lib/quarterdeck"
    assert str(here.socket) == "/run/quarterdeck/api.sock"
    assert str(here.config_file) == "/etc/quarterdeck/config.toml"
    assert places({"QD_SYSTEM": "1", "QD_HOME": str(tmp_path)}).state == tmp_path / "state"
