"""The origin of this installation, and the pip command that adds an extra."""

from __future__ import annotations

import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

import msgspec

DISTRIBUTION = "spatialnet-edge"
WHEEL = "spatialnet_edge-VERSION-py3-none-any.whl"


class Folder(msgspec.Struct):
    editable: bool = False


class DirectUrl(msgspec.Struct):
    """The used part of `direct_url.json`."""

    url: str = ""
    dir_info: Folder = msgspec.field(default_factory=Folder)


def install_command(extra: str = "") -> str:
    """The `pip install` command for an extra, or for the package itself, from the origin of this installation.

    The command names a checkout by its folder and a wheel by its file. If neither is known, it names the wheel file with
    VERSION as a placeholder, because no package index has this package.
    """
    wanted = f"[{extra}]" if extra else ""
    editable, source = origin()
    option = "-e " if editable else ""
    return f"pip install {option}{shlex.quote(source + wanted)}"


def origin() -> tuple[bool, str]:
    """Whether the installation is editable, and its folder or wheel.

    pip records the origin in `direct_url.json` (PEP 610), except for a wheel found by `--find-links` or in an index. A
    checkout on `PYTHONPATH` without an installation is found from the path of this module.
    """
    try:
        record = msgspec.json.decode(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}", type=DirectUrl)
    except (PackageNotFoundError, ValueError):
        record = DirectUrl()
    url = urlparse(record.url)
    if url.scheme == "file":
        return record.dir_info.editable, unquote(url.path)
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").is_file():
        return True, str(checkout)
    return False, WHEEL
