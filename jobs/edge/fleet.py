"""A fleet as a person writes it: hosts over ssh, in waves, and what says that a host is well."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from jobs.base.errors import InvalidInput
from jobs.base.units import show
from jobs.spec import fields, problems, yamlfile
from jobs.spec.problems import Problem

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|\[?[0-9A-Fa-f:]+\]?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PATH = re.compile(r"(/[^/\x00-\x1f\x7f]+)+")
_SHARE = re.compile(r"(\d{1,3})%")
ALLOWED = "ssh://[USER@]HOST[:PORT]/PATH"


@dataclass(frozen=True, slots=True)
class Host:
    """Where a release goes. `user` and `port` are None where ssh's own configuration says them."""

    host: str
    path: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str, path: str | None = None) -> Host:
        """Read a URL; `path` is for one that has none. Raises ValueError."""
        try:
            parts = urlsplit(text)
            port, user, host = parts.port, parts.username, parts.hostname
        except ValueError:
            raise ValueError(f"found {show(text)}; allowed: {ALLOWED}") from None
        place = unquote(parts.path).rstrip("/") or path or ""
        wrong = parts.scheme != "ssh" or parts.query or parts.fragment or parts.password is not None
        if wrong or not host or not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
            raise ValueError(f"found {show(text)}; allowed: {ALLOWED}")
        if not _PATH.fullmatch(place) or {".", ".."} & set(place.split("/")):
            raise ValueError(f"found {show(text)}; its path must be whole, such as /opt/model")
        return cls(host, place, user, port)

    @property
    def url(self) -> str:
        """One text for one place."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}{port}{self.path}"


class Fleet(BaseModel):
    """Hosts that get the same version."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: fields.Name
    hosts: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=10_000)] = Field(
        description=f"{ALLOWED}; without /PATH, `path`"
    )
    path: str | None = Field(None, description="a folder on the hosts, for those that name none")
    waves: Annotated[tuple[int | str, ...], Field(strict=False, max_length=100)] = Field(
        (), description="how many hosts each wave has, such as [1, 10%]; the last has the rest"
    )
    health: str | None = Field(
        None, description="run by sh in the folder of the release; 0 says that the host is well"
    )
    health_within: fields.Patience = Field(60.0, description="how long it may take to be well")
    patience: fields.Timeout = Field(1800.0, description="how long a host may be out of reach")
    parallel: Annotated[int, Field(ge=1, le=64)] = Field(8, description="hosts at the same time")
    keep: Annotated[int, Field(ge=1, le=100)] = Field(3, description="releases that stay on a host")

    @field_validator("waves")
    @classmethod
    def _sizes(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for size in value:
            share = _SHARE.fullmatch(size) if isinstance(size, str) else None
            given = int(share[1]) if share else size
            if not isinstance(given, int) or given < 1 or (share and given > 100):
                raise ValueError(
                    f"found {show(size)}; allowed: a number of hosts, or a share such as 10%"
                )
        return value

    @field_validator("health")
    @classmethod
    def _a_command(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or "\0" in value or len(value) > 4096):
            raise ValueError("allowed: a command")
        return value

    def places(self) -> list[Host]:
        """Its hosts. Raises InvalidInput."""
        found: dict[str, Host] = {}
        for number, text in enumerate(self.hosts):
            try:
                host = Host.parse(text, self.path)
            except ValueError as error:
                raise InvalidInput(f"hosts[{number}]: {error}") from None
            if host.url in found:
                raise InvalidInput(f"hosts[{number}]: {host.url} is there twice")
            found[host.url] = host
        return list(found.values())

    def numbers(self) -> list[int]:
        """The wave of each host, in order, from 0."""
        total = len(self.hosts)
        out: list[int] = []
        for wave, size in enumerate((*self.waves, total)):
            if isinstance(size, str):
                size = math.ceil(int(size.rstrip("%")) * total / 100)
            out += [wave] * min(size, total - len(out))
        return out

    @classmethod
    def from_json(cls, data: Any) -> Fleet:
        """Raises InvalidInput naming every field that is wrong."""
        try:
            fleet = cls.model_validate(data)
        except ValidationError as error:
            raise problems.in_data(problems.find(error, cls), "fleet") from None
        fleet.places()
        return fleet

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)


def of_one(url: str, health: str | None) -> Fleet:
    """A fleet of one host, named after it. Raises InvalidInput."""
    try:
        host = Host.parse(url)
    except ValueError as error:
        raise InvalidInput(f"--to: {error}") from None
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", host.host).strip("-._") or "edge"
    more = {} if health is None else {"health": health}
    return Fleet.from_json({"name": name, "hosts": [host.url], **more})


def load_fleet(path: Path) -> Fleet:
    """Read a fleet file. Raises InvalidInput, `file:line: field: what was found; allowed: ...`."""
    document = yamlfile.load(path)
    if not isinstance(document.data, dict):
        what = Problem((), "allowed: a fleet, at least name and hosts")
        raise problems.in_document([what], document)
    try:
        fleet = Fleet.model_validate(document.data)
    except ValidationError as error:
        raise problems.in_document(problems.find(error, Fleet), document) from None
    try:
        fleet.places()
    except InvalidInput as error:
        raise InvalidInput(f"{document.name}: {error.message}", error.hint) from None
    return fleet
