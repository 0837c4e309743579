"""Java libraries from a Maven repository, copied with all that they need into one folder of the cache."""

from __future__ import annotations

import hashlib
import re
import shutil
from typing import TYPE_CHECKING

from tests.parts.part import Missing, installed, run

if TYPE_CHECKING:
    from pathlib import Path

OLDEST_JAVA = 17
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>evalgauge</groupId>
  <artifactId>part</artifactId>
  <version>1</version>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = """    <dependency>
      <groupId>{}</groupId>
      <artifactId>{}</artifactId>
      <version>{}</version>
    </dependency>"""


def jars(name: str, *coordinates: str) -> Path:
    """Return the folder with the jars of `coordinates` (`group:artifact:version`) and of what they depend on.

    Kept by name and by a hash of the coordinates. Raises `Missing` where there is no Java or Maven, or where a
    library cannot be fetched.
    """
    java()
    pom = _POM.format(dependencies="\n".join(_DEPENDENCY.format(*one.split(":")) for one in coordinates))

    def install(folder: Path) -> None:
        if shutil.which("mvn") is None:
            raise Missing(
                f"{name} comes from a Maven repository, and there is no mvn: install Maven 3.8 or later and put "
                "it on PATH (Debian: apt-get install maven)."
            )
        (folder / "pom.xml").write_text(pom)
        run(
            [
                *("mvn", "-B", "-q", "-f", folder / "pom.xml", "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", f"-DoutputDirectory={folder / 'jars'}"),
            ],
            missing=f"{name} could not be fetched by Maven: {', '.join(coordinates)}.",
            cwd=folder,
        )

    return installed(f"{name}-{hashlib.sha256(pom.encode()).hexdigest()[:12]}", install) / "jars"


def java() -> str:
    """Return the path of `java`. Raises `Missing` where there is none, or one that is too old."""
    program = shutil.which("java")
    advice = (
        f"Install Java {OLDEST_JAVA} or later and put it on PATH (Debian: apt-get install "
        f"openjdk-{OLDEST_JAVA}-jre-headless)."
    )
    if program is None:
        raise Missing(f"There is no java here. {advice}")
    printed = run([program, "-version"], missing=advice)
    version = re.search(r'version "(\d+)', printed)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise Missing(f"{advice} {program} is: {printed.splitlines()[0]}")
    return program
