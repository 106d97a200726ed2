"""Ways to look for a better version, behind one seam: `Algorithm.search(context)`."""

from sidejudge_server.optimization.algorithms.algorithm import Algorithm
from sidejudge_server.optimization.algorithms.context import SearchContext
from sidejudge_server.optimization.algorithms.miprov2 import MIPROv2Search

__all__ = ["Algorithm", "MIPROv2Search", "SearchContext"]
