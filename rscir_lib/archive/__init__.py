"""An archive: the images of a folder, read and named one way."""

from rscir_lib.archive.archive import Archive, class_of, split_window
from rscir_lib.archive.listing import read_archive, read_lines, write_listing
from rscir_lib.archive.reading import Reading, read_image

__all__ = [
    "Archive", "Reading", "class_of", "read_archive", "read_image", "read_lines", "split_window", "write_listing",
]  # fmt: skip
