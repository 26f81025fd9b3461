"""Captions of an archive's images."""

from pathlib import Path

from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import ValidationReport
from rscir_lib.benchmarks.image_names import ImageNames
from rscir_lib.storage.atomic import read_json


def read_captions(
    path: str | Path, archive: Archive, listing: str | Path | None = None, report: ValidationReport | None = None
) -> list[list[str]]:
    """Captions of each image of an archive by its position; an empty list for one that the file doesn't name.

    Args:
        path: JSON, image (its name or path, with or without suffix) -> list of captions; or Karpathy's form, in which
            RSICD, UCM-captions and Sydney-captions are published: "images", each with "filename" and "sentences".
        archive, listing: The images, and what restricts them, where something does.
        report: Gets the number of names that the archive doesn't hold, with the first of them.

    Raises:
        ValueError: The file is malformed, names no image of the archive or an ambiguous one, or a caption is blank.
    """
    captions_by_name = read_json(Path(path), expected="JSON, image name -> list of captions")
    if isinstance(entries := captions_by_name.get("images"), list) and entries and isinstance(entries[0], dict):
        try:
            captions_by_name = {entry["filename"]: [s["raw"] for s in entry["sentences"]] for entry in entries}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: an entry of its images lacks filename or sentences with raw ({error})") from None
    names = ImageNames(archive, listing, suffixless=True)
    captions: list[list[str]] = [[] for _ in archive.files]
    unknown = [name for name in captions_by_name if name not in names]
    for name, texts in captions_by_name.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"{path}: {name} needs a list of captions, none of them blank, found {texts!r}")
        if name in names and (position := names.position(names.find(name, str(path)))) >= 0:
            captions[position] = captions[position] + texts
    if not any(captions):
        raise ValueError(f"{path} names no image of {archive.root}, whose first is {archive.names[0]}")
    if unknown and report is not None:
        problem = f"no image of the archive, first {unknown[0]!r}; their captions are left out"
        report.add(Path(path).name, None, f"{len(unknown)} names", problem)
    return captions
