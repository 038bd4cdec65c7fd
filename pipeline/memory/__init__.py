"""What outlives a media process: calls, kept in Redis by writing behind, so that no call waits for it."""

from pipeline.memory.memory import CallMemory, Memory, MemoryUnavailable
from pipeline.memory.own_server import OwnRedis, RedisImpossible
from pipeline.memory.stored import Remembered

__all__ = ["CallMemory", "Memory", "MemoryUnavailable", "OwnRedis", "RedisImpossible", "Remembered"]
