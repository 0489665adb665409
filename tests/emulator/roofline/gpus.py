# SPDX-License-Identifier: Apache-2.0
"""Peaks of the GPUs that roofline.py knows. Dense rates (no sparsity) of one GPU, in operations and bytes per second."""
from dataclasses import dataclass, replace

TERA, GIGA, MEBI = 1e12, 1e9, 2**20


@dataclass(frozen=True)
class Gpu:
    """Figures of a data sheet. A multiply-add is two operations."""

    name: str
    tensor_f16: float
    tensor_bf16: float
    tensor_tf32: float
    tensor_i8: float
    fp32: float
    fp64: float  # without tensor cores
    fp16: float  # packed f16 and bf16 without tensor cores; the lower of both
    bandwidth: float
    sms: int
    fp32_lanes: int  # per SM
    l2_bytes: int

    @property
    def clock(self):
        """Cycles per second at which the FP32 figure holds."""
        return self.fp32 / (2 * self.fp32_lanes * self.sms)


#: Sources of the figures, by GPU: (title, year, what was taken from it).
SOURCES = {
    "A100-SXM4-80GB": [
        ("NVIDIA A100 Tensor Core GPU, data sheet", 2021, "tensor, FP32, FP64 rates; 2,039 GB/s"),
        (
            "NVIDIA A100 Tensor Core GPU Architecture, white paper",
            2020,
            "108 SMs of 64 FP32 lanes; 40 MB L2; BF16 without tensor cores",
        ),
    ],
    "H100-SXM5-80GB": [
        ("NVIDIA H100 Tensor Core GPU, data sheet", 2023, "3.35 TB/s; rates printed with sparsity are halved"),
        (
            "NVIDIA H100 Tensor Core GPU Architecture, white paper",
            2022,
            "tensor, FP32, FP64, FP16 rates; 132 SMs of 128 FP32 lanes; 50 MB L2",
        ),
    ],
    "H200-SXM-141GB": [
        (
            "NVIDIA H200 Tensor Core GPU, data sheet",
            2024,
            "4.8 TB/s; all rates are those of the H100 SXM, whose chip it has",
        ),
        ("device query of an H200", 2026, "132 SMs, 60 MB L2"),
    ],
    "B200": [
        (
            "NVIDIA Blackwell, data sheet, column HGX B200",
            2025,
            "FP32, FP64, 7.7 TB/s; tensor rates are printed with sparsity and halved",
        ),
        ("CUDA device query of a B200, pull request 4002 of pytorch/ao", 2026, "148 SMs, 126.5 MB L2"),
        ("twice the FP32 rate, as on H100; the data sheet has no figure", 2025, "FP16 without tensor cores"),
    ],
}

H100 = Gpu(
    name="H100-SXM5-80GB",
    tensor_f16=989.4 * TERA,
    tensor_bf16=989.4 * TERA,
    tensor_tf32=494.7 * TERA,
    tensor_i8=1978.9 * TERA,
    fp32=66.9 * TERA,
    fp64=33.5 * TERA,
    fp16=133.8 * TERA,
    bandwidth=3350 * GIGA,
    sms=132,
    fp32_lanes=128,
    l2_bytes=50 * MEBI,
)

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="A100-SXM4-80GB",
            tensor_f16=312 * TERA,
            tensor_bf16=312 * TERA,
            tensor_tf32=156 * TERA,
            tensor_i8=624 * TERA,
            fp32=19.5 * TERA,
            fp64=9.7 * TERA,
            fp16=39 * TERA,
            bandwidth=2039 * GIGA,
            sms=108,
            fp32_lanes=64,
            l2_bytes=40 * MEBI,
        ),
        H100,
        replace(H100, name="H200-SXM-141GB", bandwidth=4800 * GIGA, l2_bytes=60 * MEBI),
        Gpu(
            name="B200",
            tensor_f16=2250 * TERA,
            tensor_bf16=2250 * TERA,
            tensor_tf32=1100 * TERA,
            tensor_i8=4500 * TERA,
            fp32=75 * TERA,
            fp64=37 * TERA,
            fp16=150 * TERA,
            bandwidth=7700 * GIGA,
            sms=148,
            fp32_lanes=128,
            l2_bytes=126 * MEBI,
        ),
    )
}
