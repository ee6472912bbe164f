"""What is loaded from a snapshot and held: checked once, and the last good one serves on.

A damaged model must not take the answers down with it: it is refused with its reason, and what the
snapshot before gave is used further.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sb_serving.errors import SbError
from sb_serving.snapshot import Snapshot

Loaded = TypeVar("Loaded")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held(Generic[Loaded]):
    """What is in use.

    Attributes:
        value: The thing itself; None where no snapshot ever had a good one.
        snapshot: Number of the snapshot that it came from.
        refused: Why the newest snapshot's is not used; None where it is.
    """

    value: Loaded | None = None
    snapshot: int | None = None
    refused: str | None = None


class Kept(Generic[Loaded]):
    """Loads something from each new snapshot; any number of threads may ask.

    Args:
        load: Reads and checks it; None where the snapshot has none, `SbError` where it is bad.
    """

    def __init__(self, load: Callable[[Snapshot], Loaded | None]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._seen: int | None = None
        self._held: Held[Loaded] = Held()

    def of(self, snapshot: Snapshot) -> Held[Loaded]:
        """What is in use with a snapshot.

        Args:
            snapshot: Pinned.
        """
        number = snapshot.manifest.number
        with self._lock:
            if number != self._seen:
                try:
                    value = self._load(snapshot)
                    self._held = Held(value, number if value is not None else None)
                except SbError as error:
                    log.error("snapshot %s: %s", number, error)
                    self._held = Held(self._held.value, self._held.snapshot, str(error))
                self._seen = number
            return self._held
