"""docs/openapi.json is what the sidecar takes and answers."""

import http.client
import json
from pathlib import Path

import jsonschema
import pytest

from sidejudge_server.api.server import SERVICES
from tests.stand_in import running_stand_in
from tests.support.server import running_server, settings_for

DOCUMENT = json.loads(
    (Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8")
)
ITEM = {
    "judge": "judges/safety",
    "artifactInput": {"artifact": "p(yes)=0.9", "context": "Asked."},
    "labels": {"team": "a"},
    "nSamples": 2,
}


def validate(schema, document):
    jsonschema.Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]}
    ).validate(document)


def references(node):
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_method_is_there_and_every_reference_leads_somewhere():
    named = {path.split("/")[1] for path in DOCUMENT["paths"]}
    assert named == set(SERVICES)
    schemas = DOCUMENT["components"]["schemas"]
    found = set(references(DOCUMENT))
    assert found
    assert {ref.removeprefix("#/components/schemas/") for ref in found} <= set(schemas)
    operations = [path["post"]["operationId"] for path in DOCUMENT["paths"].values()]
    assert len(set(operations)) == len(operations)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sidejudge.v1.EvaluationService/Evaluate", ITEM),
        ("/sidejudge.v1.JudgeService/ListJudges", {"pageSize": 3}),
        ("/sidejudge.v1.EvaluationService/ListEvaluations", {}),
        ("/sidejudge.v1.TrustService/GetJudgeReport", {"name": "judges/safety"}),
        ("/sidejudge.v1.EvaluationService/Evaluate", {"judge": "judges/none"}),
    ],
)
def test_requests_answers_and_errors_are_as_described(tmp_path, path, body):
    operation = DOCUMENT["paths"][path]["post"]
    validate(operation["requestBody"]["content"]["application/json"]["schema"], body)
    with (
        running_stand_in() as lm,
        running_server(
            settings_for(
                tmp_path,
                lm_base_url=lm.base_url,
                server={"http_address": "127.0.0.1:0"},
            )
        ) as server,
    ):
        host, _, port = server.application.http_address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, body=json.dumps(body), headers=headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
    status = "200" if answer.status == 200 else "default"
    content = operation["responses"][status]["content"]["application/json"]
    validate(content["schema"], document)


def test_what_is_no_field_is_no_request():
    operation = DOCUMENT["paths"]["/sidejudge.v1.EvaluationService/Evaluate"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        validate(schema, {**ITEM, "colour": "red"})
