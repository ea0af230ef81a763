"""Ed25519 keys: one private key per signing service, one public key for everyone else.

The private key is created at the first start, readable by its owner alone. The public key lies
next to it as PEM; its key id is securesystemslib's: SHA-256 over the key's canonical JSON.

A rotation puts a new key in the old one's place. The `.pub` file then holds both public keys,
newest first, so what the old key signed still verifies until somebody takes it out.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from shared.errors import Misconfigured

_MAXIMUM_PEM_BYTES = 4096
_MAXIMUM_RING_BYTES = 64 << 10
_PEM_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----\n.+?-----END PUBLIC KEY-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a verifier trusts."""

    key_id: str
    pem: bytes
    """SubjectPublicKeyInfo, in the one spelling this library writes."""
    verifier: SSlibKey = field(repr=False, compare=False)
    """The `securesystemslib` key behind it."""

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> PublicKey:
        verifier = SSlibKey.from_crypto(key)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(key_id=verifier.keyid, pem=pem, verifier=verifier)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Raises Misconfigured if `pem` is no Ed25519 public key."""
        mend = "give the .pub file that the registry wrote next to its signing key"
        try:
            key = load_pem_public_key(pem[:_MAXIMUM_PEM_BYTES])
        except Exception as error:
            raise Misconfigured(f"not a public key in PEM: {error}", mend=mend) from error
        if not isinstance(key, Ed25519PublicKey):
            raise Misconfigured("not an Ed25519 public key", mend=mend)
        return cls.of(key)


def load_ring(path: Path) -> tuple[PublicKey, ...]:
    """Every public key in the file at `path`, newest first. Raises Misconfigured."""
    try:
        with path.open("rb") as source:
            content = source.read(_MAXIMUM_RING_BYTES)
    except OSError as error:
        raise Misconfigured(
            f"cannot read the public key {path}: {error.strerror}",
            mend="check the path; the registry writes the key at its first start",
        ) from error
    blocks = _PEM_BLOCK.findall(content)
    if not blocks:
        raise Misconfigured(
            f"{path} holds no public key in PEM", mend="give the .pub file that the registry wrote"
        )
    return tuple(PublicKey.from_pem(block) for block in blocks)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What a signing service holds."""

    public: PublicKey
    signer: CryptoSigner = field(repr=False, compare=False)
    """The `securesystemslib` signer behind it."""

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> SigningKey:
        public = PublicKey.of(key.public_key())
        return cls(public=public, signer=CryptoSigner(key, public.verifier))

    @classmethod
    def generate(cls) -> SigningKey:
        """A key that lives in memory only."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, folder: Path, name: str = "signing-key") -> SigningKey:
        """The key `<folder>/<name>.pem`, created with its `.pub` if this is the first start.

        Raises:
            Misconfigured: the file is no Ed25519 key, or others may read it.

        """
        private = folder / f"{name}.pem"
        if not private.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(private)
        if stat.S_IMODE(private.stat().st_mode) & 0o077:
            raise Misconfigured(
                f"{private} can be read by others", mend=f"chmod 600 {private}, or replace the key"
            )
        try:
            key = load_pem_private_key(private.read_bytes(), password=None)
        except Exception as error:
            raise Misconfigured(
                f"{private} is not a private key: {error}", mend="restore it from a backup"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(f"{private} is not an Ed25519 key", mend="restore it from a backup")
        made = cls.of(key)
        public = folder / f"{name}.pub"
        if not public.exists() or made.public not in load_ring(public):
            _replace(public, made.public.pem)
        return made

    @classmethod
    def rotate(cls, folder: Path, name: str = "signing-key") -> SigningKey:
        """A new key in place of the one there; the old private key is destroyed.

        Services read keys when they start: restart those that sign, then those that verify.

        Raises:
            Misconfigured: there is no usable key to replace.

        """
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        if not private.exists():
            raise Misconfigured(f"{private} is not there", mend="the first start creates it")
        cls.load_or_create(folder, name)
        ring = load_ring(public)
        made = Ed25519PrivateKey.generate()
        # The ring first: if this stops halfway, a key nobody signs with is trusted, no more.
        _replace(public, b"".join((cls.of(made).public.pem, *(key.pem for key in ring))))
        part = _write_part(private, _private_pem(made))
        part.replace(private)
        return cls.load_or_create(folder, name)


def _create(path: Path) -> None:
    """Write a fresh key at `path` unless another process was quicker. A link is atomic."""
    part = _write_part(path, _private_pem(Ed25519PrivateKey.generate()))
    try:
        os.link(part, path)
    except FileExistsError:
        return
    finally:
        part.unlink()


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _replace(path: Path, content: bytes) -> None:
    part = _write_part(path, content)
    part.chmod(0o644)
    part.replace(path)


def _write_part(path: Path, content: bytes) -> Path:
    fd, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")  # created with mode 0600
    with os.fdopen(fd, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    return Path(part)
