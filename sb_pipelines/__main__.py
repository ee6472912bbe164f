"""`python -m sb_pipelines`: Dagster on loopback; with arguments, the `sb` command.

The command line is in `cli`, starting Dagster in `launcher`.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from sb_serving.errors import SbError


def main() -> int:
    """Run Dagster until interrupted; a problem that the user can mend is one line and status 2."""
    from sb_pipelines import launcher
    from sb_serving.settings import Settings

    signal.signal(signal.SIGTERM, _as_interrupt)
    # A shell starts background jobs with SIGINT ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        settings = Settings.load()
        sys.stderr.write(f"Dagster UI: http://127.0.0.1:{settings.dagster_port}/ (Ctrl-C stops)\n")
        launcher.run(settings)
    except SbError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    if len(sys.argv) > 1:
        from sb_pipelines import cli

        cli.main()
    else:
        sys.exit(main())
