"""`python -m specinspect` and the console script."""

import contextlib
import os
import sys


def main() -> None:
    """Run the command line and exit with its code.

    At once, without tearing the interpreter down: that would wait for worker threads and take torch apart, a
    tenth of a second for nothing.
    """
    try:
        from specinspect.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the command line itself was loading; `run` handles all others
        if sys.stderr is not None:
            sys.stderr.write("specinspect: interrupted\n")
        code = 130
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
