"""A signed film says a model made it, and that nobody touched it since."""

import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.provenance import (
    SOURCE_TYPE,
    ProvenanceError,
    Signing,
    is_untouched,
    read,
    require_usable,
    sign,
)
from tests.support.job_inputs import frame_digest
from video.chunk import VideoChunk
from video.part import PartWriter

pytestmark = pytest.mark.unit


def _name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Viva Voce tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate as C2PA wants it; an authority's if it is its own issuer."""
    is_authority = subject == issuer
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not is_authority:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(by, hashes.SHA256())


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Signing:
    """A throw-away certificate, and the one that issued it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [
        _certificate("signer", own, "authority", authority),
        _certificate("authority", authority, "authority", authority),
    ]
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(b"".join(c.public_bytes(pem) for c in chain))
    (folder / "key.pem").write_bytes(
        own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Signing(chain=folder / "chain.pem", key=folder / "key.pem")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    part = PartWriter(path, size=(64, 64), fps=Fraction(25))
    frames_THWC = np.random.default_rng(1).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    part.write(VideoChunk(frames_THWC=frames_THWC, pts=0, time_base=Fraction(1, 25)))
    part.close()
    return path


def test_a_signed_film_says_what_made_it_and_shows_the_same(
    film: Path, signing: Signing, tmp_path: Path
) -> None:
    signed = tmp_path / "signed.mp4"
    sign(film, signed, signing, title="A talk")
    found = read(signed)
    manifest = found["manifests"][found["active_manifest"]]
    assert manifest["title"] == "A talk"
    actions = next(a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    assert actions["data"]["actions"][0]["digitalSourceType"] == SOURCE_TYPE
    assert manifest["signature_info"]["issuer"] == "Viva Voce tests"
    assert is_untouched(signed)
    assert frame_digest(signed) == frame_digest(film)


def test_a_touched_film_is_found_out(film: Path, signing: Signing, tmp_path: Path) -> None:
    signed = tmp_path / "signed.mp4"
    sign(film, signed, signing, title="A talk")
    data = bytearray(signed.read_bytes())
    at = data.rindex(b"mdat") + 300
    data[at] ^= 0xFF
    signed.write_bytes(data)
    assert not is_untouched(signed)
    assert "assertion.bmffHash.mismatch" in str(read(signed)["validation_status"])


def test_an_unsigned_film_has_nothing_to_say(film: Path) -> None:
    assert not is_untouched(film)
    with pytest.raises(ProvenanceError, match="no manifest"):
        read(film)


def test_a_key_that_does_not_fit_is_refused_in_one_line(
    film: Path, signing: Signing, tmp_path: Path
) -> None:
    bad = Signing(chain=signing.chain, key=film.with_name("absent.pem"))
    with pytest.raises(ProvenanceError, match="cannot be signed"):
        sign(film, tmp_path / "signed.mp4", bad, title="A talk")
    assert not (tmp_path / "signed.mp4").exists()
    require_usable(signing)
    swapped = Signing(chain=signing.key, key=signing.chain)
    for useless in (bad, swapped):
        with pytest.raises(ProvenanceError, match="nothing can be signed"):
            require_usable(useless)
    with pytest.raises(ProvenanceError, match="no signing algorithm"):
        Signing(chain=signing.chain, key=signing.key, algorithm="rot13")
