"""Flows, and the recipes that assemble them: functions, never subclasses."""

from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.nice import nice
from kappaflow.flows.real_nvp import real_nvp

__all__ = ["Flow", "StandardNormal", "nice", "real_nvp"]
