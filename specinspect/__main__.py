"""`python -m specinspect` and the console script."""

import os
import sys


def main() -> None:
    """Run the command line and exit with its code.

    At once, without tearing the interpreter down: that would wait for worker threads and take torch apart, a
    tenth of a second for nothing.
    """
    from specinspect.cli.app import run

    code = run(sys.argv[1:])
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
