"""Traces by OpenTelemetry, where it is installed and wanted; otherwise nothing happens.

Exporters are configured by OpenTelemetry's own environment variables (OTEL_EXPORTER_OTLP_ENDPOINT
and so on).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

Attribute = str | int | float | bool


class TracingMissing(RuntimeError):
    """Traces are wanted, and the packages are not there: one line saying how to get them."""


class Tracer(Protocol):
    """Makes spans."""

    def span(self, name: str, **attributes: Attribute) -> contextlib.AbstractContextManager[None]:
        """A span around what happens inside."""
        ...

    def close(self) -> None:
        """Send what was not sent yet."""


class NoTracer:
    """Does nothing."""

    def span(self, name: str, **attributes: Attribute) -> contextlib.AbstractContextManager[None]:
        """Nothing."""
        del name, attributes
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing."""


class OtelTracer:
    """Spans of OpenTelemetry."""

    def __init__(self, export: Callable[[], object] | None = None) -> None:
        """Send spans where the environment says; `export` makes another exporter.

        Raises:
            TracingMissing: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
        except ImportError as error:
            raise TracingMissing(
                "traces need OpenTelemetry: pip install 'viva-voce[traces]'"
            ) from error
        exporter = OTLPSpanExporter() if export is None else export()
        if not isinstance(exporter, SpanExporter):
            raise TypeError("export makes no SpanExporter")
        self._provider = TracerProvider(resource=Resource.create({"service.name": "viva-serve"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("viva")

    @contextlib.contextmanager
    def span(self, name: str, **attributes: Attribute) -> Iterator[None]:
        """A span around what happens inside."""
        with self._tracer.start_as_current_span(name, attributes=attributes):
            yield

    def close(self) -> None:
        """Send what was not sent yet, and end the sender's thread."""
        self._provider.shutdown()


def make_tracer(*, wanted: bool) -> Tracer:
    """A tracer as wanted.

    Raises:
        TracingMissing: it is wanted and cannot be.
    """
    return OtelTracer() if wanted else NoTracer()
