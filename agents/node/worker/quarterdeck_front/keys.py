"""API keys before a service: what HAProxy asks of a request, and its map of keys (pure).

    {"name": "d3", "keyed": true,
     "keys": {"<sha256 of the key, in hex>": {"id": 7, "limit": 100, "seconds": 1}}}

The front never has a key, only its digest. Whether a service asks for keys, and which there are, are in map
files, which the runtime socket changes: giving out or revoking one starts no process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAP = "keys.map"
HEADER = "x-api-key"
PERIODS = {"1": "key_seconds", "60": "key_minutes"}
"""Seconds over which a limit is counted, and the table that counts them."""

TABLES = "".join(
    f"\nbackend {name}\n    stick-table type string len 32 size 100k expire {int(seconds) * 10}s "
    f"store gpc0_rate({seconds}s)\n"
    for seconds, name in PERIODS.items()
)


def _refusal(status: int, words: str, header: str) -> str:
    body = json.dumps({"error": words}).replace('"', '\\"')
    return f'return status {status} content-type application/json string "{body}" hdr {header}'


_NO_KEY = _refusal(401, "this service asks for an API key, and this is none of its keys",
                   "WWW-Authenticate Bearer")  # fmt: skip
_TOO_MANY = _refusal(429, "this API key has used up its requests for now",
                     "Retry-After %[var(txn.key),field(4,:)]")  # fmt: skip

# A request that is refused does not count: whoever keeps to the limit on average is never shut out by
# having tried too often. What is passed on no longer has the key.
_RULES = """\
    acl keyed str({name}.keyed),map({split},0) -m str 1
    acl by_header req.hdr({header}) -m found
    acl known var(txn.key) -m found
    acl limited var(txn.limit) -m found
    acl spent var(txn.used),sub(txn.limit) ge 0
    http-request set-var(txn.digest) http_auth_bearer,sha2(256),hex,lower if keyed !by_header
    http-request set-var(txn.digest) req.hdr({header}),sha2(256),hex,lower if keyed by_header
    http-request set-var(txn.key) str({name}.),concat(,txn.digest),map({map}) if keyed
    http-request {no_key} if keyed !known
    http-request set-var(txn.limit) var(txn.key),field(2,:) if keyed
"""
_COUNTED = """\
    acl of_{table} var(txn.key),field(3,:) -m str {seconds}
    http-request track-sc{n} var(txn.key) table {table} if keyed limited of_{table}
    http-request set-var(txn.used) sc_gpc0_rate({n}) if keyed limited of_{table}
    http-request {too_many} if keyed limited of_{table} spent
    http-request sc-inc-gpc0({n}) if keyed limited of_{table}
"""
_FORGOTTEN = """\
    http-request del-header authorization if keyed !by_header
    http-request del-header {header} if keyed
"""


def rules(name: str, split: str) -> str:
    """What a service's frontend does with keys.

    Args:
        split: the map that says whether it asks for them.
    """
    text = _RULES.format(name=name, split=split, header=HEADER, map=MAP, no_key=_NO_KEY)
    for n, (seconds, table) in enumerate(PERIODS.items()):
        text += _COUNTED.format(n=n, seconds=seconds, table=table, too_many=_TOO_MANY)
    return text + _FORGOTTEN.format(header=HEADER)


def entries(services: list[dict[str, Any]]) -> dict[str, str]:
    """The entries of the map: `d3.DIGEST` -> `k7:100:1:1`, or `k7` without a limit. The last number is
    what a caller is asked to wait, in seconds."""
    found: dict[str, str] = {}
    for service in services:
        for digest, key in service.get("keys", {}).items():
            found[f"{service['name']}.{digest}"] = _entry(key)
    return found


def _entry(key: Mapping[str, Any]) -> str:
    if not key.get("limit"):
        return f"k{key['id']}"
    wait = math.ceil(key["seconds"] / key["limit"])
    return f"k{key['id']}:{key['limit']}:{key['seconds']}:{wait}"
