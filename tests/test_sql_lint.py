"""`sql/warehouse` stays in the subset that DuckDB and Spark SQL share, or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sb_serving import sql

FILES = sorted((sql.root() / "warehouse").glob("*.sql"))
MARK = re.compile(r"^-- engine: duckdb \(.+\)$")
NOT_SHARED = {
    "QUALIFY": r"\bqualify\b",
    "ASOF": r"\basof\b",
    "GROUP BY ALL": r"\bgroup\s+by\s+all\b",
    "ORDER BY ALL": r"\border\s+by\s+all\b",
    "list functions": r"\b(list|list_\w+|array_agg|unnest)\s*\(",
    "mode": r"\bmode\s*\(",
    "arg_max": r"\barg_(max|min)\w*\s*\(",
    "//": r"//",
    "date_diff": r"\bdate_?diff\s*\(",
    "::": r"::",
    "on conflict": r"\bon\s+conflict\b",
    "try_cast to TIMESTAMPTZ": r"\btimestamptz\b",
    "quoted names": r'"',
    "exclude": r"\*\s*exclude\b",
}


def code(text: str) -> str:
    """The statement without its comments and texts."""
    return re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--[^\n]*", "", text)).lower()


def offences(text: str) -> list[str]:
    return [name for name, pattern in NOT_SHARED.items() if re.search(pattern, code(text))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_portable_or_marked(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    if first.startswith("-- engine:"):
        assert MARK.match(first), f"write `-- engine: duckdb (reason)`, not {first!r}"
    else:
        assert offences(text) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_opens_with_its_meaning(path: Path) -> None:
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith("-- engine:")
    ]
    assert lines[0].startswith("-- ")
    assert len(lines[0]) > len("-- ") + 20


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("select * from t qualify row_number() over (order by x) = 1", "QUALIFY"),
        ("select a, count(*) from t group by\n all", "GROUP BY ALL"),
        ("select x::int from t", "::"),
        ("select 7 // 2", "//"),
        ("select list(x) from t", "list functions"),
        ("select mode(x) from t", "mode"),
        ("select arg_max(x, y) from t", "arg_max"),
        ("select date_diff('day', a, b) from t", "date_diff"),
        ("select * from a asof join b on a.t >= b.t", "ASOF"),
    ],
)
def test_the_lint_finds(text: str, name: str) -> None:
    assert name in offences(text)


def test_the_lint_leaves_comments_and_texts_alone() -> None:
    assert offences("-- qualify :: //\nselect 'http://x::y' as mode from t") == []
