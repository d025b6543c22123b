"""Language models with random weights: they speak nonsense, quickly, and the same nonsense every time.

`python -m tests.gguf_models SHAPE FILE` writes one: `tiny` (about 1 MB, for tests) or `half-billion` (the layers of a
model with 0.5 billion parameters, Q4_0, 330 MB, for benchmarks). Real models come from the operator.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

END_OF_TEXT: Final = "<|endoftext|>"
TURN_BEGINS: Final = "<|im_start|>"
TURN_ENDS: Final = "<|im_end|>"
_CONTROL: Final = (END_OF_TEXT, TURN_BEGINS, TURN_ENDS)

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'wizard' %}{{ raise_exception('no wizards') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Pairs that byte-pair encoding joins, so that words are not only single bytes; characters as GPT-2 writes bytes.
_MERGES: Final = "t h|th e|i n|a n|e r|o n|r e|Ġ t|Ġ a|Ġt h|Ġth e|o r|e n|a t|e s|Ġ l|o c|k s|l oc|a s".split("|")


@dataclass(frozen=True)
class Shape:
    """The size of a Llama-like model."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    shared_heads: int
    """Heads of keys and values."""
    feed_forward: int
    context: int
    quantized: bool


TINY: Final = Shape(384, 128, 2, 4, 2, 256, 16_384, quantized=False)
# As slow as a test needs it to catch a model at work: some milliseconds for a token.
SLOW: Final = Shape(384, 512, 12, 8, 2, 2048, 16_384, quantized=True)
HALF_BILLION: Final = Shape(151_936, 896, 24, 14, 2, 4864, 32_768, quantized=True)
SHAPES: Final = {"tiny": TINY, "slow": SLOW, "half-billion": HALF_BILLION}


def write_model(
    file: Path, shape: Shape, *, seed: int = 7, name: str = "nonsense", begins: bool = False, splitting: str = "gpt-2"
) -> Path:
    """Write a model to `file`, unless it is there already. The same seed gives the same bytes.

    `begins`: it wants a begin token before every text, and its template writes one too, as Llama 3 does.
    `splitting`: llama.cpp's name of the way in which text becomes words, before they become tokens.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    writer = GGUFWriter(unfinished, "llama")
    _add_shape(writer, shape, name)
    _add_tokenizer(writer, shape, begins=begins, splitting=splitting)
    _add_weights(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unfinished.replace(file)


def _add_shape(writer: GGUFWriter, shape: Shape, name: str) -> None:
    writer.add_name(name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.shared_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: GGUFWriter, shape: Shape, *, begins: bool, splitting: str) -> None:
    words = [*_bytes_as_characters(), *(merge.replace(" ", "") for merge in _MERGES)]
    fillers = [f"Ġw{number}" for number in range(shape.vocabulary - len(words) - len(_CONTROL))]
    tokens = [*words, *fillers, *_CONTROL]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (len(tokens) - len(_CONTROL)) + [TokenType.CONTROL] * len(_CONTROL))
    writer.add_token_merges(_MERGES)
    writer.add_eos_token_id(tokens.index(TURN_ENDS))
    writer.add_pad_token_id(tokens.index(END_OF_TEXT))
    writer.add_bos_token_id(tokens.index(END_OF_TEXT))
    writer.add_add_bos_token(begins)
    writer.add_chat_template(("{{ bos_token }}" if begins else "") + CHAT_TEMPLATE)


def _bytes_as_characters() -> Iterator[str]:
    """The 256 bytes as GPT-2's tokenizer writes them: printable ones as they are, others shifted behind U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = 256
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(shifted)
            shifted += 1


def _add_weights(writer: GGUFWriter, shape: Shape, random: np.random.Generator) -> None:
    width, shared = shape.width, shape.width // shape.heads * shape.shared_heads
    _add_vocabulary(writer, "token_embd.weight", shape, random)
    if not shape.quantized:
        _add_vocabulary(writer, "output.weight", shape, random)
    _add_ones(writer, "output_norm.weight", width)
    for layer in range(shape.layers):
        _add_ones(writer, f"blk.{layer}.attn_norm.weight", width)
        _add_ones(writer, f"blk.{layer}.ffn_norm.weight", width)
        for part, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", shared, width),
            ("attn_v", shared, width),
            ("attn_output", width, width),
            ("ffn_gate", shape.feed_forward, width),
            ("ffn_up", shape.feed_forward, width),
            ("ffn_down", width, shape.feed_forward),
        ):
            name = f"blk.{layer}.{part}.weight"
            if shape.quantized:
                _add_blocks(writer, name, rows, columns, GGMLQuantizationType.Q4_0, random)
            else:
                writer.add_tensor(name, random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32))


def _add_vocabulary(writer: GGUFWriter, name: str, shape: Shape, random: np.random.Generator) -> None:
    """A row for each token; control tokens have zeros, so that their logit is never the highest."""
    if not shape.quantized:
        rows = random.normal(0, 1, (shape.vocabulary, shape.width)).astype(np.float32)
        rows[-len(_CONTROL) :] = 0
        writer.add_tensor(name, rows)
        return
    _add_blocks(
        writer, name, shape.vocabulary, shape.width, GGMLQuantizationType.Q8_0, random, zeroed_rows=len(_CONTROL)
    )


def _add_blocks(
    writer: GGUFWriter,
    name: str,
    rows: int,
    columns: int,
    kind: GGMLQuantizationType,
    random: np.random.Generator,
    *,
    zeroed_rows: int = 0,
) -> None:
    """Random blocks of 32 weights: a half-precision scale, then 4 or 8 bits for each weight."""
    numbers, spread = (16, 4.6) if kind == GGMLQuantizationType.Q4_0 else (32, 74.0)
    blocks = np.empty((rows, columns // 32, 2 + numbers), dtype=np.uint8)
    blocks[..., 2:] = random.integers(0, 256, (rows, columns // 32, numbers), dtype=np.uint8)
    scale = np.array([columns**-0.5 / spread], dtype=np.float16).view(np.uint8)
    blocks[..., :2] = scale
    if zeroed_rows:
        blocks[-zeroed_rows:] = 0
    writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=kind)


def _add_ones(writer: GGUFWriter, name: str, length: int) -> None:
    writer.add_tensor(name, np.ones(length, dtype=np.float32))


def main() -> None:
    """Write the model that the command line names."""
    parser = argparse.ArgumentParser(prog="gguf_models", description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    write_model(chosen.file, SHAPES[chosen.shape])


if __name__ == "__main__":
    main()
