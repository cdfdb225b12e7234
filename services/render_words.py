"""Renders as messages: what a caller writes becomes a `JobRequest`, a `Job` what it reads."""

from fractions import Fraction

from viva.v1 import common_pb2, render_pb2

from services.control_errors import bad_field
from services.job_queue import Job, JobRequest, JobState, check_words

MAX_TEXT_BYTES = 4096
MAX_KEY_BYTES = 128
MAX_SIDE_PX = 8192

_MODES = {
    render_pb2.RENDER_MODE_UNSPECIFIED: "",
    render_pb2.RENDER_MODE_LIVE: "live",
    render_pb2.RENDER_MODE_RENDER: "render",
}
_FRAMINGS = {
    render_pb2.RENDER_FRAMING_UNSPECIFIED: "",
    render_pb2.RENDER_FRAMING_FACE: "face",
    render_pb2.RENDER_FRAMING_PORTRAIT: "portrait",
}
_STATES = {
    JobState.QUEUED: render_pb2.RENDER_STATE_QUEUED,
    JobState.RUNNING: render_pb2.RENDER_STATE_RUNNING,
    JobState.SUCCEEDED: render_pb2.RENDER_STATE_SUCCEEDED,
    JobState.FAILED: render_pb2.RENDER_STATE_FAILED,
    JobState.CANCELLED: render_pb2.RENDER_STATE_CANCELLED,
}
_TEXTS = ("portrait", "audio", "captions", "model", "plan", "consent", "output_url")


def request_of(spec: render_pb2.RenderSpec) -> JobRequest:
    """A checked request; whether its inputs can be read is the queue's to say.

    Raises:
        Refusal: INVALID_ARGUMENT, naming the field.
        JobRefused: the same of texts and numbers that no queue takes.
    """
    for name in ("portrait", "audio"):
        if not getattr(spec, name):
            raise bad_field(f"spec.{name}", "is missing: name a file the server can read")
    for name in _TEXTS:
        if len(getattr(spec, name).encode()) > MAX_TEXT_BYTES:
            raise bad_field(f"spec.{name}", f"has more than {MAX_TEXT_BYTES} bytes")
    if spec.mode not in _MODES:
        raise bad_field("spec.mode", f"{spec.mode} is none of the modes")
    if spec.framing not in _FRAMINGS:
        raise bad_field("spec.framing", f"{spec.framing} is none of the framings")
    width, height = size_of(spec.size, "spec.size")
    request = JobRequest(
        portrait=spec.portrait,
        audio=spec.audio,
        captions=spec.captions,
        model=spec.model,
        plan=spec.plan,
        mode=_MODES[spec.mode],
        seed=spec.seed,
        width=width,
        height=height,
        fps=_fps_of(spec),
        frame=_FRAMINGS[spec.framing],
        loudness_lufs=spec.loudness_lufs,
        guard_colour=spec.guard_colour,
        label=spec.label,
        sign=spec.sign,
        consent=spec.consent,
        output_url=spec.output_url,
        labels=dict(spec.labels),
    )
    check_words(request)
    return request


def size_of(size: common_pb2.PictureSize, field: str) -> tuple[int, int]:
    """Width and height in pixels; 0, 0 is the model's own.

    Raises:
        Refusal: INVALID_ARGUMENT: one of them alone, odd, or beyond what a picture may have.
    """
    width, height = size.width_px, size.height_px
    if (width, height) == (0, 0):
        return 0, 0
    for name, side in (("width_px", width), ("height_px", height)):
        if not 16 <= side <= MAX_SIDE_PX or side % 2:
            raise bad_field(f"{field}.{name}", f"{side} must be even, 16 to {MAX_SIDE_PX}")
    return width, height


def render_of(job: Job) -> render_pb2.Render:
    """A job as its callers see it."""
    made = render_pb2.Render(
        id=job.id,
        state=_STATES[job.state],
        spec=_spec_of(job.request),
        created_at_unix_ms=_ms(job.created_at_s),
        started_at_unix_ms=_ms(job.started_at_s),
        ended_at_unix_ms=_ms(job.ended_at_s),
        attempt=job.attempt,
        progress=render_pb2.RenderProgress(
            num_frames_done=job.num_frames_done,
            num_frames_total=job.num_frames_total,
            num_segments_done=job.num_segments_done,
            num_segments_total=job.num_segments_total,
            frames_per_s=job.fps,
            eta_ms=-1 if job.eta_s < 0 else _ms(job.eta_s),
            has_preview=bool(job.preview_url),
        ),
    )
    if job.state is JobState.FAILED:
        made.failure.reason, made.failure.message = job.error_reason, job.error_detail
    if job.state is JobState.SUCCEEDED:
        made.result.url, made.result.sha256 = job.result_url, job.result_sha256
        made.result.size_bytes = job.result_bytes
    return made


def states_of(numbers: "list[render_pb2.RenderState.ValueType]") -> tuple[JobState, ...]:
    """The states that a list is to be kept to.

    Raises:
        Refusal: INVALID_ARGUMENT: none of the states.
    """
    known = {number: state for state, number in _STATES.items()}
    for number in numbers:
        if number not in known:
            raise bad_field("states", f"{number} is none of the states")
    return tuple(known[number] for number in numbers)


def _fps_of(spec: render_pb2.RenderSpec) -> Fraction:
    """The frame rate asked for; 0 is the model's own."""
    above, below = spec.frame_rate.numerator, spec.frame_rate.denominator
    if not above and not below:
        return Fraction(0)
    if not above or not below or not 1 <= Fraction(above, below) <= 60:
        raise bad_field("spec.frame_rate", f"{above}/{below} must be 1 to 60 pictures a second")
    return Fraction(above, below)


def _spec_of(request: JobRequest) -> render_pb2.RenderSpec:
    """What was asked for, as it was asked."""
    spec = render_pb2.RenderSpec(
        portrait=request.portrait,
        audio=request.audio,
        captions=request.captions,
        model=request.model,
        plan=request.plan,
        mode={word: number for number, word in _MODES.items()}[request.mode],
        seed=request.seed,
        framing=_number_of(request.frame),
        loudness_lufs=request.loudness_lufs,
        guard_colour=request.guard_colour,
        label=request.label,
        sign=request.sign,
        consent=request.consent,
        output_url=request.output_url,
        labels=request.labels,
    )
    if request.width:
        spec.size.width_px, spec.size.height_px = request.width, request.height
    if request.fps:
        spec.frame_rate.numerator = request.fps.numerator
        spec.frame_rate.denominator = request.fps.denominator
    return spec


def _number_of(frame: str) -> render_pb2.RenderFraming.ValueType:
    """A framing's number."""
    return {word: number for number, word in _FRAMINGS.items()}[frame]


def _ms(seconds: float) -> int:
    """Milliseconds."""
    return round(seconds * 1000)
