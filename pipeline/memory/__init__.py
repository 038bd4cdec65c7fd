"""What outlives a media process: calls, kept in Redis by writing behind, so that no call waits for it."""

from pipeline.memory.archive import Archive
from pipeline.memory.client import MemoryUnavailable
from pipeline.memory.memory import CallMemory, Memory
from pipeline.memory.own_server import OwnRedis, RedisImpossible
from pipeline.memory.stored import Remembered
from pipeline.memory.vectors import VectorStore
from pipeline.memory.visit import visiting
from pipeline.memory.voices import VoiceStore

__all__ = [
    "Archive",
    "CallMemory",
    "Memory",
    "MemoryUnavailable",
    "OwnRedis",
    "RedisImpossible",
    "Remembered",
    "VectorStore",
    "VoiceStore",
    "visiting",
]
