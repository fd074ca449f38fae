"""A real mosquitto for tests, a subscriber that notes what arrives, and a proxy that breaks connections."""

import getpass
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

__all__ = ["EXECUTABLE", "Message", "Mosquitto", "Proxy", "Subscriber", "free_port", "wait_until"]

HOST = "127.0.0.1"
# Below what Linux gives out by itself (from 32768 on); so many ports for each test process.
FIRST_PORT, PORTS = 16_000, 2_000
_taken = itertools.count()
EXECUTABLE = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    """Wait for a condition, and fail with what was expected when it does not come."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.01)


def free_port() -> int:
    """Return a port that nobody else takes soon: not one that the system gives out, nor of another test process."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_PORT + PORTS * (worker % 8)
    for number in range(PORTS):
        port = first + (os.getpid() + next(_taken) + number) % PORTS
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


class Mosquitto:
    """A broker on its own port whose messages for a lasting subscriber survive `stop` and `start`."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.port = free_port()
        self.url = f"mqtt://{HOST}:{self.port}"
        self._folder = folder
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Mosquitto":
        """Start and wait for the port."""
        assert EXECUTABLE is not None
        config = self._folder / "mosquitto.conf"
        access = "" if "allow_anonymous" in self._extra else "allow_anonymous true\n"
        config.write_text(
            f"listener {self.port} {HOST}\nuser {getpass.getuser()}\npersistence true\n"
            f"persistence_location {self._folder}/\nmax_queued_messages 0\n{access}{self._extra}"
        )
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([EXECUTABLE, "-c", str(config)], stdout=log, stderr=log)
        wait_until(self._answers, f"mosquitto on port {self.port}, see {self._folder}/mosquitto.log")
        return self

    def stop(self) -> None:
        """Stop as a service manager would."""
        self.signal(signal.SIGTERM)

    def forget(self) -> None:
        """Lose the retained messages and sessions that survive a restart."""
        (self._folder / "mosquitto.db").unlink()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; after one that ends the process, wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        if number in {signal.SIGTERM, signal.SIGKILL}:
            self._process.wait(10)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)

    def _answers(self) -> bool:
        """Tell whether the port takes connections."""
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


@dataclass(frozen=True)
class Message:
    """What a subscriber got; `fields` of JSON, empty for a plain word."""

    topic: str
    payload: bytes
    retain: bool
    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        """Return the last level of the topic."""
        return self.topic.rsplit("/", 1)[-1]


class Subscriber:
    """Notes everything a broker passes on; use it as a context manager."""

    def __init__(self, port: int, name: str = "", login: tuple[str, str] | None = None) -> None:
        self.messages: list[Message] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=not name)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._note
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        if login:
            self._client.username_pw_set(*login)
        self._client.connect(HOST, port)

    def __enter__(self) -> "Subscriber":
        self._client.loop_start()
        assert self._subscribed.wait(10), "the subscriber got no answer from the broker"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: str) -> None:
        """Send a message as another program of the plant would."""
        self._client.publish(topic, payload, qos=1)

    def of(self, kind: str) -> list[Message]:
        """Return the messages of one kind."""
        return [message for message in self.messages if message.kind == kind]

    def seqs(self, kind: str) -> list[int]:
        """Return the numbers of one kind in the order of arrival."""
        return [message.fields["seq"] for message in self.of(kind)]

    def wait_for(self, kind: str, seq: int) -> None:
        """Wait until a number has arrived."""
        wait_until(lambda: seq in self.seqs(kind), f"{kind} {seq}")

    def wait_for_status(self, word: bytes) -> None:
        """Wait until the latest status is a word."""
        wait_until(lambda: [m.payload for m in self.of("status")][-1:] == [word], f"status {word!r}")

    def _note(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        fields = json.loads(message.payload) if message.payload.startswith(b"{") else {}
        self.messages.append(Message(message.topic, bytes(message.payload), message.retain, fields))


class Proxy:
    """Stands between a client and a broker and can break the connection in both directions or in one."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server = socket.create_server((HOST, 0))
        self.port = int(self._server.getsockname()[1])
        self.url = f"mqtt://{HOST}:{self.port}"
        self.swallow_replies = False
        self.hang_up_on: bytes | None = None
        self.connections = 0
        self._cut = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(10)
        self._server.close()

    def cut(self) -> None:
        """Close the present connection."""
        self._cut.set()

    def _live(self) -> None:
        """Take one connection after the other."""
        self._server.settimeout(0.05)
        while not self._closed.is_set():
            try:
                client, _ = self._server.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._cut.clear()
            with client, socket.create_connection((HOST, self._target_port)) as broker:
                self._forward(client, broker)

    def _forward(self, client: socket.socket, broker: socket.socket) -> None:
        """Pass data on until one side is gone or the connection is cut."""
        while not self._closed.is_set() and not self._cut.is_set():
            for source in select.select([client, broker], [], [], 0.01)[0]:
                try:
                    data = source.recv(65536)
                    if self.hang_up_on and self.hang_up_on in data:
                        return
                    if source is client:
                        broker.sendall(data)
                    elif not self.swallow_replies:
                        client.sendall(data)
                except OSError:
                    return
                if not data:
                    return
