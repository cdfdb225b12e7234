"""Signs finished films with C2PA: who made them, and that a trained model did.

Covered: the manifest says `c2pa.created` with the IPTC source type trainedAlgorithmicMedia, and is
bound to every byte of the film. Not covered: whether viewers trust the certificate, which is the
signer's own; a time stamp by an authority, unless the signing asks for one.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viva import __version__

from services.disk import is_disk_full

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ALGORITHMS = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")


class ProvenanceError(ValueError):
    """A film cannot be signed or read: one line naming what is wrong and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A certificate chain and its private key (PEM); `authority_url` gives time stamps."""

    chain: Path
    key: Path
    algorithm: str = "es256"
    authority_url: str = ""

    def __post_init__(self) -> None:
        """Refuse an algorithm that C2PA does not have."""
        if self.algorithm not in ALGORITHMS:
            raise ProvenanceError(
                f"no signing algorithm {self.algorithm!r}: use {', '.join(ALGORITHMS)}"
            )


def sign(film: Path, signed: Path, signing: Signing, *, title: str) -> None:
    """Write `film` with a signed manifest to `signed`.

    Raises:
        ProvenanceError: the package, certificate or key cannot be used.
        OSError: the disk is full.
    """
    c2pa = _package()
    signed.unlink(missing_ok=True)
    try:
        with (
            _signer(c2pa, signing) as signer,
            c2pa.Builder(json.dumps(_manifest(title))) as builder,
        ):
            builder.sign_file(film, signed, signer)
    except (c2pa.C2paError, OSError) as error:
        signed.unlink(missing_ok=True)
        if is_disk_full(error):
            raise
        raise ProvenanceError(
            f"{film.name} cannot be signed ({_line(error)}): check certificate chain and key"
        ) from error


def require_usable(signing: Signing) -> None:
    """Load certificate and key as `sign` will.

    Raises:
        ProvenanceError: the package, certificate or key cannot be used.
    """
    c2pa = _package()
    try:
        with _signer(c2pa, signing):
            pass
    except (c2pa.C2paError, OSError) as error:
        raise ProvenanceError(
            f"nothing can be signed ({_line(error)}): check certificate chain and key"
        ) from error


def read(film: Path) -> dict[str, Any]:
    """What a signed film says of itself, with `validation_state` as the reader judges it.

    Raises:
        ProvenanceError: it carries no manifest that can be read.
    """
    c2pa = _package()
    try:
        with c2pa.Reader(film) as reader:
            found: dict[str, Any] = json.loads(reader.json())
    except (c2pa.C2paError, OSError, ValueError) as error:
        raise ProvenanceError(f"{film.name} carries no manifest: {_line(error)}") from error
    return found


def is_untouched(film: Path) -> bool:
    """Whether a film is as it was signed, whoever signed it."""
    with suppress(ProvenanceError):
        found = read(film)
        statuses = found.get("validation_status") or []
        codes = {status.get("code", "") for status in statuses}
        return codes <= {"signingCredential.untrusted"}
    return False


def _signer(c2pa: Any, signing: Signing) -> Any:
    """The package's signer, to be closed."""
    info = c2pa.C2paSignerInfo(
        signing.algorithm.encode(),
        signing.chain.read_bytes(),
        signing.key.read_bytes(),
        signing.authority_url.encode() or None,
    )
    return c2pa.Signer.from_info(info)


def _manifest(title: str) -> dict[str, Any]:
    """What is said of a film."""
    return {
        "claim_generator_info": [{"name": "viva-voce", "version": __version__}],
        "title": title,
        "format": "video/mp4",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}]},
            }
        ],
    }


def _package() -> Any:
    """c2pa-python, which is an extra."""
    try:
        import c2pa
    except ImportError as error:
        raise ProvenanceError(
            "signing needs the package c2pa-python: pip install 'viva-voce[provenance]'"
        ) from error
    return c2pa


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
