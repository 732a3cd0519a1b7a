"""The GPUs that can be planned for, from their makers' data sheets.

Memory is what CUDA reports as the total of the device, in GiB; bandwidth in GB/s (10^9 bytes). Only
GPUs with bfloat16 are here: the model needs it.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Gpu:
    """One device: `memory` in GiB, `bandwidth` in GB/s."""

    name: str
    memory: float
    bandwidth: float


GPUS = {
    "l4": Gpu("L4", 22.0, 300),
    "a10": Gpu("A10", 22.1, 600),
    "rtx3090": Gpu("GeForce RTX 3090", 23.7, 936),
    "rtx4090": Gpu("GeForce RTX 4090", 23.6, 1008),
    "rtx5090": Gpu("GeForce RTX 5090", 31.4, 1792),
    "a100-40g": Gpu("A100 40 GB", 39.4, 1555),
    "l40s": Gpu("L40S", 44.4, 864),
    "a100": Gpu("A100 80 GB", 79.2, 2039),
    "h100": Gpu("H100 SXM", 79.2, 3350),
    "h200": Gpu("H200", 139.8, 4800),
    "b200": Gpu("B200", 178.3, 8000),
}
