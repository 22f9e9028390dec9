"""The files of static/: read once, served from memory under an address that changes with them."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from starlette.responses import PlainTextResponse, Response

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
FOR_EVER = "public, max-age=31536000, immutable"


class Assets:
    """Every file by its name. What is not among them does not exist, so no path leads outside."""

    def __init__(self) -> None:
        """Read them."""
        root = files("orchestrator.dashboard") / "static"
        self._files = {name: each.read_bytes() for name, each in _under(root, "")}
        digest = hashlib.sha256()
        for name in sorted(self._files):
            digest.update(name.encode() + b"\0" + self._files[name])
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Its address on this site. Raises KeyError."""
        if name not in self._files:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"

    def answer(self, version: str, name: str) -> Response:
        """The file; 404 without one."""
        found = self._files.get(name)
        if found is None:
            return PlainTextResponse("no such file\n", 404)
        # While an update rolls out, a page of the other version may ask: it gets what there is, and
        # keeps it for this once.
        caching = FOR_EVER if version == self.version else "no-store"
        return Response(
            found,
            media_type=TYPES[PurePosixPath(name).suffix],
            headers={"Cache-Control": caching},
        )


def _under(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for each in folder.iterdir():
        name = f"{prefix}{each.name}"
        found += _under(each, f"{name}/") if each.is_dir() else [(name, each)]
    return [(name, each) for name, each in found if PurePosixPath(name).suffix in TYPES]
