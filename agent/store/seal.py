"""Seal values with AES-256-GCM. The key is not kept with the record: a systemd credential, else a file of its own.

A sealed value names its key and is bound to its row: moved to another row it opens no more. The key file is made when
first something is sealed. `cryptography` costs 8 MiB, so it is loaded when first a sealed value is met.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent.durable_files import write_private
from agent.errors import ConfigError, Retryable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"\x00edgelet-sealed-1\x00"
CREDENTIAL = "edgelet-store-key"
"""The name of the systemd credential."""
KEY_BYTES = 32
_ID_BYTES, _NONCE_BYTES = 4, 12


class Unreadable(Exception):
    """Sealed with another key, or changed since."""


class Sealer:
    """Blocking where the key is first needed; afterwards memory only."""

    def __init__(self, key_file: Path, credentials_folder: str = "") -> None:
        """`credentials_folder` is $CREDENTIALS_DIRECTORY, empty where systemd gave none."""
        credential = Path(credentials_folder) / CREDENTIAL if credentials_folder else None
        self._credential = credential if credential is not None and credential.exists() else None
        self._key_file = key_file
        self._cipher: AESGCM | None = None
        self._id = b""
        self._loading = threading.Lock()

    @property
    def where(self) -> Path:
        return self._credential or self._key_file

    def seal(self, row_key: str, value: bytes) -> bytes:
        """Raises ConfigError for a key that can't be used, Retryable where a new one can't be written now."""
        cipher = self._ready(make=True)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return MAGIC + self._id + nonce + cipher.encrypt(nonce, value, row_key.encode())

    def unseal(self, row_key: str, sealed: bytes) -> bytes:
        """Raises Unreadable; ConfigError as `seal`."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ready(make=False)
        rest = sealed[len(MAGIC) :]
        if rest[:_ID_BYTES] != self._id:
            raise Unreadable("sealed with another key")
        nonce, text = rest[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], rest[_ID_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, text, row_key.encode())
        except (InvalidTag, ValueError) as error:
            raise Unreadable("changed since it was sealed") from error

    def check(self) -> None:
        """Raises ConfigError for a key that is there and can't be used. Reads a file, no more."""
        if self._cipher is None:
            self._key()

    @property
    def loaded(self) -> bool:
        """Sealing is quick from now on."""
        return self._cipher is not None

    def load(self) -> None:
        """Have the key, a new one where there is none. Raises as `seal`."""
        self._ready(make=True)

    def _ready(self, *, make: bool) -> AESGCM:
        with self._loading:  # two threads must not make two keys
            if self._cipher is None:
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM

                key = self._key() or (self._new_key() if make else None)
                if key is None:
                    raise Unreadable("there is no key")
                self._id = hashlib.sha256(key).digest()[:_ID_BYTES]
                self._cipher = AESGCM(key)
            return self._cipher

    def _key(self) -> bytes | None:
        path = self.where
        try:
            key = path.read_bytes()
            if self._credential is None and path.stat().st_mode & 0o077:
                raise ConfigError(f"store-key-file: {path} can be read by others: chmod 600 {path}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"store-key-file: cannot read {path}: {error.strerror}") from error
        if len(key) != KEY_BYTES:
            raise ConfigError(f"store-key-file: {path} has {len(key)} bytes, a key has {KEY_BYTES}")
        return key

    def _new_key(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        try:
            self._key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self._key_file, key)
        except OSError as error:
            raise Retryable(f"cannot write the record's key {self._key_file}: {error.strerror}") from error
        return key


def is_sealed(value: bytes) -> bool:
    return value.startswith(MAGIC)
