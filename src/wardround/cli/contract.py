"""`wardround contract`: draft a data contract from tables, and check tables against one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wardround.analytics.result import json_text
from wardround.cli.terminal import output_kept_pure, show, show_json, talk
from wardround.data.contract_text import contract_text
from wardround.data.sources.contract_file import read_contract, write_contract
from wardround.data.sources.folder import site_of, tables_in
from wardround.engines.simulated_hospitals import check_tables, infer
from wardround.errors import ConfigError


def infer_contract(paths: Sequence[Path], *, output: Path | None, patient: str | None, as_json: bool) -> int:
    """Draft a contract from these tables; returns the exit code.

    Raises:
        WardroundError: the tables cannot be read, or share no contract, or a file would be overwritten.
    """
    with output_kept_pure():
        if output:
            _check_can_write(output)
        inference = infer(site_tables(paths), patient=patient)
        if output:
            write_contract(output, inference.contract, inference.notes)
    if as_json:
        text = contract_text(inference.contract)
        show_json(json_text({"contract": text, "notes": list(inference.notes), "output": output and str(output)}))
    elif not output:
        show(contract_text(inference.contract, inference.notes).rstrip("\n"))
    if output:
        talk(f"contract: {output}; read it through, correct it, and agree on it with the other sites")
    return 0


def check_contract(contract_path: Path, paths: Sequence[Path], *, as_json: bool) -> int:
    """Print how these tables fit a contract; returns the exit code, 1 where one does not fit.

    Raises:
        WardroundError: the contract or a table cannot be read.
    """
    with output_kept_pure():
        reports = check_tables(site_tables(paths), read_contract(contract_path))
    fits = all(report.fits for report in reports.values())
    if as_json:
        show_json(json_text({"fits": fits, "sites": [report.to_dict() for report in reports.values()]}))
    else:
        show("\n".join(str(report) for report in reports.values()))
    if not fits:
        talk("wardround: some tables do not fit; correct them or the contract")
    return 0 if fits else 1


def _check_can_write(output: Path) -> None:
    """Refuse what would be lost: a contract that people corrected, a table."""
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder; name a file in it, such as {output / 'contract.toml'}")
    if output.exists() or output.is_symlink():
        raise ConfigError(f"--output {output} exists, and is not overwritten; name another file, or remove it first")


def site_tables(paths: Sequence[Path]) -> dict[str, Path]:
    """By site's name, its table: those of a folder, and those named; a file's name is the site's.

    Raises:
        ConfigError: no such file or folder, or two tables of one name.
    """
    tables: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(f"there is no file or folder {path}")
        found = tables_in(path) if path.is_dir() else {site_of(path): path}
        twice = sorted(set(found) & set(tables))
        if twice:
            raise ConfigError(f"two tables are named {', '.join(twice)}; a file's name is its site's, so rename one")
        tables |= found
    return tables
