"""Snapshots: a work folder as a manifest and content-addressed blobs.

A manifest lists files by path, mode, size and sha256. Its canonical JSON is itself a blob, and the
digest of those bytes names the snapshot, so equal folders have equal names. Blobs travel as a plain tar
stream ("pack") whose member names are their digests. Everything that comes from outside is checked
here: a manifest cannot name a path outside its root, nor a pack carry content under a false name.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Buffer, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from jobs.errors import InvalidInput, NotFound, StorageFull
from jobs.paths import SafePath, check_link
from jobs.units import format_size, show
