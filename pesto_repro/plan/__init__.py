"""Pure: a lock and the project's own files become a plan, the steps that make each layer and the image's recipe."""

from pesto_repro.plan.grouping import group
from pesto_repro.plan.make import Plan, Tree, TreeFile, make_plan
from pesto_repro.plan.step import ASSEMBLY_VERSION, Pinned, Step

__all__ = ["ASSEMBLY_VERSION", "Pinned", "Plan", "Step", "Tree", "TreeFile", "group", "make_plan"]
