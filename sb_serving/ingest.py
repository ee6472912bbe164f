"""Reads files of a source into the store: which files, from where on, and what came of it.

This is the only place that joins parsers (`sources/`, bytes in, invocations out) and the store. It
finds the files, resumes each at its stored offset, stores batches together with the offset they
reach, and counts. What a line means is the parser's business.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.sources import claude_code
from sb_serving.store import FileOffset, ImportResult, Store

BATCH = 2_000
"""Invocations per transaction: other writers wait for milliseconds, a crash costs one batch."""

MAX_LINE = 32 * 1024 * 1024
"""Bytes of one line that are held in memory; a longer line is counted as bad and passed over."""

READ_BUFFER = 1024 * 1024
FINGERPRINT_BYTES = 1024

KEPT = timedelta(days=30)
"""Claude Code deletes a transcript this long after its last change, unless told otherwise."""

WARN = timedelta(days=3)
AHEAD = timedelta(minutes=5)

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Hasher(Protocol):
    """The part of `store.Identity` that is needed here."""

    def user(self, name: str = "") -> str:
        """Hash a user name; empty means the login name."""

    def project(self, folder: str) -> str:
        """Hash the project that a folder belongs to."""

    def path(self, path: Path) -> str:
        """Hash a file's path."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read, as it was when it was found."""

    path: Path
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Summary:
    """What one run read and what came of it.

    Attributes:
        files: Transcripts found.
        unchanged: Files among them that were read to the end before and have not changed.
        bytes: Bytes read.
        lines: Lines read, without empty ones.
        bad_lines: Lines among them that are not JSON.
        by_outcome: Distinct invocations read, by outcome.
        by_kind: The same, by kind.
        inserted: Invocations that are new in the store.
        duplicates: Copies: of another line or file, or in the store before.
        listed: Names of the skills that the assistant said it had at hand.
        builtins: Typed commands that were the program's own (/clear, /model); not stored.
        held_open: Calls, episodes and half lines that a later run completes.
        undated: Calls left out because nothing around them has a readable time.
        future: Invocations dated more than 5 minutes after now; stored, but a clock is wrong.
        expiring: Files that Claude Code deletes within 3 days, or may delete already.
        unreadable: One message per file or folder that could not be read; the others were.
        refused: One message per invocation that the store refused.
        pruned: Invocations left out because their day, or a later one, was pruned from the store.
    """

    files: int = 0
    unchanged: int = 0
    bytes: int = 0
    lines: int = 0
    bad_lines: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    inserted: int = 0
    duplicates: int = 0
    listed: set[str] = field(default_factory=set)
    builtins: int = 0
    held_open: int = 0
    undated: int = 0
    future: int = 0
    expiring: int = 0
    unreadable: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    pruned: int = 0


def discover(root: Path, unreadable: list[str] | None = None) -> list[FoundFile]:
    """Find the transcripts below a folder, oldest first.

    Sub-agents' files (`agent-*.jsonl`, beside the session's or in its `subagents/`) are
    transcripts like the others. The oldest comes first because a resumed or forked session starts
    with a copy of its history, and the original is the one to keep.

    Args:
        root: Claude Code's folder (with `projects/` in it), its `projects/` folder, a folder below,
            or one file.
        unreadable: Receives one message per folder or file that cannot be looked at.

    Raises:
        SbError: There is no such folder or file.
    """
    problems = [] if unreadable is None else unreadable
    if not root.exists():
        raise SbError(
            f"there is no folder {root}",
            fix="Name the folder that holds Claude Code's transcripts, usually ~/.claude/projects.",
        )
    if root.is_file():
        paths = [root]
    else:
        top = root / "projects" if (root / "projects").is_dir() else root
        walk = os.walk(top, onerror=lambda error: problems.append(_message(error)))
        paths = [
            Path(folder, name)
            for folder, _, names in walk
            for name in names
            if name.endswith(".jsonl")
        ]
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            problems.append(_message(error))
            continue
        if stat.S_ISREG(status.st_mode):
            found.append(FoundFile(path, status.st_size, status.st_mtime_ns))
        else:
            problems.append(f"{path}: not a regular file")  # opening a pipe would wait for ever
    return sorted(found, key=lambda file: (file.mtime_ns, file.path))


def ingest_claude_code(
    store: Store,
    root: Path,
    identity: Hasher,
    user: str,
    now: datetime,
    on_progress: Progress | None = None,
) -> Summary:
    """Read all transcripts below a folder into the store.

    Running it again reads only what was added since, and repeats nothing: every invocation has an
    id, and an offset is stored in the transaction of the rows that it covers.

    Args:
        store: Where to.
        root: See `discover`.
        identity: Hashes the user, the projects and the files' paths.
        user: Who to record as; empty means the login name.
        now: The current time, aware.
        on_progress: Called after each batch and file.

    Raises:
        SbError: There is no such folder, or the store cannot be written.
    """
    run = _Run(identity, user, now)
    files = run.find(root)
    known = store.file_offsets(claude_code.SOURCE)
    total = sum(file.size for file in files)
    done = 0
    for found in files:
        key = identity.path(found.path)
        before = known.get(key)
        if before is not None and _is_read(found, before):
            run.summary.unchanged += 1
        else:
            for position in _Importer(store, run, found, key, before).read():
                if on_progress is not None:
                    on_progress(done + min(position, found.size), total)
        done += found.size
        if on_progress is not None:
            on_progress(done, total)
    return run.summary


def parse_tree(
    root: Path,
    identity: Hasher,
    user: str,
    now: datetime,
    summary: Summary | None = None,
) -> Iterator[Invocation]:
    """Yield the invocations of all transcripts below a folder, each once, without a store.

    Args:
        root: See `discover`.
        identity: Hashes the user and the projects.
        user: Who to record as; empty means the login name.
        now: The current time, aware.
        summary: Is filled while the iterator runs.

    Raises:
        SbError: There is no such folder.
    """
    run = _Run(identity, user, now, summary)
    for found in run.find(root):
        transcript = run.transcript(found, 0)
        try:
            with found.path.open("rb", buffering=READ_BUFFER) as file:
                for batch in run.batches(file, found, transcript):
                    yield from batch
        except OSError as error:
            run.summary.unreadable.append(_message(error))
        run.count(transcript, 0)


class _Run:
    """What the files of one run share: who, when, the ids seen and the summary."""

    def __init__(
        self, identity: Hasher, user: str, now: datetime, summary: Summary | None = None
    ) -> None:
        self.summary = Summary() if summary is None else summary
        self._identity = identity
        self._user_id = identity.user(user)
        self._now = now
        self._latest = times.to_utc_text(now + AHEAD)
        self._seen: set[str] = set()

    def find(self, root: Path) -> list[FoundFile]:
        files = discover(root, self.summary.unreadable)
        self.summary.files += len(files)
        deleted_from = (self._now - KEPT + WARN).timestamp() * 1e9
        self.summary.expiring += sum(file.mtime_ns <= deleted_from for file in files)
        return files

    def transcript(self, found: FoundFile, position: int) -> claude_code.Transcript:
        return claude_code.Transcript(
            user_id=self._user_id,
            project=self._identity.project,
            session=found.path.name.partition(".")[0],
            position=position,
        )

    def batches(
        self, file: BinaryIO, found: FoundFile, transcript: claude_code.Transcript
    ) -> Iterator[list[Invocation]]:
        """Yield what a file gives, without copies, some `BATCH` at a time."""
        batch: list[Invocation] = []
        for line in _lines(file, transcript):
            batch += self._distinct(transcript.feed(line))
            if len(batch) >= BATCH:
                yield batch
                batch = []
        if not (transcript.half_line and self._is_fresh(found)):
            batch += self._distinct(transcript.finish(self._now))
        yield batch

    def count(self, transcript: claude_code.Transcript, start: int) -> None:
        summary = self.summary
        summary.bytes += transcript.position - start
        summary.lines += transcript.lines
        summary.bad_lines += transcript.bad_lines
        summary.listed |= transcript.listed
        summary.builtins += transcript.builtins
        summary.undated += transcript.undated
        summary.held_open += transcript.held_open

    def _is_fresh(self, found: FoundFile) -> bool:
        """Whether a file was written to lately: then half a line may be an answer on its way."""
        age = self._now.timestamp() - found.mtime_ns / 1e9
        return age <= claude_code.SILENCE.total_seconds()

    def _distinct(self, invocations: list[Invocation]) -> list[Invocation]:
        kept = []
        for invocation in invocations:
            key = invocation.event_id or "\t".join(
                (invocation.session_id, invocation.skill_name, invocation.invoked_at)
            )
            if key in self._seen:
                self.summary.duplicates += 1
                continue
            self._seen.add(key)
            self.summary.by_outcome[invocation.outcome] += 1
            self.summary.by_kind[invocation.kind] += 1
            self.summary.future += invocation.invoked_at > self._latest
            kept.append(invocation)
        return kept


@dataclass(frozen=True, slots=True)
class _Importer:
    """Reads one file into the store, from where the last run left it."""

    store: Store
    run: _Run
    found: FoundFile
    key: str
    before: FileOffset | None

    def read(self) -> Iterator[int]:
        """Import the file; yields the byte position after each committed batch."""
        try:
            with self.found.path.open("rb", buffering=READ_BUFFER) as file:
                yield from self._import(file)
        except OSError as error:
            self.run.summary.unreadable.append(_message(error))

    def _import(self, file: BinaryIO) -> Iterator[int]:
        head = file.read(FINGERPRINT_BYTES)
        start = self._start(head)
        file.seek(start)
        transcript = self.run.transcript(self.found, start)
        for batch in self.run.batches(file, self.found, transcript):
            offset = self._offset(head, transcript.resume_offset)
            if batch or offset != self.before:
                self._note(self.store.import_batch(batch, offset=offset))
            yield transcript.position
        self.run.count(transcript, start)

    def _start(self, head: bytes) -> int:
        before = self.before
        if before is None or self.found.size < before.size:
            return 0
        same = before.fingerprint == _fingerprint(head, before.size)
        return before.offset if same else 0

    def _offset(self, head: bytes, offset: int) -> FileOffset:
        return FileOffset(
            file_key=self.key,
            source=claude_code.SOURCE,
            offset=offset,
            size=self.found.size,
            mtime_ns=self.found.mtime_ns,
            fingerprint=_fingerprint(head, self.found.size),
        )

    def _note(self, result: ImportResult) -> None:
        self.run.summary.inserted += result.inserted
        self.run.summary.duplicates += result.duplicates
        self.run.summary.refused += result.refused
        self.run.summary.pruned += result.pruned


def _is_read(found: FoundFile, before: FileOffset) -> bool:
    """Whether a file was read to its end, with nothing left open, and is as it was."""
    return (before.offset, before.size, before.mtime_ns) == (
        found.size,
        found.size,
        found.mtime_ns,
    )


def _fingerprint(head: bytes, size: int) -> str:
    """Hash of the first bytes that a file of this size had: more of them may be there now."""
    return hashlib.sha256(head[:size]).hexdigest()[:32]


def _lines(file: BinaryIO, transcript: claude_code.Transcript) -> Iterator[bytes]:
    """Yield lines; one that is too long to hold is passed over in pieces."""
    while line := file.readline(MAX_LINE):
        if len(line) < MAX_LINE or line.endswith(b"\n"):
            yield line
            continue
        size = len(line)
        while part := file.readline(READ_BUFFER):
            size += len(part)
            if part.endswith(b"\n"):
                transcript.pass_over(size)
                break
        else:
            transcript.half_line = True


def _message(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
