"""Captions of an archive's images."""

import json
from pathlib import Path

from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import ImageNames, Report


def read_captions(
    path: str | Path, archive: Archive, listing: str | Path | None = None, report: Report | None = None
) -> list[list[str]]:
    """Captions of each image of an archive; none for an image that the file doesn't name.

    The file: JSON, image (its name or path, with or without suffix) -> list of captions, as UCM-captions has it.
    listing: what restricts the archive, where something does. report: gets the images that the archive doesn't hold,
    counted, with the first of them.

    Raises ValueError when the file is malformed, names no image of the archive, one name means several images, or a
    caption is blank.
    """
    try:
        named = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save the file as UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, image name -> list of captions ({error})") from None
    if not isinstance(named, dict):
        raise ValueError(f"{path}: expected JSON, image name -> list of captions; found a {type(named).__name__}")
    names = ImageNames(archive, listing, suffixless=True)
    captions: list[list[str]] = [[] for _ in archive.files]
    strange = [said for said in named if said not in names]
    for said, texts in named.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"{path}: {said} needs a list of captions, none of them blank, found {texts!r}")
        if said in names and (position := names.position(names.find(said, str(path)))) >= 0:
            captions[position] = captions[position] + texts
    if not any(captions):
        raise ValueError(f"{path} names no image of {archive.root}, whose first is {archive.names[0]}")
    if strange and report is not None:
        problem = f"no image of the archive, first {strange[0]!r}; their captions are left out"
        report.add(Path(path).name, None, f"{len(strange)} names", problem)
    return captions
