"""Nothing that was acknowledged is lost, however often the server is killed."""

import queue
import random
import threading
from contextlib import ExitStack

import grpc
import pytest

import sidejudge
from sidejudge.v1 import evaluation_service_pb2, feedback_service_pb2, judge_pb2
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, correction, new_uuid
from tests.support.server import server_process

pytestmark = pytest.mark.slow

KILLS = 20
CALLERS = 16
SEED = 9


class Caller(threading.Thread):
    """Judges and corrects until told to stop, and remembers what was acknowledged.

    A call that fails is repeated with the same request_id against the next server.
    """

    def __init__(self, number, crowd):
        super().__init__(name=f"caller-{number}", daemon=True)
        self.number = number
        self.crowd = crowd
        self.evaluations = {}
        self.feedback = {}
        self.repeated = 0

    def run(self):
        """Judge and correct."""
        count = 0
        while not self.crowd.stopped.is_set():
            count += 1
            text = f"p(yes)=0.9 caller {self.number} item {count}"
            request = artifact(text, omit_reasoning=True, request_id=new_uuid())
            answer = self.insist(
                lambda c, r=request: c.evaluation.Evaluate(r, timeout=20)
            )
            if answer is None:
                return
            name = answer.evaluation.name
            self.evaluations[request.request_id] = (name, text)
            wanted = correction(name, author=str(self.number), request_id=new_uuid())
            said = self.insist(
                lambda c, r=wanted: c.feedback.RecordFeedback(r, timeout=20)
            )
            if said is None:
                return
            self.feedback[wanted.request_id] = (said.feedback.name, name)
            self.crowd.acknowledged.put(1)

    def insist(self, call):
        """Make a call until it is answered; None when the crowd is stopped meanwhile."""
        while True:
            client = self.crowd.wait_for_client()
            if client is None:
                return None
            try:
                return call(client)
            except (grpc.RpcError, ValueError):  # ValueError: the channel was closed
                self.repeated += 1
                self.crowd.lost(client)


class Crowd:
    """All callers and the server they talk to at the moment."""

    def __init__(self):
        self.stopped = threading.Event()
        self.acknowledged = queue.Queue()
        self._client = None
        self._changed = threading.Condition()

    def serve(self, client):
        """Point the callers to a server, None for none."""
        with self._changed:
            self._client = client
            self._changed.notify_all()

    def lost(self, client):
        """Note that a server does not answer any more."""
        with self._changed:
            if self._client is client:
                self._client = None

    def wait_for_client(self):
        """Return the client of the server that runs; None once the crowd is stopped."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._client is not None or self.stopped.is_set(), 60
            )
            return self._client

    def stop(self):
        """End all callers after their current call."""
        self.stopped.set()
        self.serve(None)


def plain_client(address):
    """Return a client without retries of its own: the callers retry."""
    options = [("grpc.enable_retries", 0)]
    return sidejudge.Client(grpc.insecure_channel(address, options=options))


def listed(client, field, method, request):
    """Return all items of a paged list."""
    items = []
    while True:
        page = method(request, timeout=60)
        items += getattr(page, field)
        if not page.next_page_token:
            return items
        request.page_token = page.next_page_token


def test_twenty_kills_lose_nothing_that_was_acknowledged(tmp_path):
    """Every answered evaluation and correction is there once, with its content."""
    dice = random.Random(SEED)  # noqa: S311 - moments of kills, no secret
    crowd = Crowd()
    callers = [Caller(number, crowd) for number in range(CALLERS)]
    with running_stand_in(record=False) as stand_in:
        for kill in range(KILLS):
            with ExitStack() as stack:
                server = stack.enter_context(
                    server_process(tmp_path, lm_base_url=stand_in.base_url)
                )
                client = stack.enter_context(plain_client(server.address))
                crowd.serve(client)
                if kill == 0:
                    for caller in callers:
                        caller.start()
                for _ in range(dice.randrange(20, 80)):
                    crowd.acknowledged.get(timeout=60)
                server.kill()
                crowd.lost(client)
        crowd.stop()
        for caller in callers:
            caller.join(60)
        with (
            server_process(tmp_path, lm_base_url=stand_in.base_url) as server,
            sidejudge.connect(server.address) as client,
        ):
            evaluations = listed(
                client,
                "evaluations",
                client.evaluation.ListEvaluations,
                evaluation_service_pb2.ListEvaluationsRequest(page_size=1000),
            )
            feedback = listed(
                client,
                "feedback",
                client.feedback.ListFeedback,
                feedback_service_pb2.ListFeedbackRequest(page_size=1000),
            )
            training_set = client.feedback.GetTrainingSet(
                feedback_service_pb2.GetTrainingSetRequest(judge="judges/safety"),
                timeout=60,
            ).training_set
    stored = {e.name: e.artifact_input.artifact for e in evaluations}
    corrected = {f.name: f.evaluation for f in feedback}
    acknowledged = [pair for c in callers for pair in c.evaluations.values()]
    said = [pair for c in callers for pair in c.feedback.values()]
    assert len(said) >= KILLS * 20
    assert sum(c.repeated for c in callers) >= KILLS
    assert [pair for pair in acknowledged if stored.get(pair[0]) != pair[1]] == []
    assert [pair for pair in said if corrected.get(pair[0]) != pair[1]] == []
    # No request was carried out twice: every item is stored at most once.
    assert len(set(stored.values())) == len(stored)
    assert len(set(corrected.values())) == len(corrected)
    # And every correction has become an example.
    assert training_set.example_count == len(corrected)
    assert {f.verdict for f in feedback} == {judge_pb2.VERDICT_FAIL}
