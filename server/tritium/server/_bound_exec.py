"""Become another program that gets SIGTERM when the thread that started it ends, however it ends.

Run as a script: `python -I -S _bound_exec.py PARENT_PID PROGRAM [ARGUMENT …]`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, program = int(sys.argv[1]), sys.argv[2:]
    # Whoever starts it may ignore the signal by now, and that would be inherited.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606
