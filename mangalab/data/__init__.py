"""The bookshop's data: a catalogue of real manga and the datasets built on it.

Every dataset is a small text file under `text/` or a seeded function of one, described by a data
card under `cards/`. Nothing is imported here beyond the standard library; `clicks` needs NumPy.
"""

from mangalab.data._files import changed_files, opened

__all__ = ["changed_files", "opened"]
