"""Sending by STOW-RS (PS3.18, 10.5)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import secrets
import socket
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage

from edgecxr import __version__
from edgecxr.errors import UsageError, brief
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.secret_file import read_secret
from edgecxr.node.sending.association import ANSWER, CONNECT, as_comprehensive
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Refused, Unreachable
from edgecxr.node.sending.no_connection import http_remedy, no_connection
from edgecxr.node.tls.client_tls import ClientTls
from edgecxr.storage.json_values import parse_json

_LARGEST_ANSWER = 1 << 20
_PROCESSING_FAILED, _DUPLICATE, _NO_SUCH_CLASS = 0x0110, 0x0111, 0x0122
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_FAILED, _REASON, _WARNING = "00081198", "00081197", "00081196"
_OTHERS, _STORED = "0008119A", "00081199"
_LATER = (408, 425, 500, 502, 504)  # of this result; 429 and 503 speak of the destination as a whole
_NOT_NOW = (401, 403, 407, 429, 503)


class StowClient:
    """Connections to a DICOMweb service, made when they are needed.

    Args:
        destination: with a URL.
        config: the node's.

    Attributes:
        was_established: whether the last failure was of a connection that had been accepted.
        sent_as: SOP class and instance UID under which the last result was sent.
    """

    def __init__(self, destination: Destination, config: NodeConfig) -> None:
        self._destination, self._url = destination, destination.split_url
        self._tls = ClientTls(destination, config.tls)
        self._connection: http.client.HTTPConnection | None = None
        self.was_established, self.sent_as = False, ("", "")

    def store(self, content: bytes) -> str | None:
        """Send a result.

        Returns:
            A remark of the destination, or None.

        Raises:
            Unreachable: there is no connection, it is lost, or the destination takes nothing now.
            Refused: the destination does not take the result.
        """
        try:
            dataset: Dataset = dcmread(BytesIO(content))
            sop_class, uid = dataset.SOPClassUID, dataset.SOPInstanceUID
        except Exception as error:  # pydicom raises nearly anything
            raise Refused(f"it is no DICOM file: {brief(error)}", transient=False) from error
        self.sent_as = (str(sop_class), str(uid))
        reason, remark = self._posted(content)
        if reason == _NO_SUCH_CLASS and sop_class == Comprehensive3DSRStorage:
            building = BytesIO()
            as_comprehensive(dataset).save_as(building, enforce_file_format=True)
            reason, remark = self._posted(building.getvalue())
        if reason is None or reason == _DUPLICATE:
            return remark
        raise Refused(remark or "no reason given", transient=reason >> 8 == 0xA7)

    def verify(self) -> None:
        """Ask whether the destination is there.

        Raises:
            Unreachable: it is not.
        """
        status, headers, _ = self._answered("GET", "/studies?limit=1", None, {"Accept": "application/dicom+json"})
        # A service that only stores cannot be searched.
        if status >= 500 or status in (401, 403, 404, 407, 429) or 300 <= status < 400:
            self._unreachable(status, headers)
        if status == 200 and headers.get_content_type() == "text/html":
            raise self._without_dicom(status)

    def release(self) -> None:
        """Close the connection if there is one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _posted(self, content: bytes) -> tuple[int | None, str | None]:
        """Send a file, and return the failure reason and the destination's remark.

        Raises:
            Unreachable: it takes nothing now, or the answer is not that of a DICOMweb service.
            Refused: the answer has no failure reason.
        """
        boundary = secrets.token_hex(24)
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                content,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        status, answered, answer = self._answered("POST", "/studies", body, headers)
        if status in _NOT_NOW:
            self._unreachable(status, answered)
        data_set = _data_set(answer)
        reason = _code(data_set, _FAILED, _REASON)
        if reason is None:
            reason = _code(data_set, _OTHERS, _REASON)
        words = f"HTTP {status}{f', failure 0x{reason:04X}' if reason is not None else ''}"
        if reason is not None and (200 <= status < 300 or status == 409):
            return reason, words
        if 200 <= status < 300:
            if status != 204 and not data_set:
                raise self._without_dicom(status)
            warning = _code(data_set, _STORED, _WARNING)
            return None, None if warning is None else f"HTTP {status}, warning 0x{warning:04X}"
        raise Refused(words, transient=status in _LATER or status > 504)

    def _unreachable(self, status: int, headers: http.client.HTTPMessage) -> None:
        self.was_established = False  # the result is not the cause
        raise Unreachable(
            f"{self._destination.place} answers HTTP {status}: {http_remedy(status)}",
            _wait(headers.get("Retry-After", "")),
        )

    def _without_dicom(self, status: int) -> Unreachable:
        self.was_established = False  # the result is not the cause
        return Unreachable(
            f"{self._destination.place} answers HTTP {status} without DICOM, as a proxy's page does: "
            f"{http_remedy(http.client.NOT_FOUND)}"
        )

    def _answered(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Return status, headers and body of an answer.

        A connection that was kept may have been closed meanwhile, so that a fresh one is tried as well.
        """
        kept = self._connection is not None
        try:
            return self._once(method, path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError) as error:
            self.release()
            if not kept:
                raise self._lost(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.release()
            raise self._lost(error) from error
        try:
            return self._once(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.release()
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self._destination.place} breaks off the connection ({brief(error)}): its log says why")

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connected()
        assert connection.sock is not None
        # A time-out of the socket alone would let an answer drip for ever.
        ended = threading.Event()
        timer = threading.Timer(2 * ANSWER, _end, [connection.sock, ended])
        timer.daemon = True
        timer.start()
        try:
            connection.request(method, f"{self._url.path.rstrip('/')}{path}", body, {**self._common(), **headers})
            response = connection.getresponse()
            answer = response.read(_LARGEST_ANSWER)
            if not response.isclosed():  # there is more, which nobody reads
                self.release()
        finally:
            timer.cancel()
        # An answer that is cut off in its header looks like one with an empty body.
        stated = {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}
        if ended.is_set() or (not answer and not stated and response.status != 204):
            raise http.client.IncompleteRead(answer)
        return response.status, response.headers, answer

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is not None and self._connection.sock is not None:
            return self._connection
        self.was_established = False
        host = self._url.hostname or ""
        try:
            if self._url.scheme == "https":
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    host, self._url.port, timeout=CONNECT, context=self._tls.context()
                )
            else:
                connection = http.client.HTTPConnection(host, self._url.port, timeout=CONNECT)
            connection.connect()
            connection.sock.settimeout(ANSWER)
        except (UsageError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._destination.place}: {brief(error)}") from error
        except OSError as error:
            port = self._url.port or (443 if self._url.scheme == "https" else 80)
            raise Unreachable(f"{self._destination.place}: {no_connection(host, port, error, CONNECT)}") from error
        self._connection, self.was_established = connection, True
        return connection

    def _common(self) -> dict[str, str]:
        """Return the headers of all requests.

        Raises:
            Unreachable: a token or password cannot be read.
        """
        to = self._destination
        headers = {"User-Agent": f"edgecxr/{__version__}"}
        try:
            if to.token_file is not None:
                headers["Authorization"] = f"Bearer {read_secret(to.token_file)}"
            elif to.user is not None and to.password_file is not None:
                pair = f"{to.user}:{read_secret(to.password_file)}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        except UsageError as error:
            self.was_established = False
            raise Unreachable(str(error)) from error
        return headers


def _end(connection: socket.socket, ended: threading.Event) -> None:
    ended.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _data_set(answer: bytes) -> dict[str, Any]:
    """Return an answer in DICOM JSON, or an empty one.

    Of one in XML (PS3.19, A.1), for which the node does not ask, the failure reason alone is kept.
    """
    if b"NativeDicomModel" in answer:
        failed = any(re.search(rf"{sequence}[^>]*>\s*<Item".encode(), answer) for sequence in (_FAILED, _OTHERS))
        code = re.search(rb"00081197.*?Value[^>]*>([0-9]{1,5})<", answer, re.DOTALL)
        reason = {_REASON: {"Value": [int(code[1]) if code else _PROCESSING_FAILED]}}
        return {_FAILED: {"Value": [reason]}} if failed else {_STORED: {}}
    try:
        values = parse_json(answer)
    except ValueError:
        return {}
    if isinstance(values, list):
        values = values[0] if values else {}
    return values if isinstance(values, dict) and any(map(_TAG.fullmatch, values)) else {}


def _code(data_set: dict[str, Any], sequence: str, tag: str) -> int | None:
    """Return a code of a sequence's first item that has one."""
    items = data_set.get(sequence)
    for item in (items.get("Value") or []) if isinstance(items, dict) else []:
        value = item.get(tag) if isinstance(item, dict) else None
        codes = value.get("Value") if isinstance(value, dict) else None
        if isinstance(codes, list) and codes and type(codes[0]) is int and 0 <= codes[0] < 1 << 16:
            return codes[0]
    return None


def _wait(text: str) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3)."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
