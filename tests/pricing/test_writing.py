"""Documents are written as YAML that people read, and that reads back as the same document."""

from typing import Any

from hypothesis import given

from ducto_redis.pricing import PricingDocument
from ducto_redis.pricing.writing import to_yaml
from tests.pricing.documents import documents
from tests.searching import examples


@given(documents())
@examples(40, long=1500)
def test_reads_back_as_the_same_document(values: dict[str, Any]) -> None:
    """Whatever names, texts and numbers a document holds, its YAML and its JSON read back as an equal document."""
    document = PricingDocument.from_dict(values)
    assert PricingDocument.from_yaml(to_yaml(document)) == document
    assert PricingDocument.from_json(document.to_json()) == document
    assert to_yaml(PricingDocument.from_yaml(to_yaml(document))) == to_yaml(document)


def test_how_it_looks() -> None:
    """Sections stand in the order of the documentation, nothing stands at its default, and every text is in quotes."""
    document = PricingDocument.from_dict(
        {
            "plans": {
                "pro": {
                    "features": {"chat": True, "tags": ["a", "b"]},
                    "spend_caps": [{"window": "day", "limit": 7}],
                    "name": "Pro",
                }
            },
            "fixed": {"daily report": 2.50},
            "models": {"yes": "1", "gpt-4o": 'input_tokens if model == "a" else 2'},
            "measures": ["pages"],
        }
    )
    assert to_yaml(document) == (
        "version: 1\n"
        'measures: ["pages"]\n'
        "models:\n"
        '  gpt-4o: "input_tokens if model == \\"a\\" else 2"\n'
        '  "yes": "1"\n'
        "fixed:\n"
        '  "daily report": 2.5\n'
        "plans:\n"
        "  pro:\n"
        '    id: "pro"\n'
        '    name: "Pro"\n'
        "    features:\n"
        "      chat: true\n"
        '      tags: ["a", "b"]\n'
        "    spend_caps:\n"
        '      - {limit: 7, window: "day"}\n'
    )
