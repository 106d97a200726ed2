"""Candidates in shadow from domain to protobuf."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import judge_pb2
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.names import optimization_name, version_name
from sidejudge_server.optimization.shadow import (
    ACTIVE,
    DEPLOYED,
    DROPPED,
    PROVEN,
    overtaken,
)
from sidejudge_server.optimization.shadow_evidence import BAR
from sidejudge_storage import ShadowCandidateRecord

__all__ = ["shadow_message"]

_STATES: Final = {
    ACTIVE: judge_pb2.ShadowCandidate.STATE_ACTIVE,
    DEPLOYED: judge_pb2.ShadowCandidate.STATE_DEPLOYED,
    PROVEN: judge_pb2.ShadowCandidate.STATE_PROVEN,
    DROPPED: judge_pb2.ShadowCandidate.STATE_DROPPED,
}


def shadow_message(
    candidate: ShadowCandidateRecord, *, deployed_version: int
) -> judge_pb2.ShadowCandidate:
    """Return a candidate as message.

    Args:
        candidate: In whatever state.
        deployed_version: What serves: an active candidate that was compared with another version
            has been overtaken, also if that is not on disk yet.
    """
    state, reason = candidate.state, candidate.reason
    if state == ACTIVE:
        state, reason = overtaken(candidate, deployed_version) or (state, reason)
    return judge_pb2.ShadowCandidate(
        version=version_name(candidate.judge_id, candidate.version),
        optimization=optimization_name(candidate.optimization_id),
        wins=candidate.wins,
        losses=candidate.losses,
        pairs=candidate.pairs,
        e_value=candidate.e_value,
        bar=BAR,
        state=_STATES[state],
        update_time=timestamp(candidate.updated_at),
        baseline_version=version_name(candidate.judge_id, candidate.baseline_version),
        later_pairs=candidate.pairs - candidate.gate_pairs,
        reason=reason,
    )
