"""Bodies of requests to sessions: parsed into types here, or refused by field."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.catalog import is_bare_name
from services.problem import Problem
from services.studio import Codec
from video.crop import parse_crop

MAX_SEED = 2**63 - 1
MAX_SIDE_PX, MIN_SIDE_PX = 2048, 64
Side = Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Asked = TypeVar("Asked", bound="Request")


class Request(BaseModel):
    """What every body is: exact types, and no field that is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NewSession(Request):
    """`POST /v1/sessions`."""

    portrait: Annotated[str, Field(max_length=64)] = ""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    width: Side = 0
    height: Side = 0
    crop: Annotated[str, Field(max_length=64)] = "auto"
    codec: Codec = "VP8"

    @model_validator(mode="after")
    def _usable(self) -> "NewSession":
        """Refuse sizes that no encoder takes, and crops that are none."""
        sides = (self.width, self.height)
        if (self.width == 0) != (self.height == 0):
            raise ValueError("width and height: give both, or none")
        if any(side and (side < MIN_SIDE_PX or side % 2) for side in sides):
            raise ValueError(f"width and height: even, from {MIN_SIDE_PX} to {MAX_SIDE_PX}")
        if self.portrait and not is_bare_name(self.portrait):
            raise ValueError("portrait: a name from /v1/portraits, or of an upload")
        parse_crop(self.crop)
        return self


class Start(Request):
    """`POST /v1/sessions/{id}/start`."""

    wait: bool = False


class SdpOffer(Request):
    """`POST /v1/sessions/{id}/offer`."""

    sdp: Annotated[str, Field(min_length=1)]
    type: Literal["offer"] = "offer"


class SpeakText(Request):
    """`POST /v1/sessions/{id}/speak` with words."""

    text: Annotated[str, Field(min_length=1)]
    voice: Annotated[str, Field(max_length=32)] = ""


class InterruptRequest(Request):
    """`POST /v1/sessions/{id}/interrupt`."""

    utterance: Name | None = None


class Push(Request):
    """`POST /v1/sessions/{id}/whip`."""

    url: Annotated[str, Field(min_length=8, max_length=2048)]
    bearer: Annotated[str, Field(max_length=4096, pattern=r"^[\x21-\x7e]*$")] = ""


def parse(kind: type[Asked], body: dict[str, object]) -> Asked:
    """The body as its type.

    Raises:
        Problem: 400 `bad_field`, naming the first field that is wrong; values are not repeated.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        detail = f"{where}: {first['msg']}" if where else first["msg"]
        raise Problem(400, "bad_field", detail) from error
