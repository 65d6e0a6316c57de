"""Reading and writing a contract's file."""

from __future__ import annotations

from pathlib import Path

from wardround.data.contract import Contract
from wardround.data.contract_text import MAX_CONTRACT_BYTES, contract_text, parse_contract
from wardround.errors import ConfigError, StoreError


def read_contract(path: str | Path) -> Contract:
    """The contract in a TOML file.

    Raises:
        ConfigError: no such file, too large, not UTF-8, or not a contract; names the file and every place.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such contract file; name a TOML file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONTRACT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > MAX_CONTRACT_BYTES:
        raise ConfigError(f"{path}: a contract has at most {MAX_CONTRACT_BYTES} bytes")
    try:
        # TOML knows two line ends; Python's own reading of text would change them within strings.
        return parse_contract(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"the contract {path} is refused:\n{error}") from None


def write_contract(path: str | Path, contract: Contract, notes: tuple[str, ...] = ()) -> None:
    """Write a contract as TOML, with notes as comments.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        Path(path).write_text(contract_text(contract, notes), encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from None
