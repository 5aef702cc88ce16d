"""How this package was installed, and so the command that adds one of its extras."""

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
    """The part of `direct_url.json` that is used here."""

    url: str = ""
    dir_info: Folder = msgspec.field(default_factory=Folder)


def install_command(extra: str = "") -> str:
    """The `pip install` command that brings an extra, or the package itself again, from where this installation came from.

    The command names a checkout by its folder and a wheel by its file. Where neither is known, it names the wheel file with
    VERSION in place of the version, because no package index has this package.
    """
    wanted = f"[{extra}]" if extra else ""
    editable, source = origin()
    option = "-e " if editable else ""
    return f"pip install {option}{shlex.quote(source + wanted)}"


def origin() -> tuple[bool, str]:
    """Whether the installation is editable, and the folder or wheel that it was made from.

    pip records the origin in `direct_url.json` (PEP 610), except for a wheel that it found by `--find-links` or in an index. A
    checkout that is on `PYTHONPATH` without an installation is found from the path of this module.
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
