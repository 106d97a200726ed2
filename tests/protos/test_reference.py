"""docs/api.md says all that the protos say, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from sidejudge.v1 import evaluation_service_pb2, jury_service_pb2, trust_service_pb2

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module", [evaluation_service_pb2, jury_service_pb2, trust_service_pb2]
)
def test_every_method_message_and_field_is_there(module):
    file = module.DESCRIPTOR
    for service in file.services_by_name.values():
        for method in service.methods:
            assert f"#### {service.name}.{method.name}\n" in TEXT
    for message in file.message_types_by_name.values():
        _, _, section = TEXT.partition(f"\n### {message.name}\n")
        section, _, _ = section.partition("\n### ")
        for field in message.fields:
            assert f"| `{field.name}` | " in section


def test_links_lead_to_headings():
    headings = {
        heading.lower().replace(".", "")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links
    assert not links - headings


def test_everything_has_a_comment():
    assert not re.findall(r"^\| `(\w+)` \| [^|]+ \|\s*\|$", TEXT, re.MULTILINE)[:3]
