"""Phantoms as a modality sends them."""

from __future__ import annotations

from io import BytesIO

from pydicom import Dataset, dcmread
from pynetdicom import AE

from edgecxr.phantom.dicom_file import encode
from edgecxr.phantom.film import render

SEED = 2026
_EVERY = 4  # every fourth film is no frontal one, so that the quality gate refuses it
_SECONDS = 30.0


def described(number: int) -> tuple[Dataset, str]:
    """Return a phantom's film, and what it shows, in words.

    Args:
        number: of the film; the same one gives the same film.
    """
    film = render(SEED, number)
    dataset = dcmread(BytesIO(encode(film, SEED)))
    present = ", ".join(film.plan.disease.present) or "no finding"
    if number % _EVERY == _EVERY - 1:
        dataset.ViewPosition = "LL"
        del dataset.ViewCodeSequence
        return dataset, "a phantom that says it is a lateral film"
    return dataset, f"a phantom with {present}"


class FilmSender:
    """A modality on this machine.

    Args:
        calling: its AE title.
        called: AE title of the node.
        port: of the node.
    """

    def __init__(self, calling: str, called: str, port: int) -> None:
        self._calling, self._called, self._port = calling, called, port

    def send(self, film: Dataset) -> str:
        """Send a film; return why it was not taken, or ""."""
        entity = AE(self._calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _SECONDS
        entity.add_requested_context(film.SOPClassUID, film.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self._port, ae_title=self._called)
        if not association.is_established:
            return "it takes no association"
        try:
            status = association.send_c_store(film).get("Status")
        except (RuntimeError, ValueError) as error:
            return str(error)
        finally:
            association.release()
        return "" if status == 0 else "no answer" if status is None else f"status 0x{status:04X}"
