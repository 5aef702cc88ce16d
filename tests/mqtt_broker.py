"""A real MQTT broker for tests, with TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """Mosquitto if installed, otherwise amqtt, in a separate process that can be killed and restarted."""

    def __init__(self, folder: Path, port: int, tls_port: int, certificate: Path, key: Path) -> None:
        self.port, self.tls_port = port, tls_port
        mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.is_mosquitto = Path(mosquitto).exists()
        if self.is_mosquitto:
            config = folder / "mosquitto.conf"
            user = f"user {os.environ.get('USER', 'root')}\n" if os.geteuid() == 0 else ""
            config.write_text(
                f"{user}allow_anonymous true\npersistence false\nlistener {port} 127.0.0.1\n"
                f"listener {tls_port} 127.0.0.1\ncafile {certificate}\ncertfile {certificate}\nkeyfile {key}\n"
            )
            self.command = [mosquitto, "-c", str(config)]
        else:
            pytest.importorskip("amqtt")
            config = folder / "amqtt.yaml"
            config.write_text(
                f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
                f"  tls:\n    bind: 127.0.0.1:{tls_port}\n    ssl: true\n    certfile: {certificate}\n    keyfile: {key}\n"
                "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
            )
            self.command = [str(Path(sys.executable).with_name("amqtt")), "-c", str(config)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the broker does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def certify(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "broker.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "broker.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "broker.key").chmod(0o644)
    return folder / "broker.pem", folder / "broker.key"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    pytest.importorskip("paho.mqtt.client")
    tmp_path.chmod(0o755)
    certificate, key = certify(tmp_path)
    broker = Broker(tmp_path, free_port(), free_port(), certificate, key)
    broker.start()
    yield broker
    broker.stop()
