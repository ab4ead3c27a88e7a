"""Write a copy of a GGUF model whose weight matrices were rounded to few bits, for drift's ladder.

python benchmarks/round_weights.py MODEL.gguf OUT.gguf --bits 8

Blocks of 32 weights share one scale, as in GGUF's Q8_0 and Q4_0; the rounded values are stored in
float16, so that any reader of GGUF loads them and nothing but the rounding differs. With 16 bits,
that is all: the reference that the others are compared with. With 32 nothing is rounded.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize
from numpy.typing import NDArray

BLOCK = 32


def round_blocks(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round each block of 32 to the nearest of 2^bits - 1 levels, symmetric about 0."""
    blocks = values.reshape(-1, BLOCK)
    top = 2 ** (bits - 1) - 1
    scale = np.abs(blocks).max(axis=1, keepdims=True) / top
    steps = np.round(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0))
    return np.asarray(steps * scale, np.float32).reshape(values.shape)


def round_model(source: Path, target: Path, bits: int) -> None:
    """Copy a GGUF file, its matrices rounded."""
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = entry.types[0]
        sub = entry.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, entry.contents(), kind, sub_type=sub)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim < 2 or bits >= 32:
            writer.add_tensor(tensor.name, values)
            continue
        rounded = values if bits >= 16 else round_blocks(values, bits)
        writer.add_tensor(
            tensor.name, rounded.astype(np.float16), raw_dtype=GGMLQuantizationType.F16
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--bits", type=int, required=True)
    options = parser.parse_args(arguments)
    round_model(options.source, options.target, options.bits)


if __name__ == "__main__":
    main()
