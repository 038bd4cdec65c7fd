"""PDF files for tests, written by hand: what is in them is known to the byte."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from pypdf import PdfReader, PdfWriter


def pdf(pages: Sequence[Sequence[str]], streams: Sequence[bytes] = ()) -> bytes:
    """A PDF with these lines on its pages, a blank one between paragraphs; or with such page contents."""
    contents = list(streams) or [_content(lines) for lines in pages]
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids = []
    for content in contents:
        packed = zlib.compress(content)
        objects.append(b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F1 3 0 R>>>>"
            b"/Contents %d 0 R>>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%b]>>" % (len(kids), b" ".join(kids))
    out = BytesIO(b"%PDF-1.4\n")
    out.seek(0, 2)
    places = []
    for number, content in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%b\nendobj\n" % (number, content))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, table))
    return out.getvalue()


def _content(lines: Sequence[str]) -> bytes:
    said = b"".join(b"(%b) Tj 0 -14 Td\n" % line.encode("latin-1") for line in lines)
    return b"BT /F1 11 Tf 50 750 Td\n" + said + b"ET"


def outlined(content: bytes, titles: Sequence[tuple[str, int, bool]]) -> bytes:
    """With an outline: title, page from 0, and whether it is below the one before."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(content)))
    last = None
    for title, page, below in titles:
        entry = writer.add_outline_item(title=title, page_number=page, parent=last if below else None)
        last = last if below else entry
    return _written(writer)


def encrypted(content: bytes, password: str) -> bytes:
    """As a person who may open it would need ``password`` to."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(content)))
    writer.encrypt(password, "owner", algorithm="AES-256")
    return _written(writer)


def _written(writer: PdfWriter) -> bytes:
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    """Write a file. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
