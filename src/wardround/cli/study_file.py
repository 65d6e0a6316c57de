"""Reading a study file, the contract that it names, and the sites' own rules beside their tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from pathlib import Path

from wardround.data.contract import Contract
from wardround.data.contract_text import contract_text
from wardround.data.sources.contract_file import read_contract
from wardround.errors import ConfigError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.secagg.wire import digest
from wardround.studies.model_file import with_models
from wardround.studies.study import MAX_STUDY_BYTES, Study, parse_disclosure, parse_study
from wardround.sums import Vocabulary

RULES_SUFFIX = ".disclosure.toml"
"""How the name of a file with a site's own rules ends, after the site's name."""


def read_text(path: Path, what: str, max_bytes: int) -> str:
    """The text of a file from outside.

    Args:
        path: of a regular file.
        what: names the file in messages ("study file").
        max_bytes: size over which it is not read.

    Raises:
        ConfigError: missing, no file, too large or not UTF-8.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the {what} in it")
    if not path.exists():
        raise ConfigError(f"there is no {what} {path}")
    if not path.is_file():
        raise ConfigError(f"{path} is not a regular file; save the {what} as one")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ConfigError(f"the {what} {path} has over {max_bytes} bytes, which is the limit")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the {what} {path} is not UTF-8 text (line {line}); save it as UTF-8") from None


def read_study(path: Path, vocabulary: Vocabulary) -> Study:
    """A study from its file, with the models it names. Raises `ConfigError`: the file, the place and the remedy."""
    text = read_text(path, "study file", MAX_STUDY_BYTES)
    try:
        return with_models(parse_study(text, vocabulary), path.parent)
    except ConfigError as error:
        raise ConfigError(f"the study file {path} is refused:\n{error}") from None


def site_rules(folder: Path, sites: Collection[str]) -> dict[str, DisclosureRules]:
    """The sites' own disclosure rules, from the files `SITE.disclosure.toml` beside the tables.

    Raises:
        ConfigError: a file of no site, or one that holds no rules.
    """
    rules = {}
    for path in sorted(folder.glob(f"*{RULES_SUFFIX}")):
        site = unicodedata.normalize("NFC", path.name.removesuffix(RULES_SUFFIX))
        if site not in sites:
            raise ConfigError(f"{path}: there is no table of a site {site!r} beside these rules; rename or remove them")
        try:
            rules[site] = parse_disclosure(read_text(path, "file of disclosure rules", MAX_STUDY_BYTES))
        except ConfigError as error:
            raise ConfigError(f"the disclosure rules {path} are refused:\n{error}") from None
    return rules


def contract_of(study: Study, study_path: Path) -> Contract | None:
    """The contract that a study names, read from beside it; None where it names none.

    Raises:
        ConfigError: the path leads out of the study file's folder, or holds no contract.
    """
    if study.contract is None:
        return None
    folder = study_path.resolve().parent
    path = (folder / study.contract).resolve()
    if not path.is_relative_to(folder):
        raise ConfigError(
            f"the study file {study_path} is refused:\nstudy.contract: {study.contract} leads out of the study "
            "file's folder; put the contract beside the study file"
        )
    return read_contract(path)


def study_digest(study_path: Path, contract: Contract) -> bytes:
    """What all keys of a study's secure sums are bound to: SHA-256 of its file and of its contract, 32 bytes."""
    text = read_text(study_path, "study file", MAX_STUDY_BYTES)
    return digest("study", text.encode(), contract_text(contract).encode())
