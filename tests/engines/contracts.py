"""Every engine's contract, by the engine's name, and the names of their pairs of servers."""

from __future__ import annotations

from tests.engines.contract_sglang import SGLANG
from tests.engines.contract_vllm import VLLM

CONTRACTS = {contract.engine: contract for contract in (VLLM, SGLANG)}
PAIRS = tuple(f"{contract.engine}:{profile}" for contract in CONTRACTS.values() for profile in contract.profiles)
