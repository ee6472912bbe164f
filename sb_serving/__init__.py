"""The online half of Session-Buddy Analytics: record, read, answer.

It starts fast and imports neither dagster, pandas nor scikit-learn; the batch half lives in
`sb_pipelines`, and the two meet only at files. The path through this package reads: sources ->
store -> snapshot and live -> frame -> answers -> faces.
"""

__version__ = "0.1.0"
