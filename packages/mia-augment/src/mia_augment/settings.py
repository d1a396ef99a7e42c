"""Settings of the augmentation; every default is the paper's where the paper has one."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mia_augment.compose.canvas import GRID_ROWS, GridStyle
from mia_augment.compose.prompts import IMAGE, TEMPLATES
from mia_augment.formats import FORMATS, Bucket, FormatName

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
GENERAL_QUESTIONS = (
    "What is shown in the picture?",
    "What is in the foreground?",
    "What is in the background?",
    "What colors stand out?",
    "Is it indoors or outdoors?",
)
"""What can be asked about any picture: answers differ from picture to picture."""
MAX_PILLOW_PIXELS = 178_956_970
"""Above this Pillow itself refuses to open a picture."""


class Settings(BaseModel):
    """Settings of any package: frozen, with no unknown names; the text below a field tells what it does."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


def _listed(value: Any) -> Any:
    """A list of keys means equal shares."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return dict.fromkeys(value, 1.0) if isinstance(value, list | tuple) else value


def _some_share(shares: Mapping[Any, float], what: str) -> None:
    if not any(share > 0 for share in shares.values()):
        raise ValueError(f"expected at least one {what} with a share above 0, got {dict(shares)}")


def _numbers(what: str, least: int, most: float) -> AfterValidator:
    """Checks numbers of parts with their shares."""

    def check(counts: dict[int, float]) -> dict[int, float]:
        _some_share(counts, "number of pictures")
        wrong = [number for number in counts if not least <= number <= most]
        if wrong:
            raise ValueError(
                f"expected {what} of {least} {'or more' if most == inf else f'to {most}'} pictures, got {wrong[0]}"
            )
        return counts

    return AfterValidator(check)


Counts = Annotated[dict[int, Share], BeforeValidator(_listed)]


class SequenceSettings(Settings):
    """Several image files in one prompt."""

    counts: Annotated[Counts, _numbers("sequences", 2, inf)] = {2: 20000, 3: 6000, 4: 6000, 5: 4410}
    """Number of images -> share of the sequences (any scale; a list of numbers means equal shares)."""


class GridSettings(Settings):
    """Several pictures side by side in one, each with its drawn label."""

    counts: Annotated[Counts, _numbers("grids", min(GRID_ROWS), max(GRID_ROWS))] = dict.fromkeys(GRID_ROWS, 1.0)
    """Number of cells -> share of the grids (any scale; a list of numbers means equal shares)."""
    rows: int | None = Field(default=None, ge=1, le=9)
    """Rows of the grid; null: 1 for 2 and 3 cells, 2 for 4 to 6, 3 for 7 to 9."""
    cell: int = Field(default=448, ge=8, le=4096)
    """Width and height of a cell in pixels."""
    gap: int = Field(default=40, ge=1, le=1024)
    """Pixels between cells, and height of the label's strip above each."""
    label: int = Field(default=36, ge=4, le=1024)
    """Type size of the labels in pixels."""

    @model_validator(mode="after")
    def _rows_filled(self) -> GridSettings:
        least = min(number for number, share in self.counts.items() if share > 0)
        if self.rows is not None and self.rows > least:
            raise ValueError(f"expected at most as many rows as cells, got rows {self.rows} for grids of {least}")
        return self

    @property
    def style(self) -> GridStyle:
        return GridStyle(cell=self.cell, gap=self.gap, label=self.label)


class StripSettings(Settings):
    """Several pictures of one height side by side in one, without labels: the question names the place."""

    counts: Annotated[Counts, _numbers("strips", 2, 6)] = dict.fromkeys(range(2, 7), 1.0)
    """Number of pictures -> share of the strips (any scale; a list of numbers means equal shares)."""
    height: int = Field(default=336, ge=8, le=4096)
    """Height of the strip in pixels."""
    gap: int = Field(default=16, ge=0, le=1024)
    """White pixels between neighbours."""


class SharedSettings(Settings):
    """Several image files whose rows share a question, and a question about several of them."""

    counts: Annotated[Counts, _numbers("such sequences", 2, inf)] = {2: 1, 3: 1, 4: 1}
    """Number of images -> share of them (any scale; a list of numbers means equal shares)."""


class PicInPicSettings(Settings):
    """One picture shrunk and pasted onto another."""

    scale: float = Field(default=0.7, gt=0, lt=1)
    """The inner picture fits into this share of the outer one's width and height."""
    position: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.5, 0.5)
    """Where it lies between the edges: [0, 0] top left, [0.5, 0.5] the middle, [1, 1] bottom right. The built-in phrases
    speak of the middle: bring your own templates with another position."""


class TemplateSettings(Settings):
    """The words that name the picture a question is about; one template is drawn per turn."""

    named: tuple[str, ...] = TEMPLATES["named"]
    """For sequences and grids; `{label}` is the picture's name ("Image2") and `{question}` the question."""
    pic_in_pic: tuple[str, ...] | None = None
    """For pic-in-pic; null: `mia_augment.compose.prompts.PIC_IN_PIC_LEADS`, a comma, and the question."""
    strip: tuple[str, ...] = TEMPLATES["strip"]
    """For strips; `{label}` is the picture's place from the left ("second")."""

    @model_validator(mode="after")
    def _placeholders(self) -> TemplateSettings:
        for template in self.named + self.strip:
            _once(template, "{question}", "{label}")
        for template in self.pic_in_pic or ():
            _once(template, "{question}")
        if not self.named or not self.strip or self.pic_in_pic == ():
            raise ValueError("expected at least one template, got an empty list")
        return self


def _once(template: str, *placeholders: str) -> None:
    for placeholder in placeholders:
        if template.count(placeholder) != 1:
            raise ValueError(
                f"template {template!r}: expected {placeholder} exactly once, got it {template.count(placeholder)} times"
            )
    if "<image>" in template:
        raise ValueError(f"template {template!r}: expected no <image>, the images are placed before the question")


class PictureSettings(Settings):
    """Limits of what is read, and how composed pictures are written."""

    max_pixels: int = Field(default=64_000_000, ge=1, le=MAX_PILLOW_PIXELS)
    """Pictures with more pixels are refused before a pixel is decoded."""
    max_bytes: int = Field(default=200_000_000, ge=1)
    """Files larger than this are refused unread."""
    max_seconds: float = Field(default=30.0, gt=0, le=86_400)
    """Pictures that take longer to decode are refused. Which ones do depends on the machine; most take milliseconds."""
    verify: Literal["ends", "decode"] = "ends"
    """How the pictures of a data set are checked before they are used. ends: a JPEG or PNG whose header and end are sound is
    taken for whole; damage in its middle shows when it is first opened (for a grid here, for a sequence when it is scored),
    and the row is skipped then. decode: every picture is decoded once more, which takes some milliseconds each."""
    encoding: Literal["auto", "jpeg", "png"] = "auto"
    """How composed pictures are written. auto: PNG where all parts are lossless files (PNG, BMP, GIF, TIFF) and the result
    has at most `png_pixels` pixels, so drawings stay exact; JPEG elsewhere, so photographs stay small and quick."""
    png_pixels: int = Field(default=524_288, ge=0)
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """JPEGs are written without chroma subsampling (4:4:4)."""
    resample: Literal["auto", "lanczos", "bicubic", "hamming"] = "auto"
    """Filter for shrinking. auto: Lanczos where no part has more than `fine_pixels` pixels, else Hamming, which costs
    less than half and is nearly as sharp when shrinking."""
    fine_pixels: int = Field(default=160_000, ge=0)


class AugmentSettings(Settings):
    """Formats, numbers and companions of the samples made of each single-image row."""

    formats: dict[FormatName, Share] = {name: row.share for name, row in FORMATS.items() if row.share}
    """Format -> share of the rows (any scale; a list of names means equal shares)."""
    sequence: SequenceSettings = SequenceSettings()
    grid: GridSettings = GridSettings()
    pic_in_pic: PicInPicSettings = PicInPicSettings()
    strip: StripSettings = StripSettings()
    comparison: SharedSettings = SharedSettings()
    """Two named images are compared: "Compare Image1 and Image3: what color is it?"."""
    search: SharedSettings = SharedSettings()
    """The image is searched that a question and its answer, or a caption, fit: "Which image shows this? .."."""
    captions: SharedSettings = SharedSettings()
    """Every image in order is described, or asked the question."""
    companions: Literal["same_source", "any", "same_question"] = "same_source"
    """Where the other pictures come from: the same first folder of the image path ("coco"), as in the paper; anywhere; or
    anywhere among the pictures whose rows ask the same question and answer it otherwise."""
    templates: TemplateSettings = TemplateSettings()
    pictures: PictureSettings = PictureSettings()
    samples_per_row: int = Field(default=1, ge=1)
    """Samples made of each row, each with its own format, number, place and companions."""
    per_bucket: int | None = Field(default=None, ge=1)
    """Make exactly this many samples of every (format, number) instead of following the shares, as far as the rows suffice;
    a row serves each (format, number) at most once."""
    unlabelled: bool = False
    """Take rows whose questions have no answer, too: the model is its own teacher then (`select.chosen: own`)."""
    questions: tuple[str, ...] = GENERAL_QUESTIONS
    """If `unlabelled`, asked about pictures that come without words, in rows or as a folder of files; each makes a row."""
    max_answer_chars: int = Field(default=512, ge=1)
    """Rows whose first answer is longer are skipped."""

    _list = field_validator("formats", mode="before")(_listed)

    @field_validator("formats")
    @classmethod
    def _formats(cls, formats: dict[FormatName, float]) -> dict[FormatName, float]:
        _some_share(formats, "format")
        return formats

    @field_validator("templates", mode="before")
    @classmethod
    def _default_templates(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("questions")
    @classmethod
    def _questions(cls, questions: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(questions)) < len(questions) or not all(q.strip() and IMAGE not in q for q in questions):
            raise ValueError(f"expected different questions, none empty or with {IMAGE}, got {list(questions)}")
        return questions

    @property
    def asked_of_pictures(self) -> tuple[str, ...]:
        """The questions about pictures without words; none unless these are taken."""
        return self.questions if self.unlabelled else ()

    def sharing(self, name: FormatName, parts: int) -> int:
        """How many of a sample's companions have to come from rows that ask the same question."""
        shared = FORMATS[name].shared
        if parts < 2 or (shared is None and self.companions != "same_question"):
            return 0
        return 1 if shared and shared.named == 2 and self.companions != "same_question" else parts - 1

    @property
    def looks_for_sharers(self) -> bool:
        """Whether rows that ask the same question have to be found."""
        return any(self.sharing(*bucket) for bucket in self.shares())

    def shares(self) -> dict[Bucket, float]:
        """(format, number of parts) -> share of the samples, in a fixed order; they sum up to 1."""
        formats = {name: share for name, share in self.formats.items() if share > 0}
        whole = sum(formats.values())
        result: dict[Bucket, float] = {}
        for name in sorted(formats):
            counts = self.counts(name)
            parts = sum(counts.values())
            result |= {(name, n): formats[name] / whole * counts[n] / parts for n in sorted(counts) if counts[n] > 0}
        return result

    def counts(self, name: FormatName) -> dict[int, float]:
        """Number of parts -> share within one format."""
        parts = FORMATS[name].parts
        counts: dict[int, float] = {parts: 1.0} if parts else getattr(self, name).counts
        return counts
