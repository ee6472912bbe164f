"""The event store `skills.db`: migrate, record, read, and who is who.

This package alone knows SQLite's files for writing. What is computed from the log lives in
`sb_pipelines`, the live queries in `sb_serving.live`.
"""

from sb_serving.store.identity import Identity
from sb_serving.store.recorder import FileOffset, ImportResult, RecordResult, Store

__all__ = ["FileOffset", "Identity", "ImportResult", "RecordResult", "Store"]
