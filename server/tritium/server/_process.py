"""A process that never outlives this one, and whose output is kept within bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path

from ._log import ServerLog

_TAIL_LINES = 400
# Where the arguments begin and end in memory, among the fields of /proc/PID/stat behind the program's name.
_ARGUMENTS = slice(45, 47)


class BoundProcess:
    """A program in a session of its own; its standard output and error go to a log.

    The thread that starts it also reads its output, so it lives as long as the program does. The kernel ties the
    program to that thread: if this process is killed, the program gets SIGTERM.

    Making one does nothing yet, so that whoever is interrupted during :meth:`start` has something to end.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: ServerLog) -> None:
        self.log = log
        self._asked_to_end = False
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._started: Future[subprocess.Popen[str]] = Future()
        self._reader = threading.Thread(
            target=self._run, args=(command, dict(env), folder), name="triton-log", daemon=True
        )

    def start(self) -> None:
        """Start the program.

        Raises:
            OSError: the system refuses.
        """
        self._reader.start()
        self._started.result()

    def call_off(self) -> bool:
        """See to it that a program that is not started never is; False if it runs, or has run."""
        return self._started.cancel() or self._started.exception() is not None

    @property
    def _popen(self) -> subprocess.Popen[str]:
        return self._started.result()

    @property
    def pid(self) -> int:
        """The program's process id; also that of its process group."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """What the program exited with (negative: the signal that ended it), or None while it runs."""
        return self._popen.poll()

    def blot_out(self, secret: str) -> None:
        """Overwrite a secret in the program's arguments, which every process of this machine may read.

        The program must have read them. A program may be written to by the one that started it, unless the system
        forbids even that.

        Raises:
            OSError: the system forbids it.
        """
        proc = Path("/proc", str(self.pid))
        begin, end = map(int, (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()[_ARGUMENTS])
        if not begin:
            raise PermissionError(f"{proc}/stat does not tell where the arguments lie")
        with (proc / "mem").open("r+b", buffering=0) as memory:
            memory.seek(begin)
            arguments = memory.read(end - begin)
            memory.seek(begin)
            memory.write(arguments.replace(secret.encode(), b"*" * len(secret.encode())))

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the program's end; None if it did not come in time."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask the program to end, once."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self._popen.terminate()

    def kill(self) -> None:
        """End the program at once; what it started is left to `stop`."""
        if not self.call_off():
            self._popen.kill()

    def stop(self, timeout_s: float) -> int:
        """Ask the program to end, and end it and all that it started if it has not after `timeout_s`."""
        self.terminate()
        self.wait(timeout_s)
        with suppress(ProcessLookupError):  # as it should be: it left nothing behind
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self._reader.join(timeout=5)
        return code

    def _run(self, command: Sequence[str], env: dict[str, str], folder: Path) -> None:
        if not self._started.set_running_or_notify_cancel():
            return
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_bound_exec.py")), str(os.getpid())]
        try:
            process = subprocess.Popen(
                [*launcher, *command],
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C in the terminal is for us: we stop the program in order.
                start_new_session=True,
                # If we are gone, a log line must not kill the program while it shuts down.
                restore_signals=False,
            )
        except BaseException as exc:
            self._started.set_exception(exc)
            return
        self._started.set_result(process)
        assert process.stdout is not None  # noqa: S101 — for the type checker: it is a pipe
        with process.stdout as output, closing(self.log):
            for line in output:
                self.tail.append(line.rstrip("\n"))
                # The program lives as long as this thread: no trouble with a line may end it.
                with suppress(Exception):
                    self.log.write(self.tail[-1])
