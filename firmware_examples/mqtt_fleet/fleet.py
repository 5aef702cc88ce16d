"""A live web page with all aircraft of a fleet and their results.

python fleet.py --broker 127.0.0.1 --topic fleet --port 8080
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import msgspec
import paho.mqtt.client as paho
import typer

MOST_AIRCRAFT = 500
MOST_BYTES = 1 << 16
"""Limits of messages. A publisher must not be able to fill the memory of this program or of the browsers."""
LONGEST_NAME = 100
PAGE = Path(__file__).with_name("fleet.html")
STATES = ("online", "offline")
RATE_OVER = 20
"""Number of results for computing an aircraft's rate."""


@dataclass
class Aircraft:
    """State of one aircraft."""

    state: str = "unknown"
    result: dict[str, Any] = field(default_factory=dict)
    heard: deque[float] = field(default_factory=lambda: deque(maxlen=RATE_OVER))

    def shown(self) -> dict[str, Any]:
        spread = self.heard[-1] - self.heard[0] if len(self.heard) > 1 and self.state != "offline" else 0.0
        rate = round((len(self.heard) - 1) / spread, 1) if spread else 0.0
        return {"state": self.state, "rate": rate, "result": self.result}


def read_object(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a message; None for other content, such as NaN, which browsers cannot parse, or too deep nesting."""
    if len(payload) > MOST_BYTES:
        return None
    try:
        content = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


class Fleet:
    """Subscribes to the broker and sends changes to every open page.

    Attributes:
        malformed: number of dropped messages.
    """

    def __init__(self, host: str, port: int, topic: str) -> None:
        self.aircraft: dict[str, Aircraft] = {}
        self.malformed = 0
        self._topic = topic
        self._pages: list[queue.Queue[str]] = []
        self._lock = threading.Lock()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda *_: self._client.subscribe(f"{topic}/+/+", qos=1)
        self._client.on_message = lambda client, data, message: self._hear(message.topic, message.payload)
        self._client.connect(host, port)
        self._client.loop_start()

    def _hear(self, topic: str, payload: bytes) -> None:
        name, _, kind = topic.removeprefix(f"{self._topic}/").partition("/")
        content = read_object(payload)
        with self._lock:
            full = name not in self.aircraft and len(self.aircraft) >= MOST_AIRCRAFT
            if content is None or full or len(name) > LONGEST_NAME:
                self.malformed += 1  # not of this fleet, or too many aircraft
                return
            craft = self.aircraft.setdefault(name, Aircraft())
            if kind == "health":
                state = content.get("state")
                craft.state = state if state in STATES else "unknown"
            elif kind == "result":
                craft.result = content
                craft.heard.append(time.monotonic())
            event = json.dumps({name: craft.shown()})
            for page in self._pages:
                if page.full():
                    page.get_nowait()  # a slow page gets only the newest state
                page.put_nowait(event)

    def events(self) -> Iterator[str]:
        """The complete state, then every change, as server-sent events (WHATWG HTML, 9.2)."""
        page: queue.Queue[str] = queue.Queue(100)
        with self._lock:
            self._pages.append(page)
            everything = json.dumps({name: craft.shown() for name, craft in self.aircraft.items()})
        try:
            yield f"data: {everything}\n\n"
            while True:
                try:
                    yield f"data: {page.get(timeout=5)}\n\n"
                except queue.Empty:
                    yield ": still there\n\n"
        finally:
            with self._lock:
                self._pages.remove(page)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def server(fleet: Fleet, port: int) -> ThreadingHTTPServer:
    """Serve the page at `/` and the events at `/events`, only on the local interface; `?once` sends the current state and
    ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/":
                self._answer("text/html; charset=utf-8", PAGE.read_bytes())
            elif path == "/events":
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                try:
                    for event in fleet.events():
                        self.wfile.write(event.encode())
                        self.wfile.flush()
                        if query == "once":
                            return
                except OSError:
                    pass  # the page was closed
            else:
                self.send_error(404)

        def _answer(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found.daemon_threads = True
    return found


def main(
    broker: Annotated[str, typer.Option(help="The MQTT broker.")] = "127.0.0.1",
    broker_port: Annotated[int, typer.Option(help="Its port.")] = 1883,
    topic: Annotated[str, typer.Option(help="Topic prefix of the aircraft: TOPIC/NAME/result.")] = "fleet",
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free port.")] = 8080,
) -> None:
    """Show the fleet on a web page."""
    fleet = Fleet(broker, broker_port, topic)
    page = server(fleet, port)
    typer.echo(f"http://127.0.0.1:{page.server_address[1]}/")
    try:
        page.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        page.server_close()
        fleet.close()


if __name__ == "__main__":
    typer.run(main)
