"""A client in processes of other kinds: forked ones, and those that gevent has patched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tritium.server import TritonServer

from .served_models import identity_name

BEGIN = f"""
import os, signal, sys, threading
import numpy as np
from tritium.client import Client, InputError, Limits, Retries, TritiumError

def right(model, *numbers):
    sent = np.array(numbers)
    return model(sent).tolist() == sent.tolist()

def fork(work):
    # The child's end is its work's, whatever becomes of that; and it is not waited for without end.
    child = os.fork()
    if child:
        return child
    signal.alarm(20)
    try:
        work()
    except BaseException as exc:
        print(type(exc).__name__, exc, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

def ended_well(child):
    return os.waitpid(child, 0)[1] == 0

NAME = {identity_name("INT64", 1)!r}
"""

FORKED = """
client = Client(sys.argv[1], retries=Retries(attempts=1))
model = client.model(NAME)

def check(who):
    for index in range(100):
        assert right(model, who, *range(index % 5)), who

check(0)
children = [fork(lambda: check(who)) for who in range(1, 5)]
check(5)
assert all([ended_well(child) for child in children])
check(6)

# Also a child of a child, and one that closes what it was given.
def again():
    check(7)
    assert ended_well(fork(lambda: check(8)))
    client.close()

assert ended_well(fork(again))
check(9)
client.close()
print("done")
"""

FORKED_BEFORE_THE_FIRST_CALL = """
client = Client(sys.argv[1])
model = client.model(NAME)
assert all([ended_well(child) for child in [fork(lambda: right(model, 1)) for _ in range(3)]])
assert right(model, 2)
client.close()
print("done")
"""

FORKED_FROM_BUSY_THREADS = """
# Threads give way to each other all the time, so that some of them hold locks when the process is forked.
sys.setswitchinterval(1e-6)
nobody = [f"http://127.0.0.1:{port}" for port in (1, 2)]
client, lost = Client([sys.argv[1], *nobody]), Client(nobody, retries=Retries(attempts=2, backoff_s=1e-4))
model, stop = client.model(NAME), threading.Event()

def in_vain():
    try:
        lost.is_ready()
    except TritiumError:
        pass

def work(what):
    while not stop.is_set():
        what()

works = [in_vain] * 6 + [lambda: right(model, 1)] * 2
threads = [threading.Thread(target=work, args=(what,)) for what in works]
for thread in threads:
    thread.start()

def check():
    assert right(model, 2)
    in_vain()

try:
    assert all([ended_well(fork(check)) for _ in range(60)])
finally:
    stop.set()
    for thread in threads:
        thread.join()
client.close()
lost.close()
print("done")
"""

FORKED_OVER_GRPC = """
client = Client(sys.argv[1])
model = client.model(NAME)
assert right(model, 1)

def check():
    for use in (client.is_ready, lambda: model([1]), client.models, lambda: model.sequence()([1])):
        try:
            use()
        except InputError as exc:
            assert "forked" in str(exc) and "'spawn'" in str(exc) and "http://" in str(exc), exc
        else:
            raise AssertionError(use)

assert ended_well(fork(check))
assert right(model, 2)
client.close()
print("done")
"""

GREENLETS = """
import gevent, gevent.event

client = Client(sys.argv[1], retries=Retries(attempts=1), limits=Limits(max_connections=int(sys.argv[2])))
model = client.model(NAME)
assert right(model, 0)
begun, all_have_begun = [], gevent.event.Event()

def work(number):
    good = right(model, number)
    begun.append(number)
    if len(begun) == 50:
        all_have_begun.set()
    # Nobody goes on before all have an answer: so none holds the others up while it waits for its own.
    return all_have_begun.wait(timeout=30) and good and all(right(model, number, *range(n)) for n in range(10))

jobs = [gevent.spawn(work, number) for number in range(50)]
gevent.joinall(jobs, timeout=60, raise_error=True)
assert all(job.value for job in jobs)
predicted = list(model.map([np.array([n]) for n in range(50)], in_flight=8))
assert [int(row[0]) for row in predicted] == list(range(50))
client.close()
print("done")
"""
PATCHED = "from gevent import monkey; monkey.patch_all()\n"


def _run(folder: Path, script: str, *arguments: str, options: tuple[str, ...] = ("-W", "error")) -> None:
    """Run a script to its end, in a process that has nothing of this one."""
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *options, str(path), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("script", [FORKED, FORKED_BEFORE_THE_FIRST_CALL], ids=["after_calls", "before_the_first_call"])
def test_a_client_over_http_goes_on_in_forked_processes(
    script: str, protocol_server: TritonServer, tmp_path: Path
) -> None:
    _run(tmp_path, BEGIN + script, protocol_server.http_url)


def test_a_client_goes_on_in_processes_forked_while_threads_use_it(
    protocol_server: TritonServer, tmp_path: Path
) -> None:
    # Python 3.12 warns of such forks, and is right.
    _run(tmp_path, BEGIN + FORKED_FROM_BUSY_THREADS, protocol_server.http_url, options=())


def test_a_client_over_grpc_says_in_a_forked_process_why_it_does_not_work(
    protocol_server: TritonServer, tmp_path: Path
) -> None:
    _run(tmp_path, BEGIN + FORKED_OVER_GRPC, protocol_server.grpc_url, options=())


@pytest.mark.parametrize("most", [1, 8, 100])
def test_one_client_serves_50_greenlets(most: int, protocol_server: TritonServer, tmp_path: Path) -> None:
    _run(tmp_path, PATCHED + BEGIN + GREENLETS, protocol_server.http_url, str(most), options=())


def test_the_client_may_be_imported_before_gevent_patches_the_process(
    protocol_server: TritonServer, tmp_path: Path
) -> None:
    # gevent itself warns that `ssl` is there already.
    _run(tmp_path, BEGIN + PATCHED + GREENLETS, protocol_server.http_url, "8", options=())
