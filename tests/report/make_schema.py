"""Writes the published schema: `python -m tests.report.make_schema`.

Once a version of it is released, its digest in `schema_digests.json` stands: a change then needs a new
`OUTCOME_VERSION`, and `--unreleased` is for versions that nobody has yet.
"""

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path

import wardround.report
from wardround.report.outcome import OUTCOME_VERSION
from wardround.report.schema import outcome_schema
from wardround.studies.extensions import BUILT_IN
from wardround.sums import Vocabulary

SHIPPED = Path(wardround.report.__file__).parent / "published" / "schema" / f"outcome-{OUTCOME_VERSION}.json"
DIGESTS = Path(__file__).parent / "schema_digests.json"


def built_in() -> Vocabulary:
    return Vocabulary.of_modules([import_module(name) for name in BUILT_IN])


def schema_text() -> str:
    return json.dumps(outcome_schema(built_in()), indent=1, ensure_ascii=False) + "\n"


def digest_of(text: str) -> str:
    """Of the form alone: other words in a description do not make it another version."""
    return hashlib.sha256(json.dumps(_form(json.loads(text)), sort_keys=True).encode("utf-8")).hexdigest()


def _form(schema: object) -> object:
    if isinstance(schema, list):
        return [_form(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _form(item) for key, item in schema.items() if key != "description" or not isinstance(item, str)}


def digests() -> dict[str, str]:
    return json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.exists() else {}


def main() -> int:
    text, known, version = schema_text(), digests(), str(OUTCOME_VERSION)
    if known.get(version, digest_of(text)) != digest_of(text) and "--unreleased" not in sys.argv:
        sys.stderr.write(
            f"version {version} is another schema; raise OUTCOME_VERSION (or, before its release, --unreleased)\n"
        )
        return 1
    SHIPPED.parent.mkdir(exist_ok=True, parents=True)
    SHIPPED.write_text(text, encoding="utf-8")
    DIGESTS.write_text(json.dumps({**known, version: digest_of(text)}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
