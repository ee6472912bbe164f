"""Who and where, as keyed hashes.

A plain hash of a login name can be guessed by hashing a list of names; HMAC-SHA256 under a random
key cannot. The key is a file that a team may share, so that one person on two machines is one
user. Raw names and paths pass through here and are not kept.
"""

from __future__ import annotations

import getpass
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from sb_serving.errors import SbError

KEY_BYTES = 32


class Identity:
    """Hashes users and projects under one key.

    Args:
        key: At least 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.project = lru_cache(maxsize=4096)(self._project)

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read the key file, or make one that only its owner can read.

        Raises:
            SbError: The file is too short to be a key, or cannot be read or written.
        """
        try:
            if not path.exists():
                _create_key(path)
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise SbError(f"the identity key {path} cannot be used: {error}") from error
        if len(key) < KEY_BYTES:
            raise SbError(
                f"the identity key {path} has {len(key)} bytes, {KEY_BYTES} are needed",
                fix="Restore it; a new key would make every user a stranger.",
            )
        return cls(key)

    def user(self, name: str = "") -> str:
        """Hash a user name (32 hex digits); empty means the login name of this process."""
        return self._hash("user", name or _login_name())

    def _project(self, folder: str) -> str:
        """Hash the git root above a folder, or the folder itself where there is none."""
        return self._hash("project", str(_git_root(Path(folder))))

    def path(self, path: Path) -> str:
        """Hash a file's path, for remembering how far it was read."""
        return self._hash("path", str(path.absolute()))

    def _hash(self, what: str, text: str) -> str:
        return hmac.digest(self._key, f"{what}:{text}".encode(), "sha256").hex()[:32]


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a container may run under a number without a name
        raise SbError(f"this process has no login name ({error})", fix="Set SB_USER.") from None


def _create_key(path: Path) -> None:
    """Write the key aside and link it into place: of two processes the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # the other process's key is the key
    finally:
        temporary.unlink()


def _git_root(folder: Path) -> Path:
    if not folder.is_absolute():
        # `D:\work` in a log from Windows: here it would be a name below the current folder, and
        # that folder's repository would become the root of all such projects.
        return folder
    for candidate in (folder, *folder.parents):
        try:
            if (candidate / ".git").exists():
                return candidate
        except OSError:
            break  # a folder that cannot be looked into has no root that we could name
    return folder
