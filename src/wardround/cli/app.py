"""The program `wardround`: its commands, its exit codes, and what it says when something is refused.

What a command needs is imported when it is run, so that `wardround --help` answers at once.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wardround.errors import WardroundError

DONE, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; refused or failed; used wrongly; stopped from the keyboard."""

_DEBUG = "wardround.debug"


class _Refusing(TyperGroup):
    """Turns an error into a message and an exit code; shows a traceback only on request."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _tell("stopped")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of our output has gone: typer ends quietly
            raise
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("click", "typer"):
                raise
            if ctx.find_root().meta.get(_DEBUG):
                traceback.print_exc()
            _tell(_in_words(error))
            raise typer.Exit(REFUSED) from None


def _tell(text: str) -> None:
    from wardround.cli.terminal import talk

    talk(f"wardround: {text}")


def _in_words(error: Exception) -> str:
    if isinstance(error, WardroundError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}"
    if isinstance(error, MemoryError):
        return "out of memory; use a machine with more, or fewer columns in the contract"
    # Its message may hold a patient's value: only its kind and place are told.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    return f"failed by a fault of its own ({place}); run it again with --debug and report what that shows"


def _remember_debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.find_root().meta[_DEBUG] = True
    return value


def _print_version(value: bool) -> None:
    if value:
        from wardround.cli.terminal import show
        from wardround.report.versions import package_version

        show(f"wardround {package_version('wardround')}")
        raise typer.Exit(DONE)


Debug = Annotated[
    bool, typer.Option("--debug", callback=_remember_debug, help="Show a traceback when something fails.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of text.")]
Tables = Annotated[list[Path], typer.Argument(metavar="DIR|FILE...", help="A folder of tables, or tables: one a site.")]
Patient = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column that tells patients apart.")]
PdfFile = Annotated[Path | None, typer.Option("--pdf", metavar="FILE", help="Write the report as PDF here.")]
Browser = Annotated[
    str | None,
    typer.Option("--browser", metavar="PATH", envvar="WARDROUND_BROWSER", help="Browser that prints the PDF."),
]
ReportFile = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report here.")]

app = typer.Typer(
    cls=_Refusing,
    name="wardround",
    help="Hospitals learn from all of their patients together while no patient's record leaves its hospital.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
contract_app = typer.Typer(
    help="Data contracts: what every site's table must hold.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(contract_app, name="contract")
privacy_app = typer.Typer(help="What a study's [privacy] means and costs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(privacy_app, name="privacy")
audit_app = typer.Typer(
    help="Transcripts of secure sums: what was asked, who signed what, who is in which total.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(audit_app, name="audit")


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    pass


@app.command()
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.")],
    simulate: Annotated[
        Path,
        typer.Option("--simulate", metavar="DIR", help="Folder with one table a site; the file's name is the site's."),
    ],
    as_json: AsJson = False,
    report: ReportFile = None,
    pdf: PdfFile = None,
    browser: Browser = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep every run's record, and the transcript of its secure sums, in here."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the simulated sites.")] = 0,
    debug: Debug = False,
) -> None:
    """Carry a study out on simulated hospitals."""
    from wardround.cli.run import Faces, run_study

    faces = Faces(as_json=as_json, report=report, pdf=pdf, browser=browser)
    raise typer.Exit(run_study(study, simulate, faces=faces, record=record, seed=seed))


@contract_app.command("infer")
def contract_infer(
    tables: Tables,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the contract here.")] = None,
    patient: Patient = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Draft a contract from the tables at hand, for people to correct and agree on."""
    from wardround.cli.contract import infer_contract

    raise typer.Exit(infer_contract(tables, output=output, patient=patient, as_json=as_json))


@contract_app.command("check")
def contract_check(
    contract: Annotated[Path, typer.Argument(metavar="CONTRACT", help="The contract, a TOML file.")],
    tables: Tables,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check tables against a contract; exit code 1 where one does not fit."""
    from wardround.cli.contract import check_contract

    raise typer.Exit(check_contract(contract, tables, as_json=as_json))


@audit_app.command("verify")
def audit_verify(
    transcript: Annotated[Path, typer.Argument(metavar="TRANSCRIPT", help="The transcript, from `run --record`.")],
    fingerprint: Annotated[
        str | None, typer.Option(metavar="HEX", help="Fingerprint of the manifest that the sites have agreed on.")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Accept a transcript that is not closed: it is still being written.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Verify a transcript; exit code 1 where a byte was altered, a rule is broken, or it is not closed."""
    from wardround.cli.audit import verify_transcript

    raise typer.Exit(
        verify_transcript(transcript, fingerprint=fingerprint, allows_unfinished=unfinished, as_json=as_json)
    )


@privacy_app.command("plan")
def privacy_plan(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.")],
    sites: Annotated[int | None, typer.Option("--sites", metavar="N", min=1, help="How many sites there are.")] = None,
    simulate: Annotated[
        Path | None,
        typer.Option("--simulate", metavar="DIR", help="Rehearse in clear on this folder with one table a site."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say who learns what under a study's secure sums, and what they cost, before it is run."""
    from wardround.cli.privacy_plan import plan_privacy

    if (sites is None) == (simulate is None):
        raise typer.BadParameter("give either --sites N or --simulate DIR")
    raise typer.Exit(plan_privacy(study, num_sites=sites, folder=simulate, as_json=as_json))


@app.command()
def vocabulary(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the site functions and workflows that are installed here."""
    from wardround.cli.vocabulary import show_vocabulary

    raise typer.Exit(show_vocabulary(as_json=as_json))


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON schema of what `run --json` prints."""
    from wardround.cli.terminal import show_json
    from wardround.report.schema import shipped_schema

    show_json(shipped_schema())


@app.command()
def demo(
    report: Annotated[Path, typer.Option("--report", metavar="FILE", help="Where to write the HTML report.")] = Path(
        "wardround-demo.html"
    ),
    unpack: Annotated[
        Path | None,
        typer.Option("--unpack", metavar="DIR", help="Write studies and tables into a new folder, to play with them."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Run two studies on real patients of many hospitals and compare them with pooling the patients."""
    from wardround.cli.demo import run_demo, unpack_demo

    raise typer.Exit(run_demo(report) if unpack is None else unpack_demo(unpack))


def main() -> None:
    """Entry point of the program."""
    app(prog_name="wardround")


if __name__ == "__main__":
    main()
