"""Programs out of Debian packages, unpacked into the cache: no root, no change of the system."""

from __future__ import annotations

import platform
import shutil
from typing import TYPE_CHECKING

from tests.parts.part import Missing, cache_folder, installed, run

if TYPE_CHECKING:
    from pathlib import Path


def unpacked(package: str) -> Path:
    """Return the folder into which Debian's `package` is unpacked: `usr/bin/…` lies under it.

    Only the package itself is fetched, so this suits programs that need no more than the C library.
    Raises `Missing` where apt is not there, or has no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Missing(f"`{package}` is not here, and neither is apt-get: install {package} by hand.")
    release = platform.freedesktop_os_release()
    key = f"{release['ID']}-{release.get('VERSION_CODENAME', 'rolling')}-{platform.machine()}"
    return installed(f"{package}-{key}", lambda folder: _fetch(package, folder))


def _fetch(package: str, folder: Path) -> None:
    """Fetch with package lists of our own: the system's may be absent or stale, and updating them needs root."""
    apt_state = cache_folder() / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (apt_state / part).mkdir(parents=True, exist_ok=True)
    options = [
        *("-o", f"Dir::State::Lists={apt_state / 'lists'}"),
        *("-o", f"Dir::Cache={apt_state / 'cache'}"),
        *("-o", "APT::Sandbox::User="),  # the user `_apt` could not write below somebody's home
        *("-o", "Acquire::Retries=3"),
        "-q",
    ]
    missing = (
        f"Debian's package `{package}` could not be fetched: install it by hand (apt-get install {package})."
    )
    run(["apt-get", *options, "update"], missing=missing)
    run(["apt-get", *options, "download", package], missing=missing, cwd=folder)
    [archive] = folder.glob("*.deb")
    run(["dpkg-deb", "-x", archive, folder], missing=missing)
    archive.unlink()
