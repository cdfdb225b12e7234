"""The demo page: a handful of files read at start, served by name."""

from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from services.problem import Problem

FOLDER = Path(__file__).parent / "web"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
# Nothing is inline, nothing comes from elsewhere; blobs are uploads that are being looked at.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str


class WebPage:
    """Handlers for / and the files of the page."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read all there is; nothing else is ever opened, whatever a path says."""
        self._files = {
            path.name: _File(path.read_bytes(), _TYPES[path.suffix])
            for path in sorted(folder.glob("*"))
            if path.suffix in _TYPES and path.is_file()
        }

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [web.get("/", self.show), web.get("/web/{file}", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """A file.

        Raises:
            Problem: 404 `not_found`.
        """
        file = self._files.get(request.match_info.get("file", INDEX))
        if file is None:
            raise Problem(404, "not_found", "there is no such page")
        return web.Response(
            body=file.content, content_type=file.content_type, charset="utf-8", headers=HEADERS
        )
