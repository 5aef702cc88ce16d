"""How this package was installed, and so the command that adds one of its extras."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

import spatialnet_edge

DISTRIBUTION = "spatialnet-edge"


def install_command(extra: str = "") -> str:
    """The `pip install` command that brings an extra, or the package itself again, from where this installation came from.

    A checkout is named by its folder and a wheel by its file. Where neither is known, the command names the wheel as a build
    calls it, since no package index has this package.
    """
    wanted = f"[{extra}]" if extra else ""
    editable, source = origin()
    option = "-e " if editable else ""
    return f"pip install {option}'{source}{wanted}'"


def origin() -> tuple[bool, str]:
    """Whether the installation is editable, and the folder or wheel that it was made from.

    pip records that in `direct_url.json` (PEP 610); a checkout that is merely on the path is found from this file.
    """
    try:
        record = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        record = {}
    url = urlparse(str(record.get("url", "")))
    if url.scheme == "file":
        return bool(record.get("dir_info", {}).get("editable")), unquote(url.path)
    checkout = Path(spatialnet_edge.__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return True, str(checkout)
    return False, f"spatialnet_edge-{spatialnet_edge.__version__}-py3-none-any.whl"
