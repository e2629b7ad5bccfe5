"""The package imports `quarterdeck`, as ranks have it: by its folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import agents.node.worker

sys.path.append(str(Path(agents.node.worker.__file__).parent))
