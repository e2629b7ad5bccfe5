"""As whom ranks run: the account of the node's agent, who submitted, or one account for all. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.base.errors import NotAllowed
from jobs.spec.job import JobSpec

SETTING, ROOT = "QD_RANKS_AS", "QD_RANKS_AS_ROOT"
NODE, SUBMITTER = "node", "submitter"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,31}")


@dataclass(frozen=True, slots=True)
class RanksAs:
    """A cluster's choice.

    Attributes:
        who: NODE, SUBMITTER, or the name of an account.
        root: ranks may be root's.
    """

    who: str = NODE
    root: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> tuple[RanksAs, str]:
        """From QD_RANKS_AS and QD_RANKS_AS_ROOT; and what is wrong with that. Who set what cannot be read
        wanted ranks apart, so they are."""
        root = environ.get(ROOT, "").strip() in ("1", "yes", "true")
        who = environ.get(SETTING, "").strip() or NODE
        if _NAME.fullmatch(who):
            return cls(who, root), ""
        allowed = f"allowed: {NODE}, {SUBMITTER}, or the name of an account"
        return cls(
            SUBMITTER, root
        ), f"{SETTING} is '{who}', which is taken for '{SUBMITTER}'; {allowed}"

    @property
    def separate(self) -> bool:
        """Whether ranks run as others than the node's agent."""
        return self.who != NODE

    def check(self, spec: JobSpec) -> None:
        """Raises NotAllowed for what can only run as the node's account."""
        if not self.separate:
            return
        if spec.kind == "ray":
            raise NotAllowed(
                "kind: ray is not possible here: a driver has the cluster's token, and its tasks run as the "
                "nodes' account",
                "Ranks of this cluster run as users (QD_RANKS_AS); start the program as a gang.",
            )
        if spec.image is not None:
            raise NotAllowed(
                "image: is not possible here: containers run as the nodes' account",
                "Ranks of this cluster run as users (QD_RANKS_AS); use requirements: or python:.",
            )

    def account(self, name: str | None, user: str) -> str | None:
        """The account of a job's ranks; None: the node's own.

        Args:
            name: the account of who submitted, on the head; None where they have none.
            user: what they are called.

        Raises NotAllowed.
        """
        if not self.separate:
            return None
        wanted = name if self.who == SUBMITTER else self.who
        if wanted is None:
            raise NotAllowed(
                f"{user} has no account on the head, and ranks run as the user who submitted them",
                "Create the account, on the head and on all nodes.",
            )
        if wanted == "root" and not self.root:
            raise NotAllowed(
                "ranks never run as root on this cluster",
                f"Submit as another user; {ROOT}=1 on the head allows it.",
            )
        return wanted
