"""Names of models, versions and aliases as people type them: `digits:3`, `digits:1.4.0`, `digits@production`.

A model's name may hold nearly anything that prints, quotes and every script included: it only ever
reaches the database as a bound value.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from jobs.base.errors import InvalidInput
from jobs.base.units import show

MAX_NAME = 128
"""Characters of a model's name."""
MAX_TAG_KEY = 250
MAX_TAG_VALUE = 10_240
"""Characters, as long as MLflow's client may send."""
MAX_TAGS = 100
MAX_COMMENT = 4_000
PRODUCTION = "production"

_RESERVED = frozenset(":@/\\")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
# https://semver.org, without build metadata: two builds of one version are two versions here.
_LABEL = re.compile(
    r"(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_NUMBER = re.compile(r"[1-9]\d{0,8}")
_NEWEST = "last"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One version of a model. At most one of the last three is given; none of them is the newest
    version that is not archived."""

    name: str
    number: int | None = None
    label: str | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        version = self.label if self.number is None else str(self.number)
        return self.name if version is None else f"{self.name}:{version}"


def model_name(text: str) -> str:
    """A model's name in its normal form (NFC). Raises InvalidInput."""
    name = unicodedata.normalize("NFC", text)
    if name != name.strip() or not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidInput(
            f"{show(text)} cannot name a model",
            f"A name has 1 to {MAX_NAME} printable characters, and no space at either end.",
        )
    if found := sorted(_RESERVED.intersection(name)):
        raise InvalidInput(
            f"{show(text)} cannot name a model: it has a {found[0]}",
            "Versions are NAME:3 and aliases NAME@production.",
        )
    return name


def parse_ref(text: str) -> ModelRef:
    """Parse `NAME`, `NAME:3`, `NAME:1.4.0`, `NAME:last` or `NAME@ALIAS`. Raises InvalidInput."""
    name, at, alias = text.partition("@")
    if at:
        return ModelRef(model_name(name), alias=alias_name(alias))
    name, colon, version = text.partition(":")
    name = model_name(name)
    if not colon or version == _NEWEST:
        return ModelRef(name)
    if _NUMBER.fullmatch(version):
        return ModelRef(name, number=int(version))
    if _LABEL.fullmatch(version):
        return ModelRef(name, label=version)
    raise InvalidInput(
        f"{show(text)} is not a version of a model",
        "Versions look like digits:3, digits:1.4.0, digits:last or digits@production.",
    )


def alias_name(text: str) -> str:
    """Raises InvalidInput."""
    if not _ALIAS.fullmatch(text) or text == _NEWEST:
        raise InvalidInput(
            f"{show(text)} cannot be an alias",
            "Letters, digits, dots, dashes and underscores, such as production or canary-eu.",
        )
    return text


def version_label(text: str) -> str:
    """A semantic version. Raises InvalidInput."""
    if not _LABEL.fullmatch(text):
        raise InvalidInput(
            f"{show(text)} is not a semantic version",
            "As 1.4.0 or 2.0.0-rc.1 (https://semver.org).",
        )
    return text


def check_tag(key: str, value: str) -> None:
    """Raises InvalidInput."""
    if not key or len(key) > MAX_TAG_KEY or "\0" in key:
        raise InvalidInput(f"tag {show(key)}: a key has 1 to {MAX_TAG_KEY} characters")
    if len(value) > MAX_TAG_VALUE or "\0" in value:
        raise InvalidInput(
            f"tag {show(key)}: {len(value)} characters; allowed: at most {MAX_TAG_VALUE}, without NUL"
        )
    for text in (key, value):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"tag {show(key)} is not text that UTF-8 can hold") from None


def version_name(model: str, number: int) -> str:
    return f"{model}:{number}"
