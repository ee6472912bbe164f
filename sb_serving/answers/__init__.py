"""The answers: functions of (live side or snapshot, arguments) to the types in `models.py`.

What a question means, which values it takes and how its numbers are put together belongs here, one
module per question; the checks that several share are in `arguments`. Reading is done by `live.py`
and `snapshot.py`, statistics in `stats/`; the faces only carry the answers out.
"""
