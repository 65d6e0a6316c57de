"""The report as PDF, printed by a browser that is there: headless, without network, with a profile of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from wardround.errors import ConfigError, StoreError
from wardround.report.html import check_packages
from wardround.report.target import PDF, check_target

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
)
"""Names under which a browser that can print is looked for."""
BROWSER_VARIABLE = "WARDROUND_BROWSER"
"""Environment variable of the command line that names a browser."""
TIME_LIMIT_SECONDS = 120.0
"""After which the browser is stopped (unit: seconds)."""
_PAPER = "<style>@page { size: A4 } @page turned { size: A4 landscape }</style></head>"
# Whoever prints the HTML chooses the paper.

_OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's shared memory is small
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    # The page makes no request. Nor does the browser on its own account: it finds no address, and no proxy.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-proxy-server",
    "--no-pdf-header-footer",
    "--export-tagged-pdf",
    "--generate-pdf-document-outline",
)


def find_browser(named: str | None = None) -> Path:
    """The browser that prints.

    Args:
        named: a path, or a name on the search path; None: the usual names are tried.

    Raises:
        ConfigError: there is none; says what to do.
    """
    for name in BROWSERS if named is None else (named,):
        found = shutil.which(name)
        if found:
            return Path(found)
    if named is not None:
        raise ConfigError(f"there is no browser {named}; name an installed Chromium, Chrome or Edge")
    raise ConfigError(
        "--pdf needs a browser that prints: install Chromium (Debian: apt-get install chromium) or name an installed "
        f"Chromium, Chrome or Edge with --browser or {BROWSER_VARIABLE}; --report writes the same report as HTML"
    )


def check_can_print(path: Path, browser: str | None = None) -> Path:
    """Find out before any work whether a PDF can be written to `path`; the browser that will.

    Raises:
        ConfigError: a package or the browser is missing, or the path is no place for a file; says what to do.
        StoreError: what is there cannot be read.

    Guarantees:
        only_a_pdf_is_replaced: whatever else is there is left as it is.
    """
    check_packages()
    check_target(path, PDF)
    return find_browser(browser)


def write_pdf(page: str, path: Path, browser: Path, *, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> None:
    """Print a rendered report to a PDF file on A4, replacing a PDF there.

    Args:
        page: the report as HTML, from `render_report`.
        path: of the PDF.
        browser: that prints, from `find_browser`.
        time_limit_seconds: after which the browser is stopped.

    Raises:
        ConfigError: as `check_can_print`.
        StoreError: the browser fails, takes too long, or the file cannot be written.

    Guarantees:
        a_failed_print_leaves_the_old_file: the file is replaced by a whole new one or not at all.
    """
    check_can_print(path, str(browser))
    page = page.replace("</head>", _PAPER, 1)
    try:
        # Beside the file: it is moved there in one step, and a browser in a sandbox may see no other folder.
        with tempfile.TemporaryDirectory(
            prefix="wardround-pdf-", dir=path.absolute().parent, ignore_cleanup_errors=True
        ) as folder:
            source, printed = Path(folder) / "report.html", Path(folder) / "report.pdf"
            source.write_text(page, encoding="utf-8", errors="replace", newline="\n")
            said = _print(source, printed, browser, time_limit_seconds)
            if not printed.is_file():
                raise StoreError(f"the PDF {path} cannot be written: {browser.name} printed nothing{_hint(said)}")
            printed.replace(path)
    except OSError as error:
        raise StoreError(f"the PDF {path} cannot be written ({error.strerror})") from None


def _print(source: Path, printed: Path, browser: Path, time_limit_seconds: float) -> str:
    """Let the browser print; what it said."""
    command = [str(browser), *_OPTIONS, f"--user-data-dir={source.parent / 'profile'}", f"--print-to-pdf={printed}"]
    if _is_root():  # Chromium's own sandbox refuses root; the page is ours, and holds no script
        command.append("--no-sandbox")
    log = source.parent / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603  # the browser that the user has or named
            [*command, source.as_uri()],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=source.parent,
            start_new_session=True,
        )
        try:
            process.wait(time_limit_seconds)
        except subprocess.TimeoutExpired:
            raise StoreError(
                f"the PDF cannot be written: {browser.name} did not finish within {time_limit_seconds:g} s"
            ) from None
        finally:
            _stop(process)
    return log.read_text(encoding="utf-8", errors="replace")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the browser with all processes that it started."""
    with contextlib.suppress(OSError):  # it is over
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _hint(said: str) -> str:
    if "sandbox" in said.lower():
        return "; it could not start its sandbox: allow unprivileged user namespaces, or print the HTML report by hand"
    return "; print the HTML report (--report) by hand to see why"
