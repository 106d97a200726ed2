"""What one claim may bring."""

from datetime import UTC, datetime

from sidejudge_server.review.queue import ReviewEntry, _within_size
from sidejudge_storage import QueuedItem, ReviewItemRecord
from tests.storage import samples


def entry(text):
    evaluation = samples.evaluation(input_json=text)
    now = datetime.now(UTC)
    item = ReviewItemRecord(
        evaluation.evaluation_id, "brevity", 1, 1, "ranked", True, 1, 0.5, 0.5, "chance", now
    )  # fmt: skip
    return ReviewEntry(QueuedItem(item, ()), evaluation, ())


def test_a_claim_ends_where_its_texts_would_outgrow_a_message():
    """Sizes are those of bytes, and one item comes however large it is."""
    large = [entry("ü" * 1_000_000) for _ in range(3)]
    giant = entry("x" * 5_000_000)

    assert _within_size(large) == large[:1]
    assert _within_size([giant, large[0]]) == [giant]
    assert _within_size([]) == []
