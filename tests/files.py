"""Makers of odd, broken and hostile documents, each from nothing but its arguments."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage
from typing import TYPE_CHECKING, Final

import docx
import openpyxl
import pptx
from PIL import Image, ImageDraw
from pypdf import PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

RUSSIAN: Final = (
    "Сопровождающий пакета отвечает за его качество. Он читает отчёты об ошибках, исправляет их и готовит новые "
    "выпуски.\n\nКаждый пакет должен соответствовать политике Debian, иначе его не примут в архив."
)
ENGLISH: Final = (
    "The maintainer of a package is responsible for its quality. She reads bug reports, mends what they report and "
    "prepares new releases.\n\nEvery package must follow Debian policy, or the archive will refuse it."
)
_LEFT, _TOP, _LEADING = 72, 760, 14


def pdf_document(
    path: Path, pages: Sequence[Sequence[str]], *, heads: Sequence[str] = (), numbered: bool = False
) -> Path:
    """A PDF with these lines on its pages, a running head on each if `heads` are given, and page numbers if asked."""
    canvas = Canvas(str(path), pagesize=A4)
    for number, lines in enumerate(pages, start=1):
        canvas.setFont("Helvetica", 10)
        if heads:
            canvas.drawString(_LEFT, 800, heads[(number - 1) % len(heads)])
        if numbered:
            canvas.drawCentredString(A4[0] / 2, 40, str(number))
        for row, line in enumerate(lines):
            canvas.drawString(_LEFT, _TOP - row * _LEADING, line)
        canvas.showPage()
    canvas.save()
    return path


def long_pdf(path: Path, pages: int = 300) -> Path:
    """A PDF of many full pages, each saying which it is."""
    text = "The maintainer reads the bug reports of this release and answers every one of them in good time"
    return pdf_document(
        path,
        [[f"Page {page} line {row}: {text}."[:95] for row in range(45)] for page in range(1, pages + 1)],
        heads=["The long manual"],
        numbered=True,
    )


def encrypted_pdf(path: Path, password: str = "secret") -> Path:  # noqa: S107 - it locks nothing but this file
    """A PDF that opens only with the password."""
    plain = pdf_document(path.with_suffix(".plain.pdf"), [["Nobody reads this without the password."]])
    writer = PdfWriter(clone_from=plain)
    writer.encrypt(password, algorithm="AES-256")
    writer.write(path)
    plain.unlink()
    return path


def scanned_pdf(path: Path, text: str = "Scanned words") -> Path:
    """A PDF of one picture, without a text layer."""
    picture = path.with_suffix(".png")
    png_image(picture, text)
    canvas = Canvas(str(path), pagesize=A4)
    canvas.drawImage(str(picture), 50, 500, width=500, height=200)
    canvas.showPage()
    canvas.save()
    picture.unlink()
    return path


def png_image(path: Path, text: str = "Scanned words") -> Path:
    """A picture with large letters in it."""
    image = Image.new("L", (1000, 400), 255)
    ImageDraw.Draw(image).text((60, 120), text, fill=0, font_size=90)
    image.save(path)
    return path


def truncated(path: Path, whole: Path, share: float = 0.6) -> Path:
    """The first part of a file, as an interrupted copy leaves it."""
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def docx_document(path: Path, paragraphs: Iterable[str] = (ENGLISH,), *, heading: str = "Duties") -> Path:
    """A DOCX of a heading and paragraphs."""
    document = docx.Document()
    document.add_heading(heading, level=1)
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    document.save(str(path))
    return path


def pptx_document(path: Path, slides: Mapping[str, str]) -> Path:
    """A PPTX of slides with these titles and texts."""
    presentation = pptx.Presentation()
    for title, text in slides.items():
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    presentation.save(str(path))
    return path


def xlsx_document(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """An XLSX of one sheet."""
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Packages")
    for row in rows:
        sheet.append(list(row))
    workbook.save(path)
    return path


def large_xlsx(path: Path, rows: int = 100_000) -> Path:
    """An XLSX with a header and so many rows."""
    header = ("Package", "Maintainer", "Version", "Bugs")
    body = ((f"package-{row}", f"Maintainer {row % 977}", f"1.{row % 13}", row % 31) for row in range(rows))
    return xlsx_document(path, (header, *body))


def zip_bomb_docx(path: Path, unpacked: int = 600 * 1024**2) -> Path:
    """A DOCX whose text would unpack to so many bytes."""
    docx_document(path)
    step = b" " * 1024**2
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("word/bomb.xml", "w") as entry:
        for _ in range(unpacked // len(step)):
            entry.write(step)
    return path


def zip_archive(path: Path, entries: Mapping[str, str]) -> Path:
    """A zip archive with these files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def epub_book(path: Path, chapters: Mapping[str, str], *, title: str = "A book") -> Path:
    """An EPUB of chapters, given as the inside of their `<body>` by file name."""
    manifest = "".join(
        f'<item id="c{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{i}"/>' for i, _ in enumerate(chapters))
    entries = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
        f"<manifest>{manifest}</manifest><spine>{spine}</spine></package>",
        **{f"OEBPS/{name}": f"<html><body>{body}</body></html>" for name, body in chapters.items()},
    }
    return zip_archive(path, entries)


def html_with_scripts(path: Path) -> Path:
    """A page whose scripts, styles and navigation are nobody's text."""
    path.write_text(
        "<!doctype html><html><head><title>Duties</title><style>p { color: red }</style></head><body>"
        "<nav><a href='/'>Home</a></nav><script>stealCookies()</script><h1>Duties</h1>"
        f"<p onclick='evil()'>{ENGLISH}</p><noscript>Enable JavaScript</noscript>"
        "<template>hidden template</template><footer>All rights reserved</footer></body></html>",
        encoding="utf-8",
    )
    return path


def text_in(path: Path, encoding: str, text: str = RUSSIAN) -> Path:
    """A text file in this encoding."""
    path.write_bytes(text.encode(encoding))
    return path


def email_message(path: Path, *, text: str | None = ENGLISH, html: str | None = None, attachment: str = "") -> Path:
    """An e-mail with the given bodies, and an attachment of this name if there is one."""
    message = EmailMessage()
    message["From"] = "Анна <anna@example.org>"
    message["To"] = "team@example.org"
    message["Subject"] = "О выпуске"
    if text is not None:
        message.set_content(text)
    if html is not None and text is not None:
        message.add_alternative(html, subtype="html")
    elif html is not None:
        message.set_content(html, subtype="html")
    if attachment:
        message.add_attachment(b"data", maintype="application", subtype="octet-stream", filename=attachment)
    path.write_bytes(message.as_bytes())
    return path


def bytes_of(image: Image.Image, format_name: str) -> bytes:
    """The picture as a file of this format."""
    buffer = io.BytesIO()
    image.save(buffer, format_name)
    return buffer.getvalue()
