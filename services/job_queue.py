"""What the batch queue promises to whoever submits work: gRPC, the command line, the demo page.

The queue itself lies in `job_store.py` and `jobs*.py`; this module knows neither database nor
model, so that a server's border can be built and tested against it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Protocol

MAX_SEED = 2**63 - 1
MAX_LABEL_CHARS = 64
MAX_LABELS, MAX_LABEL_BYTES = 32, 256
MAX_CONSENT_CHARS = 1024
LOUDNESS_LUFS = (-40.0, -5.0)


class JobState(StrEnum):
    """Where a job is: the last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens to the job, but for its time to live."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class JobError(ValueError):
    """A request to the queue cannot be served: one line naming the input and the remedy."""


class JobRefused(JobError):
    """A request that can never be rendered as it is; `field` names what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        """Say what is wrong with which field."""
        super().__init__(reason)
        self.field = field


class JobUnknown(JobError):
    """No job of this id, or not one the caller may see."""


class JobConflict(JobError):
    """The job cannot do this now: a key used with other input, a result that is not there yet."""


class QueueFull(JobError):
    """The queue or its disk takes nothing more now; `retry_after_s` is when to ask again."""

    def __init__(self, reason: str, *, retry_after_s: float) -> None:
        """Say why, and when it may be otherwise."""
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is to be rendered. Empty texts and zeros mean: the server's own choice.

    `portrait`, `audio` and `captions` are names, URLs fsspec can read within what the server
    allows, or what `save_input` gave. `loudness_lufs` 0 leaves the sound as it is.
    """

    portrait: str
    audio: str
    captions: str = ""
    model: str = ""
    plan: str = ""
    mode: str = ""
    seed: int = 0
    width: int = 0
    height: int = 0
    fps: Fraction = Fraction(0)
    frame: str = ""
    loudness_lufs: float = 0.0
    guard_colour: bool = False
    label: str = ""
    sign: bool = False
    consent: str = ""
    output_url: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def check_words(request: JobRequest) -> None:
    """Refuse texts and numbers out of range: label, labels, seed, loudness and consent.

    Raises:
        JobRefused: names the field and the remedy.
    """
    if len(request.label) > MAX_LABEL_CHARS or not request.label.isprintable():
        raise JobRefused("label", f"label: one line of at most {MAX_LABEL_CHARS} characters")
    low, high = LOUDNESS_LUFS
    if request.loudness_lufs and not low <= request.loudness_lufs <= high:
        raise JobRefused("loudness_lufs", f"loudness_lufs: choose {low:.0f} to {high:.0f}, or 0")
    if not 0 <= request.seed <= MAX_SEED:
        raise JobRefused("seed", f"seed: choose 0 to {MAX_SEED}")
    sizes = [len(text.encode()) for pair in request.labels.items() for text in pair]
    if len(request.labels) > MAX_LABELS or max(sizes, default=0) > MAX_LABEL_BYTES:
        raise JobRefused("labels", f"labels: at most {MAX_LABELS} of {MAX_LABEL_BYTES} bytes")
    if "" in request.labels:
        raise JobRefused("labels", "labels: each needs a name")
    if len(request.consent) > MAX_CONSENT_CHARS:
        raise JobRefused("consent", f"consent: at most {MAX_CONSENT_CHARS} characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is known of a job. Times are seconds since 1970 (wall clock, for people), 0 = not yet.

    `num_frames_total` is 0 while nobody has counted; `eta_s` is negative while nobody can tell.
    """

    id: str
    state: JobState
    request: JobRequest
    created_at_s: float
    started_at_s: float = 0.0
    ended_at_s: float = 0.0
    num_frames_done: int = 0
    num_frames_total: int = 0
    num_segments_done: int = 0
    num_segments_total: int = 0
    fps: float = 0.0
    eta_s: float = -1.0
    attempt: int = 0
    error_reason: str = ""
    error_detail: str = ""
    result_url: str = ""
    result_bytes: int = 0
    result_sha256: str = ""
    preview_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs, newest first, and the word that asks for the next ones ("" = these were all)."""

    jobs: tuple[Job, ...]
    next_page_token: str = ""


class JobQueue(Protocol):
    """A durable queue of renders. `owner` is who asks ("" = whoever holds the server).

    Each method raises `JobError`s only; each is safe to repeat.
    """

    async def submit(self, request: JobRequest, idempotency_key: str = "", owner: str = "") -> Job:
        """Take a job, or give the one that was taken under the same key."""
        ...

    async def get(self, job_id: str, owner: str = "") -> Job:
        """What is known of a job now."""
        ...

    async def list(
        self,
        page_token: str = "",
        page_size: int = 50,
        states: tuple[JobState, ...] = (),
        owner: str = "",
    ) -> JobPage:
        """A page of jobs, newest first; no states means all."""
        ...

    def watch(self, job_id: str, owner: str = "") -> AsyncIterator[Job]:
        """The job now and after each change, until it has ended."""
        ...

    async def cancel(self, job_id: str, owner: str = "") -> Job:
        """Have a job stop within 2 s; a job that has ended stays what it is."""
        ...

    async def save_input(self, name: str, chunks: AsyncIterator[bytes], owner: str = "") -> str:
        """Keep an upload until jobs have used it, and give the word a request names it by."""
        ...

    def open_result(
        self, job_id: str, offset: int = 0, *, preview: bool = False, owner: str = ""
    ) -> AsyncIterator[bytes]:
        """The finished file's bytes from an offset on (or the preview clip's)."""
        ...
