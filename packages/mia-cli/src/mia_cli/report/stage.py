"""The last stage of a run: its report."""

from __future__ import annotations

from pathlib import Path

from mia_augment.storage import MANIFEST, Manifest, Progress, Stage, content_hash

from mia_cli import __version__
from mia_cli.config.schema import ReportSettings
from mia_cli.layout import REPORT, Folders
from mia_cli.report.page import write_report


def report_stage(run_dir: Path, settings: ReportSettings) -> Stage:
    """The page of a run, made anew when any stage's manifest changes."""
    folder, page = Folders(run_dir).reported, run_dir / REPORT

    def plan() -> Manifest:
        finished = [place / MANIFEST for place in Folders(run_dir).places().values() if (place / MANIFEST).is_file()]
        inputs = {manifest.parent.name: content_hash(manifest) for manifest in finished}
        return Manifest(stage="report", version=__version__, settings=settings.model_dump(mode="json"), inputs=inputs)

    def make(planned: Manifest, progress: Progress) -> Manifest:
        (folder / MANIFEST).unlink(missing_ok=True)
        return planned.model_copy(update={"counts": {"bytes": write_report(run_dir, page, settings, progress=progress)}})

    return Stage("report", folder, plan, make, results=(page,))
