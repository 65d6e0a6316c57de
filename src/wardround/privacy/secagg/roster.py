"""Who takes part in a study's secure sums, and under which terms: what people agree on before anything is sent.

The message manifest of `docs/protocol.md`, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wardround.privacy.secagg.keys import KEY_BYTES
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.wire import (
    COORDINATOR,
    DIGEST_BYTES,
    FRAME_BYTES,
    PROTOCOL_VERSION,
    Kind,
    Reader,
    Writer,
    check_length,
    digest,
)

MAX_SITES = 256
MAX_NAME_CHARACTERS = 200
_MAX_NAME_BYTES = 4 * MAX_NAME_CHARACTERS
_FIXED_BYTES = FRAME_BYTES + 1 + DIGEST_BYTES + KEY_BYTES + 4 * 2 + 2
MAX_MANIFEST_BYTES = _FIXED_BYTES + MAX_SITES * (2 + _MAX_NAME_BYTES + KEY_BYTES)


@dataclass(frozen=True, slots=True)
class RosterSite:
    """One site of a manifest: its name and its pinned Ed25519 key.

    Args:
        name: 1 to 200 printable characters; never "coordinator", which is who an error means by it.
        identity: 32 bytes.

    Raises:
        ValueError: one of them breaks these rules.
    """

    name: str
    identity: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= MAX_NAME_CHARACTERS or not self.name.isprintable():
            allowed = f"1 to {MAX_NAME_CHARACTERS} printable characters"
            raise ValueError(f"a site's name must have {allowed}, got {self.name!r:.220}")
        if self.name == COORDINATOR:
            raise ValueError(f"a site may not be called {COORDINATOR!r}; give it another name")
        check_length(f"the identity key of site {self.name!r}", self.identity, KEY_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A study's sites with their pinned keys, its coordinator, and its terms; every site signs it.

    Args:
        study_digest: the study's digest, 32 bytes.
        coordinator: the coordinator's Ed25519 key, 32 bytes.
        terms: the protocol's terms, for as many sites as the roster has.
        roster: the sites; a site's index is its place here.

    Attributes:
        digest: 32 bytes, `M` of the protocol: what every signature is bound to.

    Raises:
        ValueError: a name or a key stands twice, or a length or number is wrong.

    Guarantees:
        a_manifest_has_one_form: what `from_bytes` accepts, `to_bytes` gives back byte for byte.
        every_field_is_in_the_digest: a change of any field changes the digest.
    """

    study_digest: bytes
    coordinator: bytes
    terms: Terms
    roster: tuple[RosterSite, ...]
    digest: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_length("study_digest", self.study_digest, DIGEST_BYTES)
        check_length("coordinator", self.coordinator, KEY_BYTES)
        if len(self.roster) != self.terms.num_sites:
            raise ValueError(f"roster must have terms.num_sites={self.terms.num_sites} sites, got {len(self.roster)}")
        if len({site.name for site in self.roster}) < len(self.roster):
            raise ValueError("every site of the roster must have a name of its own; one stands there twice")
        if len({self.coordinator, *(site.identity for site in self.roster)}) <= len(self.roster):
            raise ValueError("every site and the coordinator must have a key of its own; one stands there twice")
        object.__setattr__(self, "digest", digest("manifest", self.to_bytes()))

    def to_bytes(self) -> bytes:
        """The manifest's message."""
        terms = self.terms
        writer = Writer().u8(PROTOCOL_VERSION).raw(self.study_digest).raw(self.coordinator)
        for number in (terms.num_sites, terms.threshold, terms.minimum_survivors, terms.colluding_sites):
            writer.u16(number)
        writer.u8(terms.is_strict).u8(terms.allows_repeats)
        for site in self.roster:
            writer.sized16(site.name.encode()).raw(site.identity)
        return writer.finish(Kind.MANIFEST)

    @classmethod
    def from_bytes(cls, message: bytes | memoryview, *, peer: str = COORDINATOR) -> Manifest:
        """Read a manifest; whether people agreed on it is for the caller to know.

        Args:
            message: the message with its frame.
            peer: who gave it.

        Raises:
            MessageRefusedError: `malformed`.
        """
        reader = Reader(message, Kind.MANIFEST, peer, max_bytes=MAX_MANIFEST_BYTES)
        try:
            return cls._read(reader)
        except ValueError as error:
            raise reader.malformed(str(error)) from None

    @classmethod
    def _read(cls, reader: Reader) -> Manifest:
        version = reader.u8()
        if version != PROTOCOL_VERSION:
            raise reader.malformed(f"the manifest is of version {version}; write it anew with this version")
        study_digest, coordinator = reader.raw(DIGEST_BYTES), reader.raw(KEY_BYTES)
        terms = _read_terms(reader)
        roster = tuple(_read_site(reader) for _ in range(terms.num_sites))
        reader.end()
        return cls(study_digest=study_digest, coordinator=coordinator, terms=terms, roster=roster)

    def name_of(self, index: int) -> str:
        """The name of the site with this index.

        Raises:
            ValueError: there is no such site.
        """
        return self.roster[self._checked(index)].name

    def identity_of(self, index: int) -> bytes:
        """The pinned key (32 bytes) of the site with this index.

        Raises:
            ValueError: there is no such site.
        """
        return self.roster[self._checked(index)].identity

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.roster):
            raise ValueError(f"index must be in [0, {len(self.roster) - 1}], got index={index}")
        return index

    def index_of(self, name: str) -> int:
        """The index of the site of this name.

        Raises:
            ValueError: there is no such site.
        """
        for index, site in enumerate(self.roster):
            if site.name == name:
                return index
        raise ValueError(f"the manifest has no site {name!r}; it has {', '.join(site.name for site in self.roster)}")


def _read_terms(reader: Reader) -> Terms:
    num_sites, threshold, minimum_survivors, colluding_sites = (reader.u16() for _ in range(4))
    is_strict, allows_repeats = reader.u8(), reader.u8()
    if is_strict > 1:
        raise reader.malformed(f"whether it is strict must be 0 or 1, and it says {is_strict}")
    if allows_repeats > 1:
        raise reader.malformed(f"whether it allows repeats must be 0 or 1, and it says {allows_repeats}")
    return Terms(
        num_sites=num_sites,
        threshold=threshold,
        minimum_survivors=minimum_survivors,
        colluding_sites=colluding_sites,
        is_strict=bool(is_strict),
        allows_repeats=bool(allows_repeats),
    )


def _read_site(reader: Reader) -> RosterSite:
    try:
        name = reader.sized16(_MAX_NAME_BYTES).decode()
    except UnicodeDecodeError:
        raise reader.malformed("a site's name is not UTF-8") from None
    return RosterSite(name, reader.raw(KEY_BYTES))
