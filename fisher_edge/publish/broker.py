"""A broker inside the process, for the demo: amqtt, pure Python, MQTT 3.1.1. Start at `EmbeddedBroker`."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker

from fisher_edge.errors import BrokerError

__all__ = ["EmbeddedBroker"]

HOST = "127.0.0.1"
START_S = 10.0
STOP_S = 1.0
# A connection that says nothing for so long is closed, and so is one that sends a larger packet than our messages are.
GREETING_S = 10.0
LARGEST_PACKET = 1 << 20
CHATTY_LOGGERS = ("amqtt", "transitions")
LISTENER = "default"
CONFIG = {
    "listeners": {LISTENER: {"type": "external"}},  # the socket is ours, so that a port in use is our error
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


class EmbeddedBroker:
    """A broker on the loopback interface, in its own thread, for as long as the `with` block runs.

    Port 0 takes a free one. It keeps nothing over a restart and lets everybody on this computer in.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Return where clients connect."""
        return f"mqtt://{HOST}:{self.port}"

    def __enter__(self) -> "EmbeddedBroker":
        listener = _listen(self.port)
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._live, args=(listener,), name="fisher-edge-broker", daemon=True)
        self._thread.start()
        self._ready.wait(START_S)
        if self._stop is None:
            raise BrokerError(f"the embedded broker did not start: {self._error or f'no answer in {START_S:g} s'}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_S)

    def _live(self, listener: socket.socket) -> None:
        """Run the event loop of the broker."""
        try:
            with _quiet():
                asyncio.run(self._serve(listener))
        except Exception as error:
            self._error = error
            logging.getLogger(__name__).exception("the embedded broker has died")
        finally:
            self._ready.set()
            listener.close()

    async def _serve(self, listener: socket.socket) -> None:
        """Serve until told to stop."""
        broker = Broker(CONFIG)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await broker.external_connected(_BoundedReader(reader), StreamWriterAdapter(writer), LISTENER)
            finally:
                writer.close()

        await broker.start()
        server = await asyncio.start_server(connected, sock=listener)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        server.close()
        await broker.shutdown()


class _BoundedReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt is not typed
    """Reads packets of a sensible size from a client that speaks soon; ends the connection of any other."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._timeout_s: float | None = GREETING_S
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        """Read a number of bytes; amqtt takes a ConnectionResetError for the end of the stream."""
        self._ended = self._ended or n > LARGEST_PACKET
        if self._ended:
            raise ConnectionResetError
        try:
            data: bytes = await asyncio.wait_for(super().read(n), self._timeout_s)
        except asyncio.TimeoutError:
            raise ConnectionResetError from None
        self._timeout_s = None
        return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence amqtt, which logs every connection and reports a client that vanishes as an error."""
    loggers = [logging.getLogger(name) for name in CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _listen(port: int) -> socket.socket:
    """Take the port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port left a moment ago may be taken again
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise BrokerError(
            f"the embedded broker cannot take port {port} of {HOST}: {error.strerror}; stop the program that has it,"
            " or give the url of that broker under [mqtt]"
        ) from error
    return listener
