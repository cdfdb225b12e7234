"""Figures of live sessions for Prometheus; all names begin with viva_live_."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.beat import Event

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MS = (10, 20, 50, 100, 150, 200, 250, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000)
_OFFSET_MS = (-500, -200, -100, -60, -40, -20, 0, 20, 40, 60, 100, 200, 500)
MAX_STAGE_LABELS = 64


class LiveMetrics:
    """The counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = registry = CollectorRegistry()
        self._sessions = Gauge("viva_live_sessions", "Places taken.", registry=registry)
        self._queued = Gauge("viva_live_queue_depth", "Sessions that wait.", registry=registry)
        self._tasks = Gauge("viva_live_tasks", "Tasks on the gateway's loop.", registry=registry)
        self._ended = Counter(
            "viva_live_sessions_ended", "Sessions ended.", ["reason"], registry=registry
        )
        self._refused = Counter(
            "viva_live_sessions_refused", "Starts refused.", ["reason"], registry=registry
        )
        self._requests = Counter(
            "viva_live_requests", "Requests answered.", ["status"], registry=registry
        )
        self._first_frame = Histogram(
            "viva_live_first_frame_ms",
            "From the offer to the first picture, as clients measured it.",
            buckets=_MS,
            registry=registry,
        )
        self._interrupt = Histogram(
            "viva_live_interrupt_ms",
            "From interrupt to silence, as clients measured it.",
            buckets=_MS,
            registry=registry,
        )
        self._chunk = Histogram(
            "viva_live_chunk_ms",
            "How long a stage held a chunk.",
            ["stage"],
            buckets=_MS,
            registry=registry,
        )
        self._offset = Histogram(
            "viva_live_av_offset_ms",
            "Picture minus sound, as clients measured it.",
            buckets=_OFFSET_MS,
            registry=registry,
        )
        self._freezes = Counter(
            "viva_live_freezes", "Freezes that clients reported.", registry=registry
        )
        self._degraded_s = Counter(
            "viva_live_degraded_seconds", "Session seconds below full quality.", registry=registry
        )
        self._restarts = Counter(
            "viva_live_restarts", "Sessions that went on in another process.", registry=registry
        )
        self._stages: set[str] = set()
        self._degraded_since_s: float | None = None

    def count_places(self, taken: Callable[[], int], queued: Callable[[], int]) -> None:
        """Ask these whenever somebody asks how many places are taken and waited for."""
        self._sessions.set_function(taken)
        self._queued.set_function(queued)

    def tasks(self, num_tasks: int) -> None:
        """How many run now: where nobody is connected it is always the same number."""
        self._tasks.set(num_tasks)

    def ended(self, reason: str) -> None:
        """A session ended."""
        self._ended.labels(reason).inc()

    def refused(self, reason: str) -> None:
        """A session could not start."""
        self._refused.labels(reason).inc()

    def answered(self, status: int) -> None:
        """A request was answered."""
        self._requests.labels(str(status)).inc()

    def happened(self, event: Event) -> None:
        """What a performer did: stages and restarts are counted."""
        if event.kind == "restarted":
            self._restarts.inc()
        elif event.kind == "stage" and event.began_ms is not None and event.ended_ms is not None:
            self._stage_held(event.stage, event.ended_ms - event.began_ms)

    @property
    def stages(self) -> list[str]:
        """Which stages were seen, sorted."""
        return sorted(self._stages)

    def _stage_held(self, stage: str, held_ms: float) -> None:
        """Observe a chunk; a broken peer must not make series without end."""
        if len(self._stages) < MAX_STAGE_LABELS or stage in self._stages:
            self._stages.add(stage)
            self._chunk.labels(stage).observe(held_ms)

    def degraded(self, num_sessions: int, now_s: float) -> None:
        """So many sessions are degraded now; called again and again."""
        if self._degraded_since_s is not None:
            self._degraded_s.inc(max(0.0, now_s - self._degraded_since_s) * num_sessions)
        self._degraded_since_s = now_s

    def client_report(self, report: dict[str, float]) -> None:
        """What a client measured; it was checked to be finite numbers."""
        for name, histogram in (
            ("first_frame_ms", self._first_frame),
            ("interrupt_ms", self._interrupt),
            ("av_offset_ms", self._offset),
        ):
            if name in report:
                histogram.observe(report[name])
        self._freezes.inc(min(max(report.get("freezes", 0.0), 0.0), 1000.0))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
