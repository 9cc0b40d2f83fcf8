"""LoRA adapters: reading files of any convention, matching them to a model, making synthetic ones."""

from pytest_loraperf.lora.adapter import Adapter, AdapterSource, LoraLayer, parse_source, read_adapter
from pytest_loraperf.lora.match import Match, linear_shapes, lora_state_dict, match_adapter
from pytest_loraperf.lora.synthetic import weight_norms, write_synthetic_adapter

__all__ = [
    "Adapter",
    "AdapterSource",
    "LoraLayer",
    "Match",
    "linear_shapes",
    "lora_state_dict",
    "match_adapter",
    "parse_source",
    "read_adapter",
    "weight_norms",
    "write_synthetic_adapter",
]
