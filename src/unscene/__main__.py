"""`python -m unscene`."""

import signal
import sys

from unscene.cli.main import main

if __name__ == "__main__":
    status = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a late Ctrl-C would print a traceback of the interpreter's exit
    sys.exit(status)
