"""What draws volumes in the page: NiiVue, which an operator brings, from one file of this server."""

import gzip
import hashlib
from dataclasses import dataclass

import structlog

from neurofv.errors import InvalidRequest
from neurofv.viewer import kept_script, viewer_license

_MISSING = (
    "NiiVue is not in the cache of the server's user; run `make viewer`, or name its file in NEUROFV_VIEWER"
)
_log = structlog.get_logger()


class ViewerRefused(Exception):
    """The setting names a file that is no viewer."""


@dataclass(frozen=True)
class Viewer:
    """NiiVue's script, as browsers get it.

    Attributes
    ----------
    plain : bytes
        The script, its license at the top.
    packed : bytes
        The same, compressed by gzip.
    tag : str
        Its ETag: weak, for it means the content and not the compression.
    """

    plain: bytes
    packed: bytes
    tag: str


def read_viewer(chosen: str) -> Viewer | None:
    """Read the script; npm is not asked.

    Parameters
    ----------
    chosen : str
        The setting `viewer`.

    Returns
    -------
    Viewer or None
        None if none is wanted, or none is there, which the log then says.

    Raises
    ------
    ViewerRefused
        A file is named that cannot be read, or does not hold the script.
    """
    try:
        script = kept_script(chosen)
    except InvalidRequest as error:
        raise ViewerRefused(str(error)) from None
    if script is None:
        if not chosen:
            _log.warning("ui_without_viewer", why=_MISSING)
        return None
    plain = f"/*! NiiVue\n{viewer_license()}*/\n{script}".encode()
    tag = f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"'
    return Viewer(plain, gzip.compress(plain, 6, mtime=0), tag)
