"""Registers, spills, shared memory and instructions of the kernels of the exact loss, compiled without a GPU."""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

KERNELS = ("_count", "_look_up", "_multiply")
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
POINTERS = {
    "points": "fp32", "images": "i32", "scenes": "i32", "radii": "fp32", "kinds": "i32", "listed": "i32",
    "before": "i32", "totals": "i64", "table": "fp32",
}  # fmt: skip
NUMBERS = {"scale": "fp32", "margin": "fp32"}  # other numbers are int32
DIVISIBLE = ("dims", "stride", "own_stride", "other_stride")  # numbers that are divisible by 16
COLUMNS = ("kernel", "features", "architecture", "registers", "spilled", "shared", "instructions")


def compiled(name: str, dtype: torch.dtype, capability: int, radii: int = 2) -> Any:
    """Return a kernel compiled for a dtype of the features and a compute capability, such as 90 for 9.0."""
    from triton.backends.compiler import GPUTarget  # Triton is not available on every platform
    from triton.compiler import ASTSource, compile

    from loco.losses import kernels

    kernel = getattr(kernels, name)
    constants = kernels.product_options(dtype, kernels.SIDE) | {
        "SIDE": kernels.SIDE, "COLUMNS": kernels.COLUMNS, "CHUNK": kernels.CHUNK, "RADII": radii,
        "UNIT": kernels.UNIT, "ONE": kernels.ONE,
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    stored = NAMES[dtype]  # slopes have the dtype of the features, and the gradient is float32
    pointers = POINTERS | {"features": stored, "slopes": stored, "out": "fp32" if name == "_multiply" else stored}
    signature = {
        argument: "constexpr" if argument in constants
        else f"*{pointers[argument]}" if argument in pointers
        else NUMBERS.get(argument, "i32")
        for argument in kernel.arg_names
    }  # fmt: skip
    aligned = [k for k, argument in enumerate(kernel.arg_names) if argument in pointers or argument in DIVISIBLE]
    source = ASTSource(kernel, signature, constants, {(k,): [["tt.divisibility", 16]] for k in aligned})
    return compile(source, target=GPUTarget("cuda", capability, 32), options=dict(kernels.OPTIONS))


def measure(name: str, dtype: torch.dtype, capability: int) -> dict[str, Any]:
    """Return the registers and the spilled bytes per thread, the shared memory (bytes) and the instructions."""
    import triton

    kernel = compiled(name, dtype, capability)
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([cuobjdump, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "kernel": name,
        "features": NAMES[dtype],
        "architecture": f"sm_{capability}",
        "registers": used["REG"],
        "spilled": used["STACK"] + used["LOCAL"],
        "shared": kernel.metadata.shared,
        "instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s", code, re.MULTILINE)),
    }


def rows(capabilities: list[int]) -> Iterator[dict[str, Any]]:
    for name in KERNELS:
        for dtype in (torch.bfloat16, torch.float32):
            for capability in capabilities:
                yield measure(name, dtype, capability)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--capabilities", type=int, nargs="+", default=[80, 90], help="compute capabilities (default: %(default)s)"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows(parser.parse_args().capabilities):
        print(f"| {' | '.join(f'{row[c]:,}' if isinstance(row[c], int) else row[c] for c in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()
