"""What label files may call an image."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from rscir_lib.archive import Archive, read_archive


def plain_word(text: str) -> str:
    """A text as a person sees it: composed letters (Unicode NFC), nothing invisible or blank at its ends."""
    text = unicodedata.normalize("NFC", text)
    seen = [i for i, letter in enumerate(text) if not letter.isspace() and unicodedata.category(letter) != "Cf"]
    return text[seen[0] : seen[-1] + 1] if seen else ""


class ImageNames:
    """Finds an image by the end of its path: as much of it as distinguishes it from all others.

    `a.jpg`, `class/a.jpg` and `images/class/a.jpg` are the same image while no other path ends so; `./a.jpg` is the one
    in the root itself.

    Args:
        archive: The images, all of them or those of a listing.
        listing: What restricts the archive, where something does. Names are still told apart among all images under
            the root, so that a name means the same image with any listing.
        suffixless: Whether `a` and `class/a` are names too.
    """

    def __init__(self, archive: Archive, listing: str | Path | None = None, suffixless: bool = False) -> None:
        self.archive = archive
        self._files_by_ending: dict[str, list[str]] = {}
        self._position = {file: position for position, file in enumerate(archive.files)}
        self.whole = read_archive(archive.root) if listing else archive
        for file in dict.fromkeys((*self.whole.files, *archive.files)):
            forms = {file, str(Path(file).with_suffix(""))} if suffixless else {file}
            for form in forms | {unicodedata.normalize("NFC", form) for form in forms}:
                self._files_by_ending["./" + form] = [file]
                parts = form.split("/")
                for start in range(len(parts)):
                    files = self._files_by_ending.setdefault("/".join(parts[start:]), [])
                    files += [file] if files[-1:] != [file] else []

    def call(self, named: Mapping[str, str]) -> None:
        """Let names, which a file gives, stand for these files alone."""
        self._files_by_ending |= {name: [file] for name, file in named.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._files_by_ending

    def find(self, name: str, where: str, hint: str = "") -> str:
        """The file of the image called `name`. Raises ValueError, beginning with `where`, for none and for several."""
        files = self._files_by_ending.get(name, [])
        if not files:
            advice = f"correct the name, or add it to {self.archive.root}"
            raise ValueError(f"{where}: image {name!r} is not in the archive{hint}; {advice}")
        if len(files) > 1:
            paths = " or ".join(repr(file if "/" in file else "./" + file) for file in files[:3])
            raise ValueError(f"{where}: the archive holds several images named {name!r}; say which: {paths}")
        return files[0]

    def position(self, file: str) -> int:
        """The archive position of a file that `find` returned; -1 where the listing leaves it out."""
        return self._position.get(file, -1)

    def name(self, file: str) -> str:
        """What the tables call a file: its name, or its path where another image has that name too."""
        name = file.rsplit("/", 1)[-1]
        return name if len(self._files_by_ending[name]) == 1 else file
