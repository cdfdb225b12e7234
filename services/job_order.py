"""What a worker tells the process that does a job."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from pydantic import TypeAdapter

from services.job_files import FileRules
from services.job_queue import JobRequest
from services.provenance import Signing


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job for the process; `segment_s` is how long a segment's sound lasts."""

    job_id: str
    request: JobRequest
    data: Path
    rules: FileRules = field(default_factory=FileRules)
    segment_s: Fraction = Fraction(20)
    signing: Signing | None = None
    wants_preview: bool = True


ORDER = TypeAdapter(Order)
