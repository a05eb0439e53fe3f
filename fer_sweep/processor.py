"""What Linux says of this host's processor."""

from pathlib import Path

BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Instructions that multiply bf16 matrices."""


def processor_name() -> str | None:
    """The name of the processor; None where the kernel gives none, as outside Linux."""
    return _cpuinfo().get("model name")


def bf16_flags() -> list[str]:
    """Those of BF16_FLAGS that this processor has."""
    flags = _cpuinfo().get("flags", "").split()
    return [flag for flag in BF16_FLAGS if flag in flags]


def _cpuinfo() -> dict[str, str]:
    """The kernel's lines about one core, by name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
