"""Who may see what: passwords, roles, cookies, forms of others, and delays after failures."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

from edgecxr.errors import UsageError
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.audit.audit_reading import describe, entries
from edgecxr.node.node_config import NodeConfig, Web
from edgecxr.node.web import sessions as sessions_module
from edgecxr.node.web import web_app
from edgecxr.node.web.sessions import FREE_FAILURES, IDLE, LONGEST_DELAY, Sessions
from edgecxr.node.web.users import FILE, ROLES, add_user, is_password, remove_user, users_of
from tests.cli_workspace import edgecxr
from tests.node.running import configured, free_port
from tests.node.web.pages import Browser, served
from tests.tiny_bundle import tiny_bundle

PASSWORD = "a long password"


def test_passwords_are_kept_as_hashes_in_a_private_file(tmp_path: Path) -> None:
    assert add_user(tmp_path / "state", "jane", "viewer", PASSWORD)
    assert not add_user(tmp_path / "state", "jane", "admin", PASSWORD)
    path = tmp_path / "state" / FILE
    assert path.stat().st_mode & 0o777 == 0o600 and (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert PASSWORD not in path.read_text()
    user = users_of(tmp_path / "state")["jane"]
    assert user.role == "admin" and is_password(user, PASSWORD)
    assert not is_password(user, PASSWORD + ".") and not is_password(None, PASSWORD)
    remove_user(tmp_path / "state", "jane")
    assert users_of(tmp_path / "state") == {}
    with pytest.raises(UsageError, match="no user"):
        remove_user(tmp_path / "state", "jane")


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [("", "viewer", PASSWORD), ("a b", "viewer", PASSWORD), ("<b>", "viewer", PASSWORD), ("jane", "root", PASSWORD),
     ("jane", "viewer", "short"), ("jane", "viewer", ""), ("jane", "viewer", "x" * 257),
     ("a.long.name", "viewer", "a.long.name")],
)  # fmt: skip
def test_what_is_no_name_role_or_password_is_refused(tmp_path: Path, name: str, role: str, password: str) -> None:
    with pytest.raises(UsageError):
        add_user(tmp_path, name, role, password)
    assert not (tmp_path / FILE).exists()


def test_a_file_of_users_that_others_may_have_written_is_not_used(tmp_path: Path, quick: None) -> None:
    add_user(tmp_path, "jane", "viewer", PASSWORD)
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        users_of(tmp_path)
    (tmp_path / FILE).chmod(0o600)
    for text in ("", "{}", "[]", '{"format": 2, "users": {}}', '{"format": 1, "users": {"a": {}}}', "\0"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UsageError, match="cannot be used"):
            users_of(tmp_path)


def test_users_are_added_listed_and_removed_by_command(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    config = configured(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    user = ("node", "user")
    added = edgecxr(*user, "add", "jane", "--role", "operator", "--config", config, runs=tmp_path)
    assert added.code == 0 and "operator" in added.out and PASSWORD not in added.out
    assert is_password(users_of(tmp_path / "state")["jane"], PASSWORD)
    assert edgecxr(*user, "list", "--config", config, runs=tmp_path).out.split() == ["jane", "operator"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert edgecxr(*user, "add", "jim", "--config", config, runs=tmp_path).code == 2
    assert edgecxr(*user, "remove", "jim", "--config", config, runs=tmp_path).code == 2
    assert edgecxr(*user, "remove", "jane", "--config", config, runs=tmp_path).code == 0
    assert "no users" in edgecxr(*user, "list", "--config", config, runs=tmp_path).out


@pytest.fixture
def staffed(state: Path, quick: None) -> Path:
    """Return a state folder with a user of each role."""
    for role in ROLES:
        add_user(state, role, role, PASSWORD)
    return state


@pytest.mark.parametrize("role", [None, *ROLES])
def test_each_role_sees_its_pages_alone(staffed: Path, role: str | None) -> None:
    least = {
        "/films": "viewer", "/films/rows": "viewer", "/films/1": "viewer", "/films/1/state": "viewer",
        "/films/1/film.png": "viewer", "/films/1/attention.png": "viewer", "/queue": "viewer",
        "/queue/state": "viewer", "/health": "viewer", "/health/state": "viewer", "/metrics": "viewer",
        "/users": "admin", "/audit": "admin",
    }  # fmt: skip
    with served(staffed) as browser:
        if role:
            assert browser.sign_in(role, PASSWORD, "/films/1").headers["location"] == "/films/1"
        for path, needed in least.items():
            answer = browser.get(path)
            if role is None:
                assert (answer.status, "Quispe" in answer.text) == (401 if path == "/metrics" else 303, False), path
            elif ROLES.index(role) >= ROLES.index(needed):
                assert answer.status == 200, path
            else:
                assert answer.status == 403 and "role" in answer.text
        if role:
            text = browser.get("/queue").text
            assert ("Send again" in text) == (role != "viewer")
            again = browser.post("/queue/retry", form=browser.form_token("/queue"), destination="pacs")
            assert again.status == (403 if role == "viewer" else 303)
        else:
            assert browser.post("/queue/retry", form=browser.form_token(), destination="pacs").status == 401
            assert browser.get("/films", **{"X-Live": "1"}).status == 401
            assert browser.get("/healthz").status == 200
            assert browser.get("/films?text=a&page=2").headers["location"] == "/sign-in?to=/films%3Ftext%3Da%26page%3D2"


def test_an_admin_sees_who_looked_at_which_film_and_is_noted_too(staffed: Path) -> None:
    for name in ("<b>bold</b>", *(f"user{number}" for number in range(60))):
        Audit(NodeConfig(state=str(staffed)), "web").login(name, "10.0.0.8", False)
    with served(staffed) as browser:
        browser.sign_in("viewer", PASSWORD)
        browser.get("/films/1")
        browser.sign_in("admin", PASSWORD)
        for text, words in (
            ("film-looked-at", "viewer at 127.0.0.1"),
            ("1.1", "film-looked-at"),
            ("BOLD", "&lt;b&gt;"),
        ):
            answer = browser.get(f"/audit?text={text}")
            assert answer.status == 200 and words in answer.text and "<b>" not in answer.text
        page, numbers = "/audit", []
        while page:
            text = browser.get(page).text
            numbers.append([int(number) for number in re.findall(r'data-head="Line">(\d+)<', text)])
            older = re.search(r'href="([^"]*before[^"]*)">Older', text)
            page = older[1].replace("&amp;", "&") if older else ""
        assert [len(each) for each in numbers[:-1]] == [50] * (len(numbers) - 1) and len(numbers) > 1
        listed = [number for each in numbers for number in each]
        assert listed == sorted(listed, reverse=True) and listed[-1] == 1
        assert "trail-read" in browser.get("/audit").text
        assert browser.get("/audit?text=nobody+of+this+name").text.count("<td") == 0
        assert browser.get("/audit?before=0&text=%00").status == 200


PROXY = Web(port=0, proxy="127.0.0.1", proxy_header="X-Remote")


def test_whom_the_proxy_names_is_signed_in_with_the_role_of_that_user(staffed: Path) -> None:
    before = len(list(entries(staffed)))
    with served(staffed, PROXY) as browser:
        for role in ROLES:
            page = browser.get("/films/1", **{"X-Remote": role, "X-Forwarded-For": "6.6.6.6, 10.0.0.9"})
            assert page.status == 200 and f"Signed in: {role}" in page.text and "Sign out" not in page.text
            assert browser.get("/audit", **{"X-Remote": role}).status == (200 if role == "admin" else 403)
            form = re.search(r'name="form" value="(\w+)"', page.text)
            assert form
            again = browser.ask(
                "POST", "/queue/retry", f"form={form[1]}&destination=pacs",
                **{"X-Remote": role, "Content-Type": "application/x-www-form-urlencoded"},
            )  # fmt: skip
            assert again.status == (403 if role == "viewer" else 303)
        for named in ("nobody", "Admin", "admin, viewer", "a" * 5000):
            assert browser.get("/films", **{"X-Remote": named}).status == 403, named[:20]
        for headers in ({}, {"X-Remote": ""}, {"Remote-User": "admin"}):
            assert browser.get("/films", **headers).status == 303  # to sign in with a password
    rows = [describe(entry) for entry in list(entries(staffed))[before:]]
    looked = [row for row in rows if "film-looked-at" in row]
    assert [row[3].partition(",")[0] for row in looked] == [f"{role} at 10.0.0.9" for role in ROLES]


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True), ("::1", "0:0:0:0:0:0:0:1", True), ("::ffff:10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.50", False), ("unknown", "10.0.0.5", False), ("::ffff:10.0.0.6", "10.0.0.5", False),
    ],
)  # fmt: skip
def test_the_proxy_is_known_however_its_address_is_written(address: str, other: str, same: bool) -> None:
    assert web_app._same_address(address, other) is same


@pytest.mark.parametrize("web", [Web(port=0), Web(port=0, proxy="10.0.0.5", proxy_header="X-Remote")])
def test_a_header_is_believed_of_the_proxy_alone(staffed: Path, web: Web) -> None:
    with served(staffed, web) as browser:
        assert browser.get("/films", **{"X-Remote": "admin", "Remote-User": "admin"}).status == 303


def test_behind_a_proxy_nobody_is_let_in_without_users(state: Path, tmp_path: Path) -> None:
    with served(state, PROXY) as browser:
        assert browser.get("/films").status == 303 and browser.get("/films", **{"X-Remote": "admin"}).status == 403
    more = '[web]\nproxy = "127.0.0.1"\n'
    config = configured(tmp_path, more, port=free_port(), model=str(tiny_bundle(tmp_path / "model").path))
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    assert ended.code == 2 and "node user add" in ended.err
    for wrong in ('proxy = "proxy.local"', 'proxy = "127.0.0.1"\nproxy_header = "Remote User"'):
        config.write_text(config.read_text().partition("[web]")[0] + f"[web]\n{wrong}\n")
        assert edgecxr("serve", "--config", config, "--check", runs=tmp_path).code == 2


def test_the_cookie_is_of_no_use_to_scripts_and_other_sites(staffed: Path) -> None:
    with served(staffed) as browser:
        page = browser.get("/sign-in")
        before = dict(browser.cookies)
        answer = browser.sign_in("viewer", PASSWORD)
        for reply in (page, answer):
            attributes = {part.strip().lower() for part in reply.headers["set-cookie"].split(";")[1:]}
            assert attributes == {"httponly", "samesite=strict", "path=/"}
        assert browser.cookies != before, "whoever has signed in gets a new cookie"
        # The cookie of before is nobody's.
        assert Browser(browser.port, before).get("/films").status == 303
        for value in ("", "x", "x" * 43, '"', "\xe9"):
            assert Browser(browser.port, {"edgecxr": value}).get("/films").status == 303


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "\\", "javascript:x", ""])
def test_signing_in_leads_nowhere_else(staffed: Path, to: str) -> None:
    with served(staffed) as browser:
        assert browser.sign_in("viewer", PASSWORD, to).headers["location"] == "/films"


def test_forms_of_other_sites_do_nothing(staffed: Path) -> None:
    with served(staffed) as browser:
        browser.sign_in("operator", PASSWORD)
        token = browser.form_token("/queue")
        for form in ("", "0" * 64, "é", Browser(browser.port).form_token()):
            assert browser.post("/queue/retry", form=form, destination="pacs").status == 403
        fields = json.dumps({"form": token, "destination": "pacs"})
        assert browser.ask("POST", "/queue/retry", fields, **{"Content-Type": "application/json"}).status == 403
        assert "NOT FILED 2" in browser.get("/queue").text
        assert browser.get("/queue/retry").status == 405
        assert browser.post("/sign-out", form="").status == 403 and browser.get("/films").status == 200
        assert browser.post("/sign-out", form=token).status == 303 and browser.get("/films").status == 303
        stranger = Browser(browser.port)
        assert stranger.post("/sign-in", form="", name="admin", password=PASSWORD).status == 403
        assert stranger.get("/films").status == 303


def test_whoever_is_removed_or_gets_another_password_is_signed_out(staffed: Path) -> None:
    with served(staffed) as browser:
        other = Browser(browser.port)
        browser.sign_in("viewer", PASSWORD)
        other.sign_in("operator", PASSWORD)
        assert browser.get("/films").status == other.get("/films").status == 200
        remove_user(staffed, "viewer")
        add_user(staffed, "operator", "viewer", PASSWORD + "2")
        assert browser.get("/films").status == other.get("/films").status == 303


def test_who_looked_at_which_film_is_written_down(staffed: Path) -> None:
    with served(staffed) as browser:
        browser.sign_in("operator", "wrong password")
        browser.sign_in("operator", PASSWORD)
        for path in ("/films", "/films/1", "/films/1/state", "/films/1/film.png"):
            browser.get(path)
        browser.post("/queue/retry", form=browser.form_token("/queue"), destination="pacs")
        browser.post("/sign-out", form=browser.form_token("/queue"))
    lines = [describe(entry) for entry in entries(staffed)]
    assert [each[2] for each in lines if "operator at 127.0.0.1" in each[3]] == [
        "login", "login", "film-looked-at", "retried", "logout",
    ]  # fmt: skip
    assert any(each[2] == "film-looked-at" and "1.1" in each[4] for each in lines)


def test_programs_give_name_and_password_for_the_numbers(staffed: Path) -> None:
    def basic(text: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    with served(staffed) as browser:
        for _ in range(2):
            answer = browser.get("/metrics", **basic(f"viewer:{PASSWORD}"))
            assert answer.status == 200 and "edgecxr_films" in answer.text
        assert browser.get("/films", **basic(f"viewer:{PASSWORD}")).status == 303
        for wrong in (basic("viewer:no"), basic("viewer"), {"Authorization": "Basic ?"}, {"Authorization": "x"}):
            assert browser.get("/metrics", **wrong).status == 401


def test_after_five_failures_even_the_right_password_waits(staffed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "LONGEST_DELAY", 1.0)
    with served(staffed) as browser:
        for _ in range(FREE_FAILURES):
            answer = browser.sign_in("viewer", "wrong password")
        assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1
        assert browser.sign_in("viewer", PASSWORD).status == 429
        time.sleep(1.1)
        assert browser.sign_in("viewer", PASSWORD).status == 303


def test_a_flood_of_attempts_is_two_lines_of_the_audit_trail(
    staffed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions_module, "FREE_FAILURES", -8)  # the first failure makes the next ones wait a minute
    with served(staffed) as browser:
        form = browser.form_token()
        for number in range(21):
            browser.post("/sign-in", form=form, name=f"nobody{number}", password="wrong password")
    logins = [line for line in map(describe, entries(staffed)) if line[2] == "login"]
    assert len(logins) == 3 and "19 times more" in logins[-1][5]
    assert capsys.readouterr().err.count("wrong password") == 1


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_delay_doubles_and_is_of_the_name_and_of_the_address(tmp_path: Path, quick: None) -> None:
    add_user(tmp_path, "jane", "viewer", PASSWORD)
    clock = Clock()
    sessions = Sessions(tmp_path, False, clock)
    waits = []
    for _ in range(14):
        clock.now += sessions.wait("jane", "10.0.0.1")
        assert not sessions.is_right("jane", "wrong", "10.0.0.1")
        waits.append(sessions.wait("jane", "10.0.0.1"))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60] and LONGEST_DELAY == 60
    assert sessions.wait("jane", "10.0.0.2") == sessions.wait("jim", "10.0.0.1") == 60
    assert sessions.wait("jim", "10.0.0.2") == 0
    assert not sessions.is_right("jane", PASSWORD, "10.0.0.1"), "it came too early"
    clock.now += 60
    assert sessions.is_right("jane", PASSWORD, "10.0.0.1") and sessions.wait("jane", "10.0.0.1") == 0


def test_a_page_that_is_left_open_asks_for_the_password_again(tmp_path: Path, quick: None) -> None:
    add_user(tmp_path, "jane", "viewer", PASSWORD)
    clock = Clock()
    sessions = Sessions(tmp_path, False, clock)
    token = sessions.sign_in("jane", PASSWORD, "10.0.0.1")
    assert token is not None
    for _ in range(3):
        clock.now += IDLE - 1
        assert sessions.visitor(token).role == "viewer"
    clock.now += IDLE - 1
    assert sessions.visitor(token, touch=False).role == "viewer"
    clock.now += 2
    assert sessions.visitor(token).role is None
    token = sessions.sign_in("jane", PASSWORD, "10.0.0.1")
    for _ in range(20):
        clock.now += IDLE - 1
        role = sessions.visitor(token).role
    assert role is None


def test_without_users_loopback_alone_is_served_and_no_other_name(state: Path) -> None:
    with served(state) as browser:
        assert browser.get("/films").status == 200 and browser.get("/users").status == 403
        assert browser.get("/films", Host="localhost:1").status == browser.get("/films", Host="[::1]").status == 200
        for host in ("evil.example", f"evil.example:{browser.port}", "127.0.0.1.evil.example", ""):
            answer = browser.get("/films", Host=host)
            assert answer.status in (400, 403) and "Quispe" not in answer.text
    assert Sessions(state, open_to_all=False).visitor(None).role is None


def test_large_requests_are_refused(state: Path) -> None:
    with served(state) as browser:
        token = browser.form_token("/queue")
        assert browser.post("/queue/retry", form=token, destination="x" * 20_000).status == 413
        with contextlib.suppress(ConnectionError):  # it may hang up while the rest is sent
            assert browser.get("/films?text=" + "x" * 4_000_000).status == 400
        assert browser.get("/healthz").status == 200
