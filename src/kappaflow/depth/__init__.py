"""How deep a flow has to be.

prune    the shallowest flow within a tolerance, by removing layers
"""

from kappaflow.depth.prune import PrunedFlow, PruneTrial, prune

__all__ = ["PruneTrial", "PrunedFlow", "prune"]
