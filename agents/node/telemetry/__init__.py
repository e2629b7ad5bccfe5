"""What a node measures: its GPUs through NVML (or simulated, when asked for), and the host."""

from agents.node.telemetry.sampler import Sampler, memory
from agents.node.telemetry.source import GpuSource, open_gpus

__all__ = ["GpuSource", "Sampler", "memory", "open_gpus"]
