"""The node's one ledger of GPUs: which attempt holds which, by UUID."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from jobs.base.errors import Conflict, InvalidInput

_UNITS = 10_000
"""A GPU is counted in ten-thousandths, so that shares add up exactly."""


class GpusTaken(Conflict):
    """There are GPUs enough, but something holds them that will give them back."""


class Ledger:
    """Who holds what. A share below one is a part of a single GPU; larger amounts are whole GPUs.

    The smallest gap that fits takes a share (whole GPUs stay whole for as long as they can), and whole
    GPUs go in index order, so that an attempt gets neighbours.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = list(uuids)
        self._held: dict[str, dict[str, int]] = {}  # key -> uuid -> units

    def know(self, uuids: Sequence[str]) -> None:
        """Take in GPUs that came into sight; those that left stay, for attempts may hold them."""
        self._uuids += [uuid for uuid in uuids if uuid not in self._uuids]

    def held(self, key: str) -> list[str]:
        """UUIDs that an attempt holds, by index."""
        return list(self._held.get(key, ()))

    def allot(self, key: str, amount: float, lost: Collection[str] = ()) -> list[str]:
        """Give an attempt `amount` GPUs; what it holds already is given again.

        Args:
            key: the attempt.
            amount: GPUs: 0, a share below 1, or a whole number.
            lost: UUIDs that cannot be used now.

        Raises GpusTaken, with the numbers, when they are not free now, Conflict when there are not so
        many that could ever be, InvalidInput for 1.5 GPUs.
        """
        if key not in self._held:
            units = round(amount * _UNITS)
            if units < 0 or (units > _UNITS and units % _UNITS):
                raise InvalidInput(
                    f"cannot give {amount:g} GPUs: only whole ones, or a share of one"
                )
            free = {uuid: self._free(uuid) for uuid in self._uuids if uuid not in lost}
            chosen = _share(free, units) if units < _UNITS else _whole(free, units // _UNITS)
            if chosen is None:
                enough = units <= _UNITS * len(free)
                words = self._refusal(amount, free, lost)
                raise (GpusTaken if enough else Conflict)(words, asked=amount)
            self._held[key] = chosen
        return self.held(key)

    def restore(self, key: str, uuids: Sequence[str], amount: float) -> None:
        """Note what an adopted attempt holds, even of a GPU that is not seen any more."""
        units = round(amount * _UNITS)
        self._held[key] = {uuid: min(units, _UNITS) for uuid in uuids}

    def release(self, key: str) -> None:
        """Take back what an attempt holds; nothing is fine."""
        self._held.pop(key, None)

    def _free(self, uuid: str) -> int:
        return _UNITS - sum(gpus.get(uuid, 0) for gpus in self._held.values())

    def _refusal(self, amount: float, free: Mapping[str, int], lost: Collection[str]) -> str:
        whole = sum(units == _UNITS for units in free.values())
        words = f"asks for {amount:g} GPUs; {whole} of {len(self._uuids)} here are free"
        if 0 < amount < 1:
            largest = max(free.values(), default=0) / _UNITS
            words = f"asks for {amount:g} of a GPU; the largest free share here is {largest:g}"
        broken = sum(uuid in lost for uuid in self._uuids)
        return words + (f" ({broken} cannot be used)" if broken else "")


def _share(free: Mapping[str, int], units: int) -> dict[str, int] | None:
    if units == 0:
        return {}
    fitting = [uuid for uuid, left in free.items() if left >= units]
    return {min(fitting, key=lambda uuid: free[uuid]): units} if fitting else None


def _whole(free: Mapping[str, int], count: int) -> dict[str, int] | None:
    idle = [uuid for uuid, left in free.items() if left == _UNITS]
    return dict.fromkeys(idle[:count], _UNITS) if len(idle) >= count else None
