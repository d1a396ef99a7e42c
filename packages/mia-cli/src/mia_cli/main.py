"""The `mia` command: one group, one place where errors become a message and an exit code.

Nothing heavy is imported here or by the command modules at import time, so that `mia --help` answers at once.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

import click

from mia_cli import __version__
from mia_cli.commands.exchange import convert_command, export_command, import_command, pack_command
from mia_cli.commands.look import completion_command, doctor_command, inspect_command, look_command
from mia_cli.commands.run import (
    ablate_command,
    diagnose_command,
    quickstart_command,
    report_command,
    run_command,
    share_command,
    slurm_command,
    status_command,
)
from mia_cli.commands.single_stages import augment_command, evaluate_command, score_command, select_command, train_command
from mia_cli.commands.start import embedded_command, init_command

COMMANDS: tuple[click.Command, ...] = (
    quickstart_command, run_command, diagnose_command, ablate_command, init_command, status_command, report_command,
    embedded_command, augment_command, score_command, select_command, train_command, evaluate_command, import_command,
    share_command, slurm_command, export_command, pack_command, convert_command, look_command, inspect_command,
    doctor_command, completion_command,
)  # fmt: skip
BAD_INPUT = 2
FAULT_NOTE = "This is a fault in mia, not in your input: please report it with the lines above and the command."
_FULL = {errno.ENOSPC, errno.EDQUOT}


class UserError(click.ClickException):
    """A message for the user, whole, on standard error."""

    exit_code = BAD_INPUT

    def show(self, file: Any = None) -> None:
        first, *rest = self.message.splitlines() or [""]
        click.secho("error: ", file=file, err=True, fg="red", bold=True, nl=False)
        click.echo("\n".join([first, *(f"       {line}" for line in rest)]), file=file, err=True)


class Interrupted(UserError):
    exit_code = 130


class Mia(click.Group):
    """Turns errors that a person can act on into one readable block; any other error keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the same command continues where it stopped") from None
        except BrokenPipeError:  # the reader of our output has gone: click ends quietly
            raise
        except OSError as error:
            raise UserError(_of_system(error)) from error
        except MemoryError as error:
            raise UserError(f"not enough memory: {error or 'nothing more to say'}; close other programs, or give less at once: "
                          "smaller batches, fewer workers") from error  # fmt: skip
        except Exception as error:
            raise _as_failure(error) from error


def _as_failure(error: Exception) -> Exception:
    """What a person can act on as a message; anything else is a fault of ours and keeps its traceback, with a word about it.

    Readers raise `MiaError` for whatever stands in a file: nothing else is turned into a message here, lest it hide a fault.
    """
    from mia_augment import MiaError

    if isinstance(error, MiaError):
        return UserError(str(error))
    error.add_note(FAULT_NOTE)
    return error


def _of_system(error: OSError) -> str:
    """Which file, and what is the matter with it."""
    place = error.filename2 or error.filename or "system"
    hint = "; make room, then run the same command again" if error.errno in _FULL else ""
    return f"{place}: {error.strerror or error}{hint}"


@click.group(cls=Mia, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mia")
@click.option("-v", "--verbose", is_flag=True, help="Show what the libraries log.")
def main(verbose: bool) -> None:
    """From single-image data to a vision-language model that no longer mixes up its images.

    `mia quickstart` shows everything on the embedded model; `mia init` and `mia run` do it on your own data.
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself: every line would come twice


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
