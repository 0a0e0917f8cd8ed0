"""What the pages show: states in words, loud refusals, escaped names, and that they need no script."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

from edgecxr import NOTICE
from edgecxr.infer.predictor import Predictor
from edgecxr.node.sending.destination import Destination
from edgecxr.node.spool import Spool
from edgecxr.node.tls.certificates import Tls
from edgecxr.node.web.strings import EVENTS
from edgecxr.node.web.web_pages import routes
from tests.cli_workspace import edgecxr
from tests.node.certified import certified, until
from tests.node.running import configured, echo, eventually, free_port, role
from tests.node.web.pages import ALL, SCRIPT, fill, served

PAGE = 60_000


class Elements(HTMLParser):
    """Collects the elements of a page and refuses those that are not closed in order."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_each_page_says_what_it_is_for_and_stays_small_and_whole(state: Path) -> None:
    with served(state) as browser:
        for path in ALL:
            answer = browser.get(path)
            assert answer.status == 200 and answer.text.count(NOTICE) == 2, path
            assert len(answer.body) < PAGE and answer.headers["cache-control"] == "no-store"
            page = Elements(answer.text)
            assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == len(page.all("main")) == 1
            # Nothing but what this node serves, and nothing that its policy forbids.
            assert answer.headers["content-security-policy"].startswith("default-src 'self'")
            for name, attributes in page.elements:
                assert not any(key.startswith("on") or key == "style" for key in attributes), path
                link = attributes.get("src") or attributes.get("href") or attributes.get("action") or "/"
                assert re.match(r"/(?!/)|#", link) and name != "style", link
            assert [each.get("src") for each in page.all("script")] == ["/static/node.js"]
        weight = sum(len(browser.get(f"/static/{name}").body) for name in ("node.css", "node.js", "icon.svg"))
        assert weight + max(len(browser.get(path).body) for path in ALL) < PAGE


def test_whatever_is_named_for_use_has_a_name_and_ids_are_one_each(state: Path) -> None:
    with served(state) as browser:
        for path in ALL:
            page = Elements(browser.get(path).text)
            ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
            assert len(ids) == len(set(ids)), path
            labelled = {each.get("for") for each in page.all("label")}
            for field in page.all("input") + page.all("select"):
                bare = field.get("type") == "hidden" or "id" not in field  # those stand inside their label
                assert bare or field["id"] in labelled, (path, field)
            assert all(each.get("alt") for each in page.all("img"))
            for attributes in [each for _, each in page.elements if "aria-labelledby" in each]:
                assert attributes["aria-labelledby"] in ids


def test_films_are_listed_with_their_states_in_words(state: Path) -> None:
    with served(state) as browser:
        text = browser.get("/films").text
        rows = [re.sub(r"<[^>]*>|\s+", " ", row) for row in re.findall(r"<tr role=.*?</tr>", text, re.DOTALL)[1:]]
        rows = [re.sub(" +", " ", row) for row in rows]
        for row, words in zip(
            rows,
            ["Waiting to be read", "NO RESULT", "NOT ANALYSED", "NOT FILED", "results filed"],
            strict=True,
        ):
            assert words in row
        assert "Quispe, Jane MRN-1" in rows[4] and "Flagged" in rows[4] and "Cardiomegaly" in rows[4]
        assert "not read yet" in rows[0] and "frontal" in rows[2] and "identifiers" in rows[1]
        assert "Flagged" not in rows[2]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("which=waiting", [5]), ("which=flagged", [4, 2, 1]), ("which=not-flagged", []), ("which=not-filed", [2]),
        ("which=not-analysed", [4, 3]), ("text=quispe", [1]), ("text=MRN-3", [3]), ("text=3", [3]),
        ("text=%25", []), ("text=_", []), ("text=%3Cscript%3E", [4, 2]), ("which=no&page=x", [5, 4, 3, 2, 1]),
        ("page=2", []), ("text=" + "9" * 99, []), ("text=%00%5C%27", []),
    ],
)  # fmt: skip
def test_films_are_filtered_and_found(state: Path, query: str, numbers: list[int]) -> None:
    with served(state) as browser:
        for path in ("/films", "/films/rows"):
            answer = browser.get(f"{path}?{query}")
            assert answer.status == 200
            assert [int(each) for each in re.findall(r'href="/films/(\d+)"', answer.text)] == numbers


def test_long_lists_have_pages(state: Path) -> None:
    with Spool(state) as spool, spool.transaction() as run:
        for number in range(60):
            run(
                "INSERT INTO film (uid, digest, sop_class, study, series, size, source, received, state, changed)"
                " VALUES (?, '', '', '1', '1', 1, 'CR', 1e9, 'received', 1e9)",
                f"9.{number}",
            )
    with served(state) as browser:
        first = browser.get("/films?which=waiting").text
        assert "61 films" in first and first.count('href="/films/') == 50 and 'rel="prev"' not in first
        (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
        second = browser.get(older.replace("&amp;", "&")).text
        assert second.count('href="/films/') == 11 and 'rel="next"' not in second


def test_names_of_strangers_are_text(state: Path) -> None:
    with served(state) as browser:
        for path in (*ALL, "/films?text=" + "%3Cscript%3Ealert(1)%3C/script%3E", "/films/rows", "/queue/state"):
            text = browser.get(path).text
            assert SCRIPT not in text and '"><b>' not in text, path
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in browser.get("/films/2").text
        assert "&lt;script&gt;" in browser.get("/queue").text


def test_a_film_shows_what_the_model_said_and_where_it_went(state: Path) -> None:
    with served(state) as browser:
        text = browser.get("/films/1").text
        page = Elements(text)
        assert "flags this film" in text and "0.88 ≥ 0.50" in text and "chosen" in text
        bars = [each["aria-label"] for each in page.all("svg")]
        assert len(bars) == 4 and all(re.fullmatch(r"bar to \d.\d\d, tick at the threshold 0.50", str(b)) for b in bars)
        events = re.findall(r"<li><time[^>]*>[^<]*</time> <span>([^<]*)", text)
        kinds = ["received", "reading", "predicted", "made", "sent", "sent", "filed"]
        assert events == [EVENTS[kind].format("pacs") for kind in kinds]
        for kind in ("film", "attention"):
            answer = browser.get(f"/films/1/{kind}.png")
            assert answer.body.startswith(b"\x89PNG") and answer.headers["content-type"] == "image/png"
        assert "distance from the" in text and "1.2.3" in text


def test_a_refused_film_is_as_loud_as_a_finding_and_keeps_its_picture(state: Path) -> None:
    with served(state) as browser:
        text = browser.get("/films/3").text
        assert "was NOT ANALYSED" in text and 'class="verdict refused"' in text and "no frontal view" in text
        assert "/films/3/film.png" in text and "attention.png" not in text and "Probabilities" not in text
        assert browser.get("/films/3/film.png").status == 200 and browser.get("/films/3/attention.png").status == 404
        rejected = browser.get("/films/4").text
        assert "NO RESULT" in rejected and "identifiers" in rejected and "Probabilities" in rejected


@pytest.mark.parametrize(
    "path",
    ["/films/99", "/films/99999999999999999999", "/films/x", "/films/1/x.png", "/films/1/..%2Fnode.sqlite.png",
     "/static/../users.json", "/static/users.py", "/no", "/films/1/film.dcm"],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(state: Path, path: str) -> None:
    with served(state) as browser:
        answer = browser.get(path)
        assert answer.status == 404 and "no such page" in answer.text and "nosniff" in answer.headers.values()


def test_without_phi_nothing_says_who_it_is(tmp_path: Path, predictor: Predictor) -> None:
    fill(tmp_path / "state", tmp_path, predictor, phi=False)
    with served(tmp_path / "state", phi=False) as browser:
        for path in ALL:
            text = browser.get(path).text
            assert not re.search("quispe|bobby|ways|mrn", text.split("<main")[1], re.IGNORECASE), path
        assert re.search(r"study [A-Z2-7]{4}-[A-Z2-7]{4}", browser.get("/films/1").text)
        # The film does not say that its pixels show no names.
        assert browser.get("/films/1/film.png").status == 404
        assert "No picture is kept" in browser.get("/films/1").text
    with Spool(tmp_path / "state") as spool:
        spool.read("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not re.search(b"quispe|bobby|mrn-", (tmp_path / "state" / "node.sqlite").read_bytes(), re.IGNORECASE)


def test_the_queue_names_what_was_given_up_and_sends_it_again(state: Path) -> None:
    with served(state) as browser:
        text = browser.get("/queue").text
        assert "given up" in text and "NOT FILED 2" in text and "filed 2" in text
        answer = browser.post("/queue/retry", form=browser.form_token("/queue"), destination="pacs")
        assert answer.status == 303
        assert "2 results are sent again" in browser.get(answer.headers["location"]).text
        assert "NOT FILED" not in browser.get("/queue").text
        assert browser.post("/queue/retry", form=browser.form_token(), destination="nobody").status == 404
    with Spool(state) as spool:
        assert [row[0] for row in spool.read("SELECT state FROM delivery ORDER BY result")] == ["sent"] * 2 + [
            "waiting"
        ] * 2


def test_health_says_what_runs_and_which_model(state: Path) -> None:
    with served(state) as browser:
        text = browser.get("/health").text
        assert text.count("NOT RUNNING") == 5 and "needs attention" in text and "tiny-test (fp32)" in text
        assert "2 results were given up" in text and "free of" in text and "clock says" in text
        assert browser.get("/healthz").text == "ok\n"
        ready = browser.get("/readyz")
        assert ready.status == 503 and "receive" in ready.text


def test_health_and_metrics_say_when_certificates_end(state: Path, tmp_path: Path) -> None:
    folder = certified(tmp_path / "c", "node")
    until(folder, "node", 20.5)
    tls = Tls(str(folder / "node.pem"), str(folder / "node.key"), str(folder / "ca.pem"))
    late = Destination("late", url="https://h/", ca=str(tmp_path / "gone.pem"))
    with served(state, tls=tls, destination=(late,)) as browser:
        text = browser.get("/health").text
        assert "node.pem ends on" in text and "in 20 days" in text and f"{tmp_path}/gone.pem</strong> cannot" in text
        assert "ca.pem</strong> ends" in text and "ca.pem ends" not in text, "it has ten years"
        metrics = browser.get("/metrics").text
        days = dict(re.findall(r'certificate_days\{file="[^"]*/(\w+)\.pem"\} (\S+)', metrics))
        assert set(days) == {"node", "ca"} and 20 < float(days["node"]) < 20.6
        assert "certificate" not in browser.get("/readyz").text


def test_a_picture_that_cannot_be_read_is_no_missing_page(state: Path) -> None:
    with Spool(state) as spool:
        (path,) = spool.pictures.glob("1.film.png")
    path.unlink()
    path.mkdir()
    with served(state) as browser:
        assert browser.get("/films/1/film.png").status == 500
        assert browser.get("/films/99/film.png").status == 404


def test_forgotten_films_leave_no_name_and_no_picture(state: Path) -> None:
    with Spool(state) as spool:
        spool.forget(-1, -1)
        assert [row[0] for row in spool.read("SELECT film FROM page ORDER BY film")] == [2]
        assert {path.name.partition(".")[0] for path in spool.pictures.iterdir()} == {"2"}
        spool.read("PRAGMA wal_checkpoint(TRUNCATE)")
    with served(state) as browser:
        text = browser.get("/films/1").text
        assert "no longer kept" in text and "no longer keeps" in text and "Quispe" not in text
        assert browser.get("/films/3").status == 200 and "NOT ANALYSED" in browser.get("/films/3").text


def test_every_page_asks_for_a_role_but_those_for_everybody() -> None:
    free = {path for _, path, role, _ in routes() if role is None}
    assert free == {"/sign-in", "/sign-out", "/static/{name:str}", "/healthz", "/readyz", "/metrics"}


def test_the_queue_says_which_destination_is_gone_and_sends_nothing_there(state: Path) -> None:
    with served(state, destination=()) as browser:
        text = browser.get("/queue").text
        assert "NOT FILED" in text and "no longer" in text and "Send again" not in text
        assert browser.post("/queue/retry", form=browser.form_token(), destination="pacs").status == 404


def test_health_names_who_was_asked_by_echo_and_who_asked(state: Path) -> None:
    config = configured(
        state.parent, f'[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    )
    assert edgecxr("node", "echo", "pacs", "--config", config, runs=state.parent).code == 6
    with role("receive", config) as process:
        port = int(process.says(r"listens on 127.0.0.1 port (\d+)")[1])
        assert echo(port) == 0
        with served(state) as browser:
            eventually(lambda: "asked this node" in browser.get("/health").text, "the echo is noted")
            text = re.sub(r"<[^>]*>", "", browser.get("/health").text)
            assert "pacs did not answer" in text and "MODALITY at 127.0.0.1 asked this node" in text
