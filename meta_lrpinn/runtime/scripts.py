"""What scripts with absl flags share: how they begin, and how they fail."""

import sys
from collections.abc import Callable

from absl import app


def run(main: Callable[[], None]) -> None:
    """Parses flags and runs a script; bad input is one line and exit code 2."""

    def guarded(arguments):
        if len(arguments) > 1:
            raise app.UsageError(f"options only, got {arguments[1]!r}")
        try:
            main()
        # What a user can mend is one line; any other fault keeps its traceback.
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(2) from None

    app.run(guarded)
