"""JSON over HTTP: the same answers and errors as gRPC, and nothing for web pages."""

import http.client
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sidejudge.v1 import judge_service_pb2
from sidejudge_server.application import Application
from sidejudge_server.config import ConfigError
from tests.stand_in import running_stand_in
from tests.support.calls import new_uuid
from tests.support.experiments import add_candidate, create, start
from tests.support.server import running_server, server_process, settings_for

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
EVALUATE = "/sidejudge.v1.EvaluationService/Evaluate"
BATCH = "/sidejudge.v1.EvaluationService/BatchEvaluate"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture(scope="module")
def server(lm, tmp_path_factory):
    settings = settings_for(
        tmp_path_factory.mktemp("server"),
        lm_base_url=lm.base_url,
        server={"http_address": "127.0.0.1:0", "max_message_bytes": 1_000_000},
    )
    with running_server(settings) as running:
        yield running


@pytest.fixture
def post(server):
    """Return a function that makes a request and returns status, headers and text."""
    host, _, port = server.application.http_address.rpartition(":")

    def make(path, body, *, method="POST", headers=JSON):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        text = body if isinstance(body, bytes | str) else json.dumps(body)
        try:
            connection.request(method, path, body=text, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    return make


def item(text="p(yes)=0.9 fine", **fields):
    return {
        "judge": "judges/safety",
        "omitReasoning": True,
        "artifactInput": {"artifact": text},
        **fields,
    }


def events(text):
    """Return name and data of each event."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found


def reason(document):
    (info,) = [d for d in document["error"]["details"] if "reason" in d]
    return info["reason"]


def test_an_item_is_judged_as_over_grpc(post, server):
    status, headers, text = post(EVALUATE, item(subject="Zo\u00eb"))
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert headers["x-request-id"]
    evaluation = json.loads(text)["evaluation"]
    assert evaluation["judgment"]["verdict"] == "VERDICT_PASS"
    assert evaluation["subject"] == "Zo\u00eb"
    status, _, text = post(
        "/sidejudge.v1.EvaluationService/GetEvaluation", {"name": evaluation["name"]}
    )
    assert json.loads(text)["evaluation"] == evaluation
    _, _, text = post("/sidejudge.v1.JudgeService/ListJudges", {"page_size": 2})
    listed = server.client.judges.ListJudges(
        judge_service_pb2.ListJudgesRequest(page_size=2)
    )
    assert [j["name"] for j in json.loads(text)["judges"]] == [
        judge.name for judge in listed.judges
    ]


def test_a_repeat_with_a_request_id_is_the_first_answer(post):
    request = item(requestId=new_uuid())
    assert post(EVALUATE, request)[2] == post(EVALUATE, request)[2]


def test_a_batch_comes_as_events_with_errors_beside_answers(post):
    requests = [item("p(yes)=0.9"), item(judge="judges/none"), item("p(yes)=0.1")]
    status, headers, text = post(BATCH, {"requests": requests})
    assert status == 200
    assert headers["Content-Type"] == "text/event-stream"
    found = events(text)
    assert found[-1] == ("end", {})
    by_index = {data.get("index", 0): data for _, data in found[:-1]}
    assert by_index[0]["evaluation"]["judgment"]["verdict"] == "VERDICT_PASS"
    assert "JUDGE_NOT_FOUND" in json.dumps(by_index[1]["error"])
    assert by_index[2]["evaluation"]["judgment"]["verdict"] == "VERDICT_FAIL"


def test_a_stream_that_fails_at_once_has_a_status(post):
    status, _, text = post(BATCH, {"requests": []})
    assert status == 400
    assert reason(json.loads(text)) == "INVALID_REQUEST"


def test_a_stream_of_requests_is_an_array(post):
    path = "/sidejudge.v1.FeedbackService/ImportTrainingExamples"
    status, _, text = post(path, {"judge": "judges/safety"})
    assert status == 400
    assert "JSON array" in text
    status, _, text = post(path, [])
    assert status == 400
    assert reason(json.loads(text)) == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        (EVALUATE, item(judge="judges/none"), 404, "JUDGE_NOT_FOUND"),
        (EVALUATE, item(judge="none"), 400, "INVALID_REQUEST"),
        (EVALUATE, item(judge="judges/rubric"), 400, "INPUT_KIND_MISMATCH"),
        (
            "/sidejudge.v1.JudgeService/DeleteJudge",
            {"name": "judges/safety"},
            400,
            "JUDGE_BUILT_IN",
        ),
    ],
)
def test_errors_have_the_reason_of_grpc_and_a_status(post, path, body, status, why):
    got, _, text = post(path, body)
    document = json.loads(text)
    assert got == document["error"]["code"] == status
    assert reason(document) == why
    assert document["error"]["message"]


def test_all_violations_are_named(post):
    _, _, text = post(EVALUATE, {"judge": "x", "labels": {"": ""}})
    (bad,) = [d for d in json.loads(text)["error"]["details"] if "fieldViolations" in d]
    assert {"judge", "input"} <= {v["field"] for v in bad["fieldViolations"]}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("{", "is not the JSON of sidejudge.v1.EvaluateRequest"),
        ("[]", "a request is a JSON object"),
        (json.dumps({"colour": 1}), "colour"),
        (json.dumps({"nSamples": "many"}), "nSamples"),
        (b"\xff", "is not the JSON"),
        ('{"labels":' * 5000, "is not the JSON"),
    ],
)
def test_a_body_that_is_no_request_is_refused(post, body, part):
    status, _, text = post(EVALUATE, body)
    assert status == 400
    assert part in json.loads(text)["error"]["message"]


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/sidejudge.v1.EvaluationService/None", {}, 404),
        ("/grpc.health.v1.Health/Check", {}, 404),
        (EVALUATE, {"method": "GET"}, 405),
        (EVALUATE, {"headers": {"Content-Type": "text/plain"}}, 415),
        (EVALUATE, {"headers": {**JSON, "Host": "evil.example:50511"}}, 421),
        (EVALUATE, {"headers": {**JSON, "Connect-Timeout-Ms": "soon"}}, 400),
    ],
)
def test_what_is_no_call_does_not_become_one(post, lm, path, options, status):
    calls = len(lm.requests)
    got, headers, text = post(path, item(), **options)
    assert got == status
    assert json.loads(text)["error"]["code"] == status
    assert "Access-Control-Allow-Origin" not in headers
    assert len(lm.requests) == calls


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9", "[::1]"])
def test_names_of_this_machine_are_let_in(post, host):
    assert post(EVALUATE, item(), headers={**JSON, "Host": host})[0] == 200


def test_a_deadline_is_that_of_the_call(post):
    headers = {**JSON, "Connect-Timeout-Ms": "0"}
    status, _, text = post(EVALUATE, item(), headers=headers)
    assert status == 504
    assert json.loads(text)["error"]["status"] == "DEADLINE_EXCEEDED"


def test_a_body_over_the_limit_is_refused_and_one_below_it_is_not(post):
    status, _, text = post(EVALUATE, item("x" * 2_100_000))
    assert status == 413
    assert "larger than" in text
    status, _, text = post(EVALUATE, item("x" * 1_500_000))
    # The limit of a message, which the gRPC server holds.
    assert (status, json.loads(text)["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert post(EVALUATE, item("p(yes)=0.9" + " x" * 50_000))[0] == 200


def test_a_refusal_says_when_to_come_back(lm, tmp_path):
    settings = settings_for(
        tmp_path,
        lm_base_url=lm.base_url,
        model="rate-limited",
        server={"http_address": f"unix:{tmp_path}/http.sock"},
    )
    with running_server(settings):
        text = subprocess.run(  # noqa: S603 - arguments are ours
            [  # noqa: S607 - curl of the machine
                "curl", "-sS", "-i", "--unix-socket", f"{tmp_path}/http.sock",
                "-H", "Content-Type: application/json", "-d", json.dumps(item()),
                f"http://sidecar{EVALUATE}",
            ],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
    assert "429" in text.splitlines()[0]
    assert re.search(r"^Retry-After: \d+", text, re.MULTILINE)
    assert "LM_RATE_LIMITED" in text


def test_nothing_listens_unless_it_is_configured(lm, tmp_path):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    with running_server(settings) as running:
        assert running.application.http_address == ""


@pytest.mark.parametrize("address", ["0.0.0.0:0", "nowhere", "unix:"])
def test_addresses_that_others_reach_are_refused(lm, tmp_path, address, server):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    wrong = replace(settings, server=replace(settings.server, http_address=address))
    application = Application(wrong)
    with pytest.raises(ConfigError, match=r"server\.http_address"):
        server.run(application.start())


def test_a_port_that_is_taken_is_named_and_nothing_stays_open(lm, tmp_path, server):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    taken = replace(
        settings,
        server=replace(settings.server, http_address=server.application.http_address),
    )
    with pytest.raises(ConfigError, match="cannot be listened on"):
        server.run(Application(taken).start())
    # The database is closed again.
    with running_server(settings) as running:
        assert running.address


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_the_examples_of_the_guide_run_as_written(lm, tmp_path):
    """With another port, which the operating system gives."""
    commands = [
        block
        for block in re.findall(r"```sh\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
        if block.startswith("curl")
    ]
    assert len(commands) == 3
    environment = {"SIDEJUDGE_HTTP_ADDRESS": "127.0.0.1:0"}
    with server_process(
        tmp_path, lm_base_url=lm.base_url, environment=environment
    ) as process:
        address = process.ready["http_address"]
        outputs = [
            subprocess.run(  # noqa: S603 - from our own guide
                ["/bin/sh", "-c", command.replace("127.0.0.1:50511", address)],
                capture_output=True, text=True, check=True, timeout=60,
            ).stdout
            for command in commands
        ]  # fmt: skip
    assert "verdict" in outputs[0]
    assert "nextPageToken" in outputs[1]
    assert outputs[2].count("data: {") == 3
    assert "event: end" in outputs[2]


def test_a_watch_sends_its_tokens_as_ids_and_goes_on_from_one(post, server):
    client = server.client
    add_candidate(client)
    name = start(client, create(client).name).name
    path = "/sidejudge.v1.ExperimentService/WatchExperiment"
    headers = {**JSON, "Connect-Timeout-Ms": "1500"}
    status, _, text = post(path, {"name": name, "fromStart": True}, headers=headers)
    assert status == 200
    (*seen, (last, error)) = events(text)
    assert (last, error["error"]["status"]) == ("error", "DEADLINE_EXCEEDED")
    started = [data["event"] for _, data in seen if "started" in data["event"]]
    assert len(started) == 1
    ids = re.findall(r"^id: (.+)$", text, re.MULTILINE)
    assert started[0]["resumeToken"] in ids
    body = {"name": name, "resumeToken": ids[-1]}
    _, _, rest = post(path, body, headers=headers)
    assert not [data for _, data in events(rest) if "started" in data.get("event", {})]
