"""Takes the pictures of the documents from a running `sb up`: the asset graph and a run's page.

    .venv/bin/sb up --demo                       in one terminal
    .venv/bin/python docs/images/make.py         in another

Needs Chromium; pictures land beside this file.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
GROUPS = ("sources", "ingest", "series", "results", "serving")
SETTLE = 6000  # milliseconds
RUNS = '{"query": "{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }"}'


def last_run(ui: str) -> str:
    """The id of the newest run."""
    request = urllib.request.Request(
        f"{ui}/graphql", RUNS.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        run_id: str = json.load(answer)["data"]["runsOrError"]["results"][0]["runId"]
    return run_id


def shoot(page: Page, url: str, name: str, groups: tuple[str, ...] = ()) -> None:
    """Open a page, let it draw, unfold the groups of a graph, keep the picture."""
    page.goto(url)
    page.wait_for_timeout(SETTLE)
    for group in groups:
        page.get_by_text(group, exact=True).last.click()
        page.wait_for_timeout(SETTLE / 3)
    page.screenshot(path=FOLDER / name)


def main(ui: str = "http://127.0.0.1:3000") -> None:
    """Take all pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        page = browser.new_page(viewport={"width": 1400, "height": 800})
        shoot(page, f"{ui}/asset-groups", "asset-graph.png", groups=GROUPS)
        shoot(page, f"{ui}/runs/{last_run(ui)}", "run.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
