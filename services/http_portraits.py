"""Routes of portraits: the cast, its thumbnails, uploads."""

from aiohttp import BodyPartReader, web

from services.gateway_parts import Parts
from services.limits import READ_BYTES, too_large, within
from services.portraits import TYPES
from services.problem import Problem

FIELD = "portrait"
ONE_DAY = {"Cache-Control": "public, max-age=86400"}


class PortraitRoutes:
    """Handlers for /v1/portraits."""

    def __init__(self, parts: Parts) -> None:
        """Serve these parts."""
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/v1/portraits", self.show),
            web.get("/v1/portraits/{name}/thumbnail", self.thumbnail),
            web.post("/v1/portraits", self.upload),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The cast, and what may be uploaded."""
        del request
        limits = self._parts.deployment.limits
        cast = [
            {
                "name": member.name,
                "title": member.title,
                "thumbnail": f"/v1/portraits/{member.name}/thumbnail",
            }
            for member in self._parts.portraits.cast.values()
        ]
        answer = {
            "portraits": cast,
            "max_bytes": limits.max_picture_bytes,
            "max_pixels": limits.max_picture_pixels,
            "types": list(TYPES),
        }
        return web.json_response(answer)

    async def thumbnail(self, request: web.Request) -> web.FileResponse:
        """The small picture of a cast member."""
        path = self._parts.portraits.thumbnail(request.match_info["name"])
        return web.FileResponse(path, headers=ONE_DAY)

    async def upload(self, request: web.Request) -> web.Response:
        """Keep a picture that can be decoded."""
        self._parts.gate.require_key(request)
        upload = await self._parts.portraits.add(await self._picture(request))
        answer = {
            "portrait": upload.name,
            "width": upload.width,
            "height": upload.height,
            "expires_in_s": self._parts.deployment.limits.upload_ttl_s,
        }
        return web.json_response(answer, status=201)

    async def _picture(self, request: web.Request) -> bytes:
        """The file in the body, raw or in a form.

        Raises:
            Problem: 400, 408, 413, 415.
        """
        limits = self._parts.deployment.limits
        if request.content_type in TYPES:
            return await self._parts.body(request, limits.max_picture_bytes)
        if request.content_type != "multipart/form-data":
            raise Problem(415, "wrong_type", f"send one of {', '.join(TYPES)}, or a form")
        async with within(limits.body_timeout_s):
            return await _file_of_form(request, limits.max_picture_bytes)


async def _file_of_form(request: web.Request, max_bytes: int) -> bytes:
    """The file field of a form; other fields are refused.

    Raises:
        Problem: 400 `bad_request`, 413.
    """
    if (request.content_length or 0) > max_bytes + READ_BYTES:
        raise too_large(max_bytes)
    try:
        part = await (await request.multipart()).next()
        if not isinstance(part, BodyPartReader) or part.name != FIELD:
            raise Problem(400, "bad_request", f"the form's first field must be {FIELD}, a file")
        data = bytearray()
        while piece := await part.read_chunk(READ_BYTES):
            data += piece
            if len(data) > max_bytes:
                raise too_large(max_bytes)
    except (ValueError, AssertionError, RuntimeError, web.RequestPayloadError) as error:
        raise Problem(400, "bad_request", "the form is broken") from error
    return bytes(data)
