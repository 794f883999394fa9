"""Tests of bijections and flows for your own test suite; a failure is one sentence."""

from kappaflow.testing.bases import check_base
from kappaflow.testing.bijections import check_bijection
from kappaflow.testing.contract import ContractError
from kappaflow.testing.flows import check_flow
from kappaflow.testing.healthy import assert_healthy

__all__ = ["ContractError", "assert_healthy", "check_base", "check_bijection", "check_flow"]
