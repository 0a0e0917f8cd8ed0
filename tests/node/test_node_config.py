"""The configuration of a node: what it takes, and what it refuses with the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.node.node_config import Destination, NodeConfig, Peer, read_config
from edgecxr.node.tls.certificates import Tls

WHOLE = """
ae_title = "EDGE"
address = "0.0.0.0"
port = 104
state = "state"
[[peer]]
ae_title = "CR1"
address = "10.0.0.0/24"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "10.0.0.9"
port = 11112
tls = true
ca = "pacs.pem"
[tls]
certificate = "tls/node.pem"
key = "/etc/node.key"
[[watch]]
folder = "in"
move = true
[limits]
film_mib = 64
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_whole_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, WHOLE))
    assert config.peer == (Peer("CR1", "10.0.0.0/24"),)
    ca = str(tmp_path / "pacs.pem")
    assert config.destination == (Destination("pacs", "PACS", "10.0.0.9", 11112, tls=True, ca=ca),)
    assert config.tls == Tls(str(tmp_path / "tls" / "node.pem"), "/etc/node.key")
    assert (config.folder, config.watch[0].folder) == (tmp_path / "state", str(tmp_path / "in"))
    assert (config.watch[0].move, config.limits.film_mib, config.limits.associations) == (True, 64, 16)


def test_without_a_file_it_listens_on_loopback_and_knows_nobody() -> None:
    config = read_config(None)
    assert config.address == "127.0.0.1" and not config.may_send("ANY", "127.0.0.1")


def test_a_peer_is_a_title_at_an_address(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, WHOLE))
    assert config.may_send("CR1", "10.0.0.7") and config.may_send("CR1", "::ffff:10.0.0.7")
    assert not config.may_send("CR1", "10.0.1.7") and not config.may_send("CR2", "10.0.0.7")


def url(address: str, more: str = "") -> str:
    return f'[[destination]]\nname = "a"\nurl = "{address}"\n{more}'


def test_a_url_is_a_destination_and_its_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, url("https://[::1]:8443/dicom-web/", 'token_file = "t"\nca = "c.pem"')))
    (to,) = config.destination
    assert (to.token_file, to.ca, to.place) == (str(tmp_path / "t"), str(tmp_path / "c.pem"), to.url) and to.uses_tls
    local = read_config(written(tmp_path, url("http://localhost:8042/", 'user = "u"\npassword_file = "/p"')))
    assert local.destination[0].password_file == "/p" and not local.destination[0].uses_tls


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('ae_titel = "X"', "ae_title"), ('ae_title = ""', "AE title"), ('ae_title = "A\\\\B"', "AE title"),
        ('ae_title = "' + "A" * 17 + '"', "AE title"), ('address = "0.0.0.0"', "[[peer]]"),
        ('address = "pacs"', "address"),
        ("port = 70000", "port"), ("phi = 1", "phi"), ("workers = 0", "workers"), ("[limits]\nqueue = 0", "queue"),
        ("[limits]\nqueu = 1", "queue"), ('[[peer]]\nae_title = "A"', "address"), ("peer = 3", "peer"),
        ('[[peer]]\nae_title = "A"\naddress = "10.0.0.5/24"', "network"),
        ('[[peer]]\nae_title = "A"\naddress = "10.0.0.5"\n' * 2, "peer"),
        ('[[destination]]\nname = "a b"\nae_title = "A"\nhost = "h"\nport = 1', "name"),
        ('[[destination]]\nname = "a"\nae_title = "A"\nhost = ""\nport = 1', "host"),
        ('[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\n' * 2, "destination"),
        ('[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\ntls = true', "`ca`"),
        ('[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\nca = "x"', "tls = true"),
        ('[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\ntls = true\nkey = "x"', "certificate"),
        (url("ftp://h/dicomweb"), "ftp"), (url("https://"), "url"), (url("https://u:p@h/"), "url"),
        (url("https://h/?a=b"), "url"), (url("https://h:0/"), "url"), (url("https://h:x/"), "url"),
        (url("https://h/a b"), "url"), (url("https://h/", "port = 1"), "leave out ae_title"),
        (url("https://h/", "commit = true"), "commit"),
        (url("https://h/", 'user = "u"'), "password_file"), (url("http://10.0.0.1/", 'token_file = "t"'), "https URL"),
        (url("https://h/", 'user = "a:b"\npassword_file = "p"'), "colon"), ('[[destination]]\nname = "a"', "ae_title"),
        ('[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\ntoken_file = "t"', "only a `url`"),
        ('[tls]\nkey = "x"', "certificate"), ("[stow]\nport = 70000", "port"),
        ('[stow]\naddress = "here"', "[stow] address"), ('[stow]\naddress = "0.0.0.0"', "token_file"),
        ('[stow]\naddress = "0.0.0.0"\ntoken_file = "t"', "[tls]"),
        ("[limits]\nfilm_mib = nan", "film_mib"), ("[limits]\ngive_up_hours = nan", "give_up_hours"), ("x = ", "TOML"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_and_the_key(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read_config(path)
    assert str(raised.value).startswith(str(path)) and key in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("state", "folder"), [("state", "state"), ("state", "."), ("state", "state/films"), ("link", "state")]
)
def test_a_watched_folder_and_the_state_folder_do_not_lie_in_each_other(
    tmp_path: Path, state: str, folder: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    path = written(tmp_path, f'state = "{state}"\n[[watch]]\nfolder = "{folder}"')
    with pytest.raises(UsageError, match=r"\[\[watch\]\]") as raised:
        read_config(path)
    assert str(raised.value).startswith(str(path))
    read_config(written(tmp_path, f'state = "{state}"\n[[watch]]\nfolder = "state2"'))


def test_defaults_can_be_used() -> None:
    assert NodeConfig().limits.queue == 10_000
