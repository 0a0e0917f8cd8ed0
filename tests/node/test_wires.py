"""All wires at once: films by STOW-RS over TLS, results to Orthanc by STOW-RS and by C-STORE with commitment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")
pytest.importorskip("python_multipart", reason="python-multipart is not installed (extra node)")

from tests.node.certified import certified, tls_table
from tests.node.running import alone, configured, eventually, run, started
from tests.node.sending.test_stow_client import FETCH, ORTHANC, PLUGIN
from tests.node.test_serve import scan, serving, state
from tests.tiny_bundle import tiny_bundle

POST = """import sys, urllib.request
from pathlib import Path
import ssl
ca, token, *films = sys.argv[1:]
head = b"--XX\\r\\nContent-Type: application/dicom\\r\\n\\r\\n"
body = b"".join(head + Path(film).read_bytes() + b"\\r\\n" for film in films)
kind = 'multipart/related; type="application/dicom"; boundary=XX'
headers = {"Content-Type": kind, "Authorization": "Bearer " + token}
request = urllib.request.Request("https://127.0.0.1:11180/dicomweb/studies", body + b"--XX--\\r\\n", headers)
print(urllib.request.urlopen(request, context=ssl.create_default_context(cafile=ca)).status)"""

TABLES = """
[[peer]]
ae_title = "PACS"
address = "127.0.0.1"
[[destination]]
name = "web"
url = "http://127.0.0.1:8042/dicom-web"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
commit = true
[stow]
token_file = "token"
"""


@pytest.mark.long
@pytest.mark.slow
def test_films_by_stow_are_filed_by_stow_and_committed(tmp_path: Path) -> None:
    if not (ORTHANC.exists() and PLUGIN.exists()):
        pytest.skip("Orthanc and its DICOMweb plug-in are not installed (Debian: orthanc orthanc-dicomweb)")
    folder = certified(tmp_path / "c", "node")
    (tmp_path / "token").write_text("t" * 40)
    (tmp_path / "token").chmod(0o600)
    edge = {"AET": "EDGE", "Host": "127.0.0.1", "Port": 11112, "AllowStorageCommitment": True}
    settings = {
        "Name": "PACS", "DicomAet": "PACS", "StorageDirectory": str(tmp_path / "db"), "HttpPort": 8042,
        "IndexDirectory": str(tmp_path / "db"), "DicomPort": 4242, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "Plugins": [str(PLUGIN)], "DicomModalities": {"edge": edge},
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    model = str(tiny_bundle(tmp_path / "model").path)
    # Orthanc reports without TLS.
    config = configured(tmp_path, f"{TABLES}{tls_table(folder)}dicom = false\n", port=11112, model=model)
    films = [scan(tmp_path, number) for number in range(2)]
    with (
        alone() as prefix,
        started(*prefix, ORTHANC, tmp_path / "orthanc.json") as orthanc,
        serving(prefix, config) as node,
    ):
        orthanc.says("Orthanc has started")
        node.says("stow: listens on https")
        sent = run(*prefix, sys.executable, "-c", POST, folder / "ca.pem", "t" * 40, *films)
        assert sent.stdout == "200\n", sent
        eventually(lambda: state(config)["films"] == {"filed": 2}, str(node.lines[-5:]))
        assert state(config)["results"] == {"pacs": {"committed": 4}, "web": {"sent": 4}}
        instances = json.loads(run(*prefix, sys.executable, "-c", FETCH, "http://127.0.0.1:8042/instances").stdout)
        assert len(instances) == 4
        assert node.stop() == 0
