"""Who holds an item, and what a label means for those who do."""

from datetime import UTC, datetime, timedelta

from sidejudge_server.review.claims import ClaimBook, ClaimOutcome
from sidejudge_storage import ReviewClaimRecord

NOW = datetime(2026, 8, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=16)


def claim(annotator="ann", evaluation_id="e1", minutes=15):
    return ReviewClaimRecord(
        f"{evaluation_id}-{annotator}",
        evaluation_id,
        "safety",
        annotator,
        NOW,
        NOW + timedelta(minutes=minutes),
    )


def book(*claims):
    made = ClaimBook()
    made.put(claims)
    return made


def test_a_claim_holds_until_it_expires():
    made = book(claim())

    assert made.holding("e1", NOW) == [claim()]
    assert made.holding("e1", LATER) == []
    assert list(made.held("safety", NOW)) == [claim()]
    assert list(made.held("other", NOW)) == []


def test_a_label_in_time_ends_the_claim():
    made = book(claim())
    made.labelled("e1", "ann", NOW)

    assert made.holding("e1", NOW) == []
    assert made.find("e1", "ann") is None
    assert made.outcome("e1", "ann", LATER) is ClaimOutcome.HELD


def test_a_late_label_says_that_the_claim_had_expired():
    made = book(claim())
    made.labelled("e1", "ann", LATER)

    assert made.outcome("e1", "ann", LATER) is ClaimOutcome.EXPIRED


def test_a_label_of_somebody_else_leaves_the_claim_alone():
    made = book(claim())
    made.labelled("e1", "ben", NOW)

    assert made.outcome("e1", "ben", NOW) is ClaimOutcome.HELD_BY_ANOTHER
    assert made.holding("e1", NOW) == [claim()]
    assert made.outcome("e1", "ben", LATER) is ClaimOutcome.NONE
    assert made.outcome("e1", "", NOW) is ClaimOutcome.NONE
    assert made.outcome("e2", "ben", NOW) is ClaimOutcome.NONE


def test_claims_that_expired_long_ago_are_forgotten():
    made = book(claim(), claim(evaluation_id="e2", minutes=30 * 60))
    made.prune(NOW + timedelta(hours=25))

    assert made.find("e1", "ann") is None
    assert made.find("e2", "ann") is not None
