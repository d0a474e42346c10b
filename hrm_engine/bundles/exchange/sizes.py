"""The network of a checkpoint, from its shapes, its configuration and the user.

Shapes tell the widths, layers, vocabulary and identifiers. Heads, cycles and, with rotary positions, the length of a
row leave no trace in the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hrm_engine.bundles.exchange.names import EMBEDDING, Format
from hrm_engine.config import ARCHITECTURES, CoreConfig
from hrm_engine.config.base import validated
from hrm_engine.config.core import inner_width
from hrm_engine.config.exchange import SizesConfig
from hrm_engine.errors import BundleError
from hrm_engine.models.layers import SEQUENCE_EXPANSION

# Of all published recipes; the number of cycles differs among them (TRM ran mazes and ARC with 4 low-level calls).
PUBLISHED: dict[Format, dict[str, Any]] = {
    "sapient-hrm": {"num_heads": 8, "h_cycles": 2, "l_cycles": 2, "halt_max_steps": 16, "pos_encodings": "rope"},
    "trm": {
        "num_heads": 8,
        "h_cycles": 3,
        "l_cycles": 6,
        "halt_max_steps": 16,
        "pos_encodings": "rope",
        "puzzle_tokens": 16,
    },
}
_THEIR_NAMES = {"h_cycles": "H_cycles", "l_cycles": "L_cycles", "puzzle_tokens": "puzzle_emb_len"}


def core_of(
    tensors: Mapping[str, Tensor], kind: Format, *, sizes: SizesConfig, arch: Mapping[str, Any], where: Path
) -> tuple[CoreConfig, dict[str, Any]]:
    """The configuration of a checkpoint's network, and the settings in it that nobody has said.

    Args:
        tensors: by their names, without prefix.
        arch: the section of the configuration beside it; empty without one.

    Raises:
        BundleError: a weight that is needed is missing or has the wrong number of dimensions; the length of a row is
            nowhere said; the sizes do not fit together.
    """

    def shape(name: str) -> tuple[int, int]:
        if name not in tensors:
            raise BundleError(f"{where}: {name} is missing: this is no whole checkpoint of --format {kind}")
        sides = tuple(tensors[name].shape)
        if len(sides) != 2 or not all(sides):
            raise BundleError(f"{where}: {name} has shape {sides}, and two dimensions are needed")
        return sides[0], sides[1]

    assumed: dict[str, Any] = {}

    def setting(name: str) -> Any:
        """From the user, else from the configuration, else as published, which is remembered."""
        if (chosen := getattr(sizes, name)) is not None:
            return chosen
        published = PUBLISHED[kind][name]
        value = arch.get(_THEIR_NAMES.get(name, name))
        if value is None:
            value = assumed[name] = published
        if type(value) is not type(published):
            raise BundleError(f"{where}: {name} is {value!r} in its configuration, which is no usable value")
        return value

    known = {"no_ACT_continue": True, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    known |= {name: value for name, value in arch.items() if value is not None}
    vocab_size, width = shape(EMBEDDING)
    num_identifiers, identifier_width = shape("puzzle_emb.weights") if "puzzle_emb.weights" in tensors else (0, 0)
    mixes_rows = "L_level.layers.0.mlp_t.down_proj.weight" in tensors
    prefix = -(-identifier_width // width)
    if num_identifiers and kind == "trm":
        # theirs take 0 for "as many as the width needs"
        prefix = setting("puzzle_tokens") or prefix
    elif sizes.puzzle_tokens not in (None, prefix):
        raise BundleError(f"--puzzle-tokens {sizes.puzzle_tokens}: the puzzle embedding in {where} has {prefix}")
    length = None  # of a row with its puzzle embedding, where the weights tell
    if mixes_rows:
        length = shape("L_level.layers.0.mlp_t.down_proj.weight")[0]
    if "embed_pos.embedding_weight" in tensors:
        length, positions = shape("embed_pos.embedding_weight")[0], "learned"
    else:
        positions = "none" if mixes_rows else str(setting("pos_encodings"))
        if positions == "learned":
            raise BundleError(f"{where}: embed_pos.embedding_weight is missing, and learned positions need it")
    name = "hrm" if kind == "sapient-hrm" else "trm-mlp" if mixes_rows else "trm"
    no_continue = kind == "trm" and bool(known["no_ACT_continue"])
    layers = {level: _num_layers(tensors, level) for level in ("H_level", "L_level")}
    if kind == "trm":
        layers["H_level"] = layers["L_level"]
    h_cycles, l_cycles = setting("h_cycles"), setting("l_cycles")
    content = {
        **ARCHITECTURES[name],
        "arch": name,
        "vocab_size": vocab_size,
        "max_seq_len": prefix + _seq_len(length, prefix, sizes, where),
        "hidden_size": width,
        "intermediate_size": shape("L_level.layers.0.mlp.down_proj.weight")[1],
        "num_heads": setting("num_heads"),
        "h_layers": layers["H_level"],
        "l_layers": layers["L_level"],
        "h_cycles": h_cycles,
        "l_cycles": l_cycles,
        "grad_calls": 2 if name == "hrm" else l_cycles + 1,
        "halt_max_steps": setting("halt_max_steps"),
        "norm_eps": known["rms_norm_eps"],
        "rope_theta": known["rope_theta"],
        "pos_encodings": positions,
        "causal": False,
        "embedding_scale": math.sqrt(width),
        "halting": "q_halt" if no_continue else "q_halt_continue",
        "prefix_tokens": prefix,
        "num_identifiers": num_identifiers,
        "identifier_width": identifier_width or None,
    }
    return validated(CoreConfig, content, BundleError, f"the sizes of {where} do not fit together"), assumed


def _seq_len(length: int | None, prefix: int, sizes: SizesConfig, where: Path) -> int:
    if length is None:
        if sizes.seq_len is None:
            raise BundleError(
                f"the weights in {where} do not tell how long a row is: give its dataset with --data-path, or "
                "--seq-len (9x9 Sudoku: 81; 30x30 maze and ARC: 900)"
            )
        return sizes.seq_len
    if sizes.seq_len not in (None, length - prefix):
        raise BundleError(
            f"{where} is of rows of {length - prefix} cells after {prefix} positions of puzzle embedding; "
            f"{sizes.seq_len} cells were given. Check --puzzle-tokens, --seq-len and --data-path"
        )
    if length <= prefix:
        raise BundleError(f"{where}: {length} positions leave no room after --puzzle-tokens {prefix}")
    return length - prefix


def _num_layers(tensors: Mapping[str, Tensor], level: str) -> int:
    numbers = {int(match[1]) for name in tensors if (match := re.match(rf"{level}\.layers\.(\d{{1,4}})\.", name))}
    return max(numbers, default=0) + 1


def expansion_of(config: CoreConfig) -> float | None:
    """Their one factor for the inner widths of all SwiGLUs of a network; None where no factor gives them.

    Source: ``round(expansion * width * 2/3)``, up to a multiple of 256.
    """
    candidates = (SEQUENCE_EXPANSION, 1.5 * config.intermediate_size / config.hidden_size)
    for factor in candidates:
        fits = inner_width(config.hidden_size, factor) == config.intermediate_size
        if config.mixer == "sequence_mlp":
            length = config.max_seq_len
            fits = fits and inner_width(length, factor) == inner_width(length, SEQUENCE_EXPANSION)
        if fits:
            return factor
    return None
