"""Worker entries for tests of the executor; imported by name in the worker process."""

from __future__ import annotations

import json
import os
import threading
import time
from multiprocessing.connection import Connection

from sidejudge_server.optimization.child import Channel


def echo(connection: Connection) -> None:
    """Send the spec back and end."""
    channel = Channel(connection)
    spec = channel.receive_spec()
    channel.send({"kind": "warning", "message": spec["text"]})
    channel.send({"kind": "result", "pid": os.getpid()})
    os._exit(0)


def dies(connection: Connection) -> None:
    """End without a last word."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.send({"kind": "warning", "message": "about to die"})
    os._exit(3)


def talks_nonsense(connection: Connection) -> None:
    """Send what is no JSON."""
    Channel(connection).receive_spec()
    connection.send_bytes(b"\x80\x04 no json")
    threading.Event().wait()


def polite(connection: Connection) -> None:
    """Stop when asked to."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.watch()
    stop = threading.Event()
    channel.on_cancel(stop.set)
    channel.send({"kind": "warning", "message": "ready"})
    stop.wait()
    channel.send({"kind": "cancelled"})
    os._exit(0)


def deaf(connection: Connection) -> None:
    """Go on whatever it is asked, but mind the lifeline."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.watch()
    channel.send({"kind": "warning", "message": json.dumps({"pid": os.getpid()})})
    while True:
        time.sleep(60)
