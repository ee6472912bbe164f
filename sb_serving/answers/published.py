"""Reading a result table of the snapshot: it is there, or the answer says what to run.

"Nothing found" is an answer, "not computed yet" is none: a caller who gets an empty list must be
able to believe it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sb_serving import sql
from sb_serving.errors import SbError
from sb_serving.models import Source

if TYPE_CHECKING:
    from sb_serving.live import Live
    from sb_serving.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Published:
    """A result table that was computed, in a snapshot that stays open meanwhile.

    Attributes:
        snapshot: Where it is.
        computed_at: When it was computed, canonical text.
        watermark_id: Every invocation up to this id was known then.
    """

    snapshot: Snapshot
    computed_at: str
    watermark_id: int

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of `sql/answers/<query>.sql` by column name."""
        return self.snapshot.rows(sql.load(f"answers/{query}.sql"), parameters)

    def source(self, tables: tuple[str, ...], *made_by: str) -> Source:
        """Where the numbers come from."""
        return Source(tables=tables, snapshot=self.snapshot.manifest.number, made_by=made_by)


@contextmanager
def published(live: Live, table: str, *, command: str) -> Iterator[Published]:
    """A result table of the snapshot in use.

    Args:
        live: The live side.
        table: Its name.
        command: What computes it.

    Raises:
        SbError: Nothing was published, or the table was not computed yet.
    """
    with live.snapshots.pin() as snapshot:
        if snapshot is None:
            raise SbError("nothing was published yet", fix=f"Run `{command}`.")
        known, computed_at = snapshot.watermarks.get(table, (0, None))
        if table not in snapshot.manifest.table_counts or computed_at is None:
            raise SbError(
                f"{table} was not computed yet (snapshot {snapshot.manifest.number})",
                fix=f"Run `{command}`, or wait for the next run of Dagster.",
            )
        yield Published(snapshot, computed_at, known)


def unknown_skill(snapshot: Snapshot, skill_name: str, why: str) -> SbError:
    """The refusal of a skill without a row.

    Args:
        snapshot: Whose totals know all names.
        skill_name: As it was given.
        why: What it means for a skill that is known.
    """
    names = {name for name, *_ in snapshot.totals}
    if skill_name in names:
        return SbError(f"{skill_name} {why}")
    close = difflib.get_close_matches(skill_name, sorted(names), n=3)
    return SbError(
        f"skill_name = {skill_name!r} was never invoked here",
        fix=f"Did you mean {' or '.join(close)}?" if close else "Names are case-sensitive.",
    )


def kind_words(kind: str | None) -> str:
    """The skills of a kind, in words."""
    return "skills" if kind in (None, "all") else f"skills of kind {kind}"
