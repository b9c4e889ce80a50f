"""What is inside, for people and for scanners: copyright (DEP-5), the changelog, a CycloneDX bill of materials."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple


class Component(NamedTuple):
    """A distribution in the package."""

    name: str
    version: str
    license: str  # SPDX, or what its classifier says
    home: str
    authors: str
    texts: tuple[str, ...]  # of its licences
    sha256: tuple[str, ...]  # of its wheels
    tops: tuple[str, ...]  # its files and directories below the import directory


LICENSES = {
    "loguru": "MIT",
    "cffi": "MIT-0",
    "cgroupspy": "BSD-3-Clause",
    "python-dotenv": "BSD-3-Clause",
    "psutil": "BSD-3-Clause",
    "pyyaml": "MIT",
}
"""SPDX identifiers of distributions whose metadata has none, or not the whole of it; checked by hand."""

SHIPPED_LIBRARIES = {
    "pyzmq": (("libzmq", "MPL-2.0"), ("libsodium", "ISC")),
    "pynacl": (("libsodium", "ISC"),),
    "pyyaml": (("libyaml", "MIT"),),
}
"""C libraries inside wheels."""


def component(directory: Path, sha256: Iterable[str], tops: Iterable[str], texts_elsewhere: Path) -> Component:
    """What the ``.dist-info`` directory of a distribution says. A wheel without its licence has it in the other one.

    ValueError when there is none at all.
    """
    metadata = HeaderParser().parsestr((directory / "METADATA").read_text())
    name = metadata["Name"]
    texts = tuple(
        path.read_text(errors="replace")
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))
    )
    if not texts:
        elsewhere = texts_elsewhere / f"{name.lower()}.txt"
        if not elsewhere.exists():
            raise ValueError(f"no licence text of {name}; fix: add {elsewhere}")
        texts = (elsewhere.read_text(),)
    return Component(
        name,
        metadata["Version"],
        LICENSES.get(name.lower()) or metadata.get("License-Expression") or _classified(metadata),
        metadata.get("Home-page") or _url(metadata),
        metadata.get("Author")
        or metadata.get("Author-email")
        or metadata.get("Maintainer")
        or f"the authors of {name}",
        texts,
        tuple(sorted(sha256)),
        tuple(sorted(tops)),
    )


COMMON = "On Debian systems its text is in /usr/share/common-licenses/Apache-2.0; it is also at\nhttps://www.apache.org/licenses/LICENSE-2.0."


def copyright_file(components: Sequence[Component]) -> str:
    """debian/copyright, machine-readable: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0."""
    parts = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: edge-agent",
        "Files: *\nCopyright: the edge-agent developers\nLicense: Apache-2.0",
    ]
    for each in components:
        places = "\n".join(f" usr/lib/edge-agent/{top}" for top in each.tops)
        files = f"Files:\n{places}\nComment: {each.name} {each.version}, {each.home}"
        also = SHIPPED_LIBRARIES.get(each.name.lower(), ())
        if also:
            files += "; with " + ", ".join(f"{library} ({spdx})" for library, spdx in also)
        text = "\n\n".join(COMMON if "Version 2.0, January 2004" in one else one for one in each.texts)
        parts.append(
            f"{files}\nCopyright: {' '.join(each.authors.split())}\nLicense: {_short(each)}\n{_indented(text)}"
        )
    parts.append(f"License: Apache-2.0\n{_indented(COMMON)}")
    return "\n\n".join(parts) + "\n"


def changelog(version: str, maintainer: str, epoch: int) -> str:
    """The changelog of the packaging, as nfpm reads it (https://github.com/goreleaser/chglog). JSON is YAML.

    What is new in the program is in changelog.gz beside it, which is CHANGELOG.md.
    """
    entry = {
        "semver": f"{version}-1",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
        "packager": maintainer,
        "deb": {"urgency": "medium", "distributions": ["stable"]},
        "changes": [{"note": f"New release {version}: see changelog.gz."}],
    }
    return json.dumps([entry], indent=1) + "\n"


def sbom(components: Sequence[Component], version: str, epoch: int) -> str:
    """CycloneDX 1.5 as JSON, https://cyclonedx.org/docs/1.5/json. The same for the same contents."""
    parts = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{each.name.lower()}@{each.version}",
            "name": each.name,
            "version": each.version,
            "purl": f"pkg:pypi/{each.name.lower()}@{each.version}",
            "licenses": [{"expression": each.license}],
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in each.sha256],
            "components": [
                {"type": "library", "name": library, "licenses": [{"expression": spdx}]}
                for library, spdx in SHIPPED_LIBRARIES.get(each.name.lower(), ())
            ],
        }
        for each in components
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {
                "type": "application",
                "bom-ref": f"pkg:generic/edge-agent@{version}",
                "name": "edge-agent",
                "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": parts,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return json.dumps({"serialNumber": f"urn:uuid:{serial}", **document}, indent=1) + "\n"


def _short(each: Component) -> str:
    """A name of the licence of this distribution alone: two of one kind may differ in their text."""
    return f"{each.license.replace(' ', '-')}~{each.name.lower()}"


def _indented(text: str) -> str:
    return "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.strip().splitlines())


def _classified(metadata: Message) -> str:
    found = [value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier", []) if value.startswith("License")]
    return {"MIT License": "MIT", "BSD License": "BSD-3-Clause"}.get(found[0], found[0]) if found else "unknown"


def _url(metadata: Message) -> str:
    urls = [value.partition(",")[2].strip() for value in metadata.get_all("Project-URL", [])]
    return urls[0] if urls else ""
