"""A language model that is not one: deterministic answers behind a real HTTP wire."""

from tests.stand_in.server import StandIn, running_stand_in

__all__ = ["StandIn", "running_stand_in"]
