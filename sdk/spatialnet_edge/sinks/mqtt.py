"""MQTT sink: results to a broker, for a fleet of aircraft (extra `mqtt`)."""

from __future__ import annotations

import os
import threading
from collections import deque
from importlib import import_module
from typing import Any, final

import msgspec

from spatialnet_edge.core.errors import MissingExtra, SinkError, UsageError, first_line
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.budget import Budget, number, parse_peer

PLAIN_PORT, TLS_PORT = 1883, 8883
CONNECT_S = 10.0
KEEPALIVE_S = 15
LONGEST_TOPIC = 1024
MOST_UNSENT = 256
"""Limit of results that wait for the link. paho has no limit of its own, so a slow link would fill the memory."""
OPTIONS = {
    "budget": "0",
    "qos": "0",
    "client": "",
    "cafile": "",
    "certfile": "",
    "keyfile": "",
    "username": "",
    "password_file": "",
}
encode_json = msgspec.json.Encoder().encode


def parse_mqtt(rest: str, scheme: str = "mqtt") -> tuple[str, int, str, dict[str, str]]:
    """Parse host, port, topic and options.

    Raises:
        UsageError: an option is unknown or out of range, the topic is missing or invalid, or a secret or certificate file
            cannot be read.
    """
    host, port, topic, options = parse_peer(scheme, rest, TLS_PORT if scheme == "mqtts" else PLAIN_PORT, OPTIONS)
    if not topic:
        raise UsageError(f"{scheme}://{host}:{port}: no topic; expected {scheme}://HOST:PORT/fleet/NAME")
    if set("+#\0") & set(topic) or len(topic.encode()) > LONGEST_TOPIC:
        raise UsageError(f"{scheme}://{host}:{port}: a topic to publish to has no + or #, and at most {LONGEST_TOPIC} bytes")
    number(scheme, options, "budget")
    if options["qos"] not in ("0", "1", "2"):
        raise UsageError(f"{scheme}: qos={options['qos']}: expected 0, 1 or 2")
    for name in ("cafile", "certfile", "keyfile", "password_file"):
        if options[name] and not os.access(options[name], os.R_OK):
            raise UsageError(f"{scheme}: {name}={options[name]}: cannot be read by user {os.geteuid()}")
    return host, port, topic, options


def parse_mqtts(rest: str) -> tuple[str, int, str, dict[str, str]]:
    """See `parse_mqtt`."""
    return parse_mqtt(rest, "mqtts")


@final
class MqttSink:
    """`mqtt://HOST:PORT/TOPIC?qos=0&budget=BYTES_A_SECOND`, or `mqtts:` with TLS.

    Publishes every result to `TOPIC/result`. `TOPIC/health` is retained: `{"state":"online"}` while connected, and
    `{"state":"offline"}` as the last will, which the broker publishes when the connection breaks (MQTT 5.0, 3.1.2.5). paho
    reconnects automatically. Results written meanwhile, or while `MOST_UNSENT` results wait for a slow link, are dropped and
    counted in `lost`, because new results matter more than old ones.

    Raises:
        MissingExtra: paho-mqtt is not installed.
        SinkError: no connection within 10 s.
    """

    wants_pixels = False

    def __init__(self, rest: str, scheme: str = "mqtt") -> None:
        tls = scheme == "mqtts"
        host, port, self._topic, options = parse_mqtt(rest, scheme)
        self._budget = Budget(number(scheme, options, "budget"))
        self._qos = int(options["qos"])
        self.lost = 0
        self._unsent: deque[Any] = deque()
        try:
            paho: Any = import_module("paho.mqtt.client")
        except ModuleNotFoundError as error:
            raise MissingExtra("paho.mqtt", "mqtt") from error
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=options["client"])
        connected = threading.Event()
        client.on_connect = lambda *_: self._say_online(connected)  # pyright: ignore[reportUnknownLambdaType]
        client.will_set(f"{self._topic}/health", b'{"state":"offline"}', qos=1, retain=True)
        if options["username"]:
            client.username_pw_set(options["username"], read_secret(options["password_file"]))
        if tls:
            client.tls_set(options["cafile"] or None, options["certfile"] or None, options["keyfile"] or None)
        self._client: Any = client
        try:
            client.connect(host, port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise SinkError(
                f"{scheme}://{host}:{port}: no broker: {first_line(error)}; check address, port and TLS"
            ) from error
        client.loop_start()
        if not connected.wait(CONNECT_S):
            self.close()
            raise SinkError(
                f"{scheme}://{host}:{port}: the broker did not accept the connection within {CONNECT_S:g} s; check "
                "name and password"
            )

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def write(self, result: FrameResult) -> None:
        while self._unsent and self._is_done(self._unsent[0]):
            self._unsent.popleft()
        if not self._client.is_connected() or len(self._unsent) >= MOST_UNSENT:
            self.lost += 1
            return
        text = encode_json(result.to_dict())
        if self._budget.allows(len(text)):
            self._unsent.append(self._client.publish(f"{self._topic}/result", text, qos=self._qos))

    def _is_done(self, message: Any) -> bool:
        """Whether a message was sent or lost; lost messages are counted."""
        try:
            return bool(message.is_published())
        except (RuntimeError, ValueError):
            self.lost += 1
            return True

    def close(self) -> None:
        if self._client.is_connected():
            message = self._client.publish(f"{self._topic}/health", b'{"state":"offline"}', qos=1, retain=True)
            try:
                message.wait_for_publish(2)
            except RuntimeError:
                self.lost += 1
        self._client.disconnect()
        self._client.loop_stop()

    def _say_online(self, connected: threading.Event) -> None:
        self._client.publish(f"{self._topic}/health", b'{"state":"online"}', qos=1, retain=True)
        connected.set()


def over_tls(rest: str) -> MqttSink:
    """`mqtts://`: see `MqttSink`."""
    return MqttSink(rest, "mqtts")


def read_secret(path: str) -> str:
    """The first line of a file. A URI must not contain a password, because other processes can see it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError as error:
        raise UsageError(f"password_file={path}: cannot be read: {error.strerror}") from error
