"""What a person can choose about one engine process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from model_runtime.protocol import GROUP_MS
from model_runtime.speaking.schedule import Schedule

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One engine: a checkpoint, where it listens, how much it takes on. Times in seconds, lengths in tokens.

    ``threads`` 0 chooses by size: one thread for a small model, because its kernels are too short to share
    out and the media process wants the other cores; torch's own default for a large one. The language model
    and token2wav each compute with so many. ``max_context`` 0 is the checkpoint's own limit. ``max_reply_s``
    bounds one spoken answer, ``max_text_tokens`` what may follow it (tool calls), ``max_thought_tokens`` what
    may go before it. ``prefill_tokens`` is the most that one unit of work prefills, so that a long prompt
    does not hold up the calls that are speaking. ``decode_batch`` is how many calls' next ids one step
    computes; 1 makes every call bit for bit what it would be alone, more makes many calls cheap and each the
    same up to rounding. ``speech_batch`` is the same for the chunks of codes that become sound in one pass.
    Both are chosen by the device if they are 0: a CPU is hardly quicker with many chunks, and whoever needs
    sound next waits for all of them. The memory for the pasts of ``max_sessions`` is held from the beginning;
    on a GPU ``max_context`` 0 is no more than fits there.
    ``chunks`` are how many codes (40 ms each) become sound at a time: the first, the second, ..., and the
    last again and again. ``like_reference`` is for measuring that: chunks are cut and joined as the reference
    implementation does, and a GPU renders them in full float32 and is given every kernel one by one.
    ``voices`` is a folder of voices beside the checkpoint's own, which may change while the engine runs.
    """

    checkpoint: str
    voices: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    socket: Path | None = None
    device: Device = "auto"
    dtype: str = ""
    threads: int = 0
    max_sessions: int = 8
    max_context: int = 0
    max_reply_s: float = 60.0
    max_text_tokens: int = 512
    max_thought_tokens: int = 256
    max_transcript_tokens: int = 128
    prefill_tokens: int = 512
    decode_batch: int = 0
    speech_batch: int = 0
    chunks: tuple[int, ...] = Schedule().chunks
    like_reference: bool = False
    slot_masking: bool | None = None  # None: what the checkpoint's card says
    audio_ring_s: float = 120.0
    warm_up: bool = True
    log_level: str = "INFO"

    @property
    def schedule(self) -> Schedule:
        """How codes are cut into chunks."""
        return Schedule.reference() if self.like_reference else Schedule(self.chunks)

    @property
    def max_groups(self) -> int:
        """The longest spoken answer, in groups of 160 ms."""
        return max(1, int(self.max_reply_s * 1000 / GROUP_MS))


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line. Exits with a usage message on nonsense, as argparse does."""
    default = Settings(checkpoint="")
    parser = argparse.ArgumentParser(
        prog="python -m model_runtime.engine", description="Serve one speech model to many calls at once."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="a checkpoint folder, or hf://owner/name")
    add("--voices", type=Path, metavar="DIR", help="a folder of voices beside the checkpoint's own")
    add("--host", default=default.host, help="address to listen on (default %(default)s)")
    add("--port", type=int, default=default.port, help="port, 0 for any free one (default %(default)s)")
    add("--socket", type=Path, help="listen on this unix socket instead of an address")
    add("--device", choices=("auto", "cpu", "cuda"), default=default.device)
    add(
        "--dtype",
        choices=("", "float32", "bfloat16", "float16"),
        default="",
        help="of the language model (default: float32 on a CPU, else the checkpoint's)",
    )
    add("--threads", type=int, default=0, help="CPU threads of the model (default: 1 for a small one)")
    add("--max-sessions", type=int, default=default.max_sessions, help="calls at once (default %(default)s)")
    add(
        "--max-context",
        type=int,
        default=0,
        help="tokens a session may hold (default: the checkpoint's limit)",
    )
    add("--max-reply", type=float, default=default.max_reply_s, help="longest spoken answer in seconds")
    add("--max-thought", type=int, default=default.max_thought_tokens, help="longest thought in tokens")
    add(
        "--decode-batch",
        type=int,
        default=default.decode_batch,
        help="calls decoded in one step; 1: no call depends on another's (default: 16 on a CPU, else all)",
    )
    add(
        "--speech-batch",
        type=int,
        default=default.speech_batch,
        help="calls whose speech is rendered in one pass (default: 2 on a CPU, 8 on a GPU)",
    )
    add(
        "--chunks",
        type=_chunks,
        default=default.chunks,
        metavar="N,N,...",
        help="audio codes of 40 ms rendered at a time: first, second, ..., every further "
        f"(default {','.join(map(str, default.chunks))})",
    )
    add(
        "--like-reference",
        action="store_true",
        help="25 codes at a time, full float32 and nothing recorded, as the reference implementation works",
    )
    add(
        "--slot-masking",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="draw text only in text slots and audio only in audio slots (default: as the checkpoint says)",
    )
    add(
        "--warm-up",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run once before the first call",
    )
    add("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    a = parser.parse_args(arguments)
    for name in ("port", "threads", "max_context", "max_thought", "decode_batch", "speech_batch"):
        if getattr(a, name) < 0:
            parser.error(f"--{name.replace('_', '-')} cannot be negative")
    for name in ("max_sessions", "max_reply"):
        if getattr(a, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be more than zero")
    return Settings(
        checkpoint=a.checkpoint,
        voices=a.voices,
        host=a.host,
        port=a.port,
        socket=a.socket,
        device=cast(Device, a.device),
        dtype=a.dtype,
        threads=a.threads,
        max_sessions=a.max_sessions,
        max_context=a.max_context,
        max_reply_s=a.max_reply,
        max_thought_tokens=a.max_thought,
        decode_batch=a.decode_batch,
        speech_batch=a.speech_batch,
        chunks=a.chunks,
        like_reference=a.like_reference,
        slot_masking=a.slot_masking,
        warm_up=a.warm_up,
        log_level=a.log_level,
    )


def _chunks(text: str) -> tuple[int, ...]:
    try:
        return Schedule(tuple(int(size) for size in text.split(","))).chunks
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers of codes, as in 8,12,25, not {text!r}") from None
