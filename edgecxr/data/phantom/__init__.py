"""Synthetic chest X-rays for trying the whole path without data; `films` says how they are made."""

from edgecxr.data.phantom.disease import LABELS, NO_FINDING
from edgecxr.data.phantom.film import PhantomFilm, plan, render
from edgecxr.data.phantom.films import image_id, phantom, split_of, write_phantom

__all__ = ["LABELS", "NO_FINDING", "PhantomFilm", "image_id", "phantom", "plan", "render", "split_of", "write_phantom"]
