"""From what is asked of a front to HAProxy's configuration and its maps (pure).

    {"services": [{"name": "d3", "bind": "127.0.0.1", "port": 8600,
                   "stable": "d3r1", "candidate": "d3r2" or "", "share": 5.0,
                   "backends": [{"name": "d3r1", "ready": "/v2/health/ready",
                                 "servers": [{"name": "e7", "address": "127.0.0.1:23456"}],
                                 "hold": null}],    # see hold.py
                   "keyed": false, "keys": {},    # see keys.py
                   "tls": null}]}                 # see tls.py

The split and the keys are in map files, which the runtime socket changes within a millisecond; all else takes
a new process, which is handed the listening sockets of the old one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import hold, keys
from .tls import Certificate, path_of

Asked = dict[str, Any]
NOTHING: Mapping[str, Certificate] = {}

MAP = "split.map"
NONE = "none"
BUCKETS = 10_000
"""Of a request without a key at random, of one with it by its hash: a share has a hundredth of a percent."""
KEY = "x-session-id"
"""The header by which a caller stays with a version. Who is in at 10 % is in at 25 % too."""

_HEAD = """\
# Written by quarterdeck_front.
global
    stats socket unix@{socket} mode 600 level admin expose-fd listeners
    stats timeout 1h
    log stdout len 256 format raw local0
    noreuseport
    maxconn 4096
    hard-stop-after 600s
    ssl-load-extra-files none
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    log global
    log-format "%b %ST %ts %[date(0,us),sub(txn.began)]"
    option dontlognull
    option redispatch 1
    option idle-close-on-response
    retries 3
    retry-on conn-failure empty-response
    timeout connect 1s
    timeout client 300s
    timeout server 300s
    timeout queue 10s
    timeout http-request 60s
    timeout http-keep-alive 60s
    timeout check 2s
    default-server check inter 500ms fastinter 100ms rise 1 fall 2 observe layer4 error-limit 3 on-error \
mark-down
"""

_ERRORS = {
    400: "the request is not HTTP as it should be",
    408: "the request took too long to come",
    502: "the replica's answer broke off",
    503: "no replica can take the request now",
    504: "the replica took too long",
}

_SERVICE = """
frontend {name}
    bind {bind}:{port}{tls}
    http-request set-var(txn.began) date(0,us)
{keys}    http-request del-header x-quarterdeck-shadow
    http-request set-var(txn.place) rand({buckets})
    http-request set-var(txn.place) req.hdr({key}),xxh32,mod({buckets}) if {{ req.hdr({key}) -m found }}
    http-request set-var(txn.share) str({name}.share),map({map},0)
    acl candidate var(txn.place),sub(txn.share) lt 0
    use_backend %[str({name}.candidate),map({map},{none})] if candidate
    use_backend %[str({name}.stable),map({map},{none})]
    default_backend {none}
"""


def backends(asked: Asked) -> dict[str, dict[str, Any]]:
    """Every backend by its name."""
    return {
        backend["name"]: backend for service in asked["services"] for backend in service["backends"]
    }


def configuration(
    asked: Asked, ready: set[str], socket: str, certificates: Mapping[str, Certificate] = NOTHING
) -> str:
    """HAProxy's configuration.

    Args:
        ready: addresses that have answered; the others come in when they do, for HAProxy believes in a
            new server until it has failed.
        socket: path of the runtime socket.
        certificates: by service. One that is to have one and does not is left out: never in plain text.
    """
    text = _HEAD.format(socket=socket)
    for status, words in _ERRORS.items():
        body = json.dumps({"error": words}).replace('"', '\\"')
        more = " hdr Retry-After 1" if status == 503 else ""
        text += (
            f'    http-error status {status} content-type application/json string "{body}"{more}\n'
        )
    text += f"\nbackend {NONE}\n" + keys.TABLES
    for service in asked["services"]:
        if service.get("tls") and service["name"] not in certificates:
            continue
        text += _SERVICE.format(
            name=service["name"],
            bind=service["bind"],
            port=service["port"],
            buckets=BUCKETS,
            key=KEY,
            map=MAP,
            none=NONE,
            keys=keys.rules(service["name"], MAP),
            tls=_tls(certificates.get(service["name"])),
        )
    for name, backend in backends(asked).items():
        text += f"\nbackend {name}\n    balance leastconn\n"
        text += f"    option httpchk GET {backend['ready']}\n    http-check expect status 200\n"
        for server in backend["servers"]:
            if server["address"] in ready:
                text += f"    server {server['name']} {server['address']}\n"
        if backend.get("hold"):
            # Who hangs up waits no longer: another may have the place.
            text += "    option abortonclose\n"
            path = hold.path_of(name)
            text += f"    server {hold.SERVER} unix@{path} backup no-check pool-max-conn 0\n"
    return text


def replicas(asked: Asked, ready: set[str]) -> list[tuple[str, str]]:
    """Backend and server of each replica that is in the configuration."""
    return [
        (name, server["name"])
        for name, backend in backends(asked).items()
        for server in backend["servers"]
        if server["address"] in ready
    ]


def _tls(certificate: Certificate | None) -> str:
    """A renewed certificate is another text, which takes another process."""
    if certificate is None:
        return ""
    return f" ssl crt {path_of(certificate.fd)} alpn http/1.1  # {certificate.sha256}"


def maps(asked: Asked) -> dict[str, dict[str, str]]:
    """The entries of each map file."""
    return {keys.MAP: keys.entries(asked["services"]), MAP: split(asked)}


def split(asked: Asked) -> dict[str, str]:
    """What a service's requests are split by, and whether they need a key."""
    entries: dict[str, str] = {}
    for service in asked["services"]:
        name = service["name"]
        entries[f"{name}.stable"] = service["stable"] or NONE
        entries[f"{name}.candidate"] = service["candidate"] or NONE
        entries[f"{name}.share"] = str(round(service["share"] * BUCKETS / 100))
        entries[f"{name}.keyed"] = str(int(service.get("keyed", False)))
    return entries


def map_file(entries: dict[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def steps(new: dict[str, dict[str, str]], old: dict[str, dict[str, str]]) -> list[str]:
    """The commands of the runtime socket that make the old maps the new ones.

    What is revoked goes first, and a service asks for keys only once its keys are there. A share goes
    down first and up last: no request meets a candidate that is not there.
    """
    before, after = old[keys.MAP], new[keys.MAP]
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    gone = [key for key in before if key not in after or key in changed]
    commands = [f"del map {keys.MAP} {key}" for key in gone]
    commands += [f"add map {keys.MAP} {key} {value}" for key, value in changed.items()]
    shares = {key: int(value) for key, value in old[MAP].items() if key.endswith(".share")}

    def rank(key: str) -> int:
        if not key.endswith(".share"):
            return 1
        return 0 if int(new[MAP][key]) < shares.get(key, 0) else 2

    return commands + [f"set map {MAP} {key} {new[MAP][key]}" for key in sorted(new[MAP], key=rank)]
