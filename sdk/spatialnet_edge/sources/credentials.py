"""Users and passwords of network cameras from a file, so that no command line shows them.

The file is a netrc file, as curl, git and Python read it:

    machine 10.0.0.7 login pilot password S3cret

Arguments of a program can be read by every user of the computer; a file of mode 0600 cannot. Where no file is given, the one that
`SPATIALNET_CREDENTIALS` names is used.
"""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from spatialnet_edge.bundle.keys import OTHERS_READ, refuse_modes
from spatialnet_edge.core.errors import UsageError, first_line

CREDENTIALS_VARIABLE = "SPATIALNET_CREDENTIALS"


def with_credentials(address: str, file: str = "") -> str:
    """The address of a network stream with the user and the password of its host.

    Args:
        address: a URI with `://`. One that has a user already is returned as it is.
        file: a netrc file; empty for the one of the environment, if any.

    Raises:
        UsageError: the file cannot be read, is no netrc file, or others may read it.
    """
    file = file or os.environ.get(CREDENTIALS_VARIABLE, "")
    host = urlsplit(address).hostname
    if not file or host is None or "@" in urlsplit(address).netloc:
        return address
    refuse_modes(Path(file), OTHERS_READ, "others may read the passwords in it")
    try:
        found = netrc.netrc(file).authenticators(host)
    except (OSError, ValueError, netrc.NetrcParseError) as error:
        broken = isinstance(error, netrc.NetrcParseError)  # its text shows a part of the file
        reason = f"line {error.lineno} is wrong" if broken else first_line(error)
        raise UsageError(
            f"{file}: cannot be read as a netrc file: {reason}; expected lines such as 'machine HOST login USER password PASSWORD'"
        ) from error
    if found is None:
        return address
    user, _, password = found
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password or '', safe='')}@{rest}"
