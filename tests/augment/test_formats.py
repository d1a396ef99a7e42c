"""The table of formats: what is the paper's, and that records and settings follow the table."""

from __future__ import annotations

import pytest
from mia_augment import FORMATS, AugmentSettings, Dropped
from pydantic import ValidationError


def test_the_papers_formats_have_the_papers_numbers():
    paper = {name: row for name, row in FORMATS.items() if row.paper}
    assert list(paper) == ["sequence", "grid", "pic_in_pic"]
    assert paper["sequence"].thresholds == {2: 0.8, 3: 0.7, 4: 0.6, 5: 0.6}
    assert paper["grid"].thresholds == {2: 0.7, 3: 0.6, 4: 0.5, 6: 0.4, 9: 0.3}
    assert paper["pic_in_pic"].thresholds == {2: 0.8}
    assert [row.inclusive for row in paper.values()] == [True, False, False]
    assert [row.sigma for row in paper.values()] == [0, 225, 49]


def test_what_is_made_by_default_is_the_papers():
    assert AugmentSettings().formats == {"sequence": 0.5, "grid": 0.3, "pic_in_pic": 0.2}


def test_a_record_of_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match=r"'sequence', 'grid', 'pic_in_pic'.* or 'single'"):
        Dropped(id="a", format="collage", parts=2, rule="correct")


@pytest.mark.parametrize("row", FORMATS.values(), ids=list(FORMATS))
def test_the_header_holds_a_placeholder_for_every_image_and_every_part_has_a_name(row):
    parts = row.parts or 4
    assert row.header(parts).count("<image>") == (1 if row.compose else parts)
    assert len(set(row.labels(parts))) == parts
    assert row.title_of(parts) == (row.title if row.parts else f"{row.title} 4")


@pytest.mark.parametrize("row", FORMATS.values(), ids=list(FORMATS))
def test_every_format_has_the_settings_that_it_needs(row):
    settings = AugmentSettings()
    assert all(settings.counts(row.name))
    assert row.compose is None or hasattr(settings, row.name)
    assert row.words is None or hasattr(settings.templates, row.words)
