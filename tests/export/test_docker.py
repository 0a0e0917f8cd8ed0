"""The Dockerfiles, as far as they can be tried without building them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node.running import PATIENCE, free_port

NODE = Path(__file__).parents[2] / "export" / "docker" / "node.Dockerfile"


@pytest.mark.parametrize("address", ["127.0.0.2", "0.0.0.0"])
def test_the_health_check_asks_where_the_node_listens(tmp_path: Path, address: str) -> None:
    text = NODE.read_text()
    (config,) = re.findall(r'"--config", "(.*)"\]', text)
    port = free_port()
    (tmp_path / "node.toml").write_text(
        f'address = "{address}"\nport = {port}\n[[peer]]\nae_title = "CR"\naddress = "10.0.0.1"\n'
    )
    (check,) = re.findall(r"^ +CMD (\[.*\])$", text, re.MULTILINE)
    python, *arguments = json.loads(check)
    assert python == "python"
    arguments = [each.replace(config, str(tmp_path / "node.toml")) for each in arguments]

    def answer() -> int:
        return subprocess.run([sys.executable, *arguments], capture_output=True, timeout=PATIENCE).returncode

    assert answer() != 0
    with socket.create_server((address, port)):
        assert answer() == 0
