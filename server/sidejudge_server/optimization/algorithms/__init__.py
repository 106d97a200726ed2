"""Ways to look for a better version, behind one seam: `Algorithm.search(context)`."""

from sidejudge_server.optimization.algorithms.algorithm import Algorithm
from sidejudge_server.optimization.algorithms.catalogue import algorithm_for
from sidejudge_server.optimization.algorithms.context import SearchContext

__all__ = ["Algorithm", "SearchContext", "algorithm_for"]
