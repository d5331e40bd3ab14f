"""A client that is closed while other threads begin their first calls: an answer or ClosedError, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HAMMER = """
import random, sys, threading, time
from deepseek_grpc import Client
from deepseek_grpc.errors import ClosedError

sys.setswitchinterval(1e-5)
strange = []

def begin(client, together):
    together.wait()
    try:
        {call}
    except ClosedError:
        pass
    except BaseException as error:
        strange.append(repr(error))

for _ in range(100):
    client = Client.from_env()
    together = threading.Barrier(4)
    threads = [threading.Thread(target=begin, args=(client, together)) for _ in range(3)]
    for thread in threads:
        thread.start()
    together.wait()
    time.sleep(random.random() * 0.006)
    client.close()
    for thread in threads:
        thread.join()
print(strange)
"""


@pytest.mark.parametrize(
    "call",
    ['client.text.generate("Hi")', 'client.text.stream("Hi").final()', 'client.text.session().generate("Hi")'],
    ids=["call", "stream", "session"],
)
def test_closing_while_first_calls_begin(fake_server, call):
    done = subprocess.run(
        [sys.executable, "-c", HAMMER.format(call=call)],
        env={**os.environ, **fake_server.environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
