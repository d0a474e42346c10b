"""The settings of ``hrm_text`` in transformers and ours: one network in two vocabularies.

Source: ``HrmTextConfig`` and ``HrmTextModel`` of transformers 5. There, both levels have the same number of layers,
every layer has a gate, and there is one segment. Because a segment of ``hrm-text`` takes up the states as the one
before has left them and nothing else, N segments of C high-level cycles are one of N * C.
"""

from __future__ import annotations

from typing import Any

from hrm_engine.bundles.exchange.names import differences
from hrm_engine.config import ARCHITECTURES, CoreConfig
from hrm_engine.config.base import validated
from hrm_engine.errors import BundleError
from hrm_engine.store.runs import TRANSFORMERS_TYPE


def hf_problems(config: CoreConfig) -> list[str]:
    """Why a network is no ``hrm_text``, whatever its depth: one clause for each setting that differs."""
    text = ARCHITECTURES["hrm-text"]
    expected: dict[str, tuple[Any, ...]] = {
        **{name: (text[name],) for name in ("norm", "exit_norm", "initial_z_h", "inject_input", "shared_modules")},
        "initial_z_l": ("zero", "random"),
        "mixer": ("attention",),
        "activation": ("swiglu",),
        "pos_encodings": ("rope",),
        "window_size": (None,),
        "causal": (True,),
        "halting": ("token",),
        "prefix_tokens": (0,),
        "num_latents": (1,),
        "damping": (1.0,),
    }
    problems = differences(config, expected)
    if config.l_cycles and config.h_layers != config.l_layers:
        problems.append(f"its levels have {config.h_layers} and {config.l_layers} layers, there they have as many")
    return problems


def their_settings(config: CoreConfig, *, segments: int) -> dict[str, Any]:
    """A network read after so many segments, in their words."""
    layers, cycles = config.h_layers, segments * config.h_cycles
    return {
        "model_type": TRANSFORMERS_TYPE,
        "architectures": ["HrmTextForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        # theirs keep both: layers of a level, and slots of the cache, one for each layer of each call
        "num_layers_per_stack": layers,
        "num_hidden_layers": layers * cycles * (config.l_cycles + 1),
        "num_attention_heads": config.num_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "H_cycles": cycles,
        "L_cycles": config.l_cycles,
        "embedding_scale": config.embedding_scale,
        "prefix_lm": config.prefix_lm,
    }


def gradient_calls(config: CoreConfig, *, segments: int) -> list[int]:
    """``L_bp_cycles``: in each high-level cycle, the low-level calls at its end that carry gradient.

    Only their trainer reads it. It knows no high-level call without gradient, so a cycle in which ours has none is
    trained with one call there.
    """
    first_with_grad = config.num_calls - config.grad_calls
    ends = [cycle * (config.l_cycles + 1) + config.l_cycles for cycle in range(config.h_cycles)]
    last = [max(0, min(config.l_cycles, end - first_with_grad)) for end in ends]
    return [0] * (config.h_cycles * (segments - 1)) + last


def core_of_theirs(theirs: Any, *, where: str, is_zero_state: bool = True) -> CoreConfig:
    """Our settings of a model of theirs.

    Args:
        theirs: ``HrmTextConfig``.
        is_zero_state: whether the low-level state begins as zero, which only the weights tell.

    Raises:
        BundleError: a setting that the core does not have, or sizes that do not fit together; all are named.
    """
    rope = dict(theirs.rope_parameters or {})
    has: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "attention_bias": (theirs.attention_bias, (False,)),
        "mlp_bias": (theirs.mlp_bias, (False,)),
        "hidden_act": (theirs.hidden_act, ("silu", "swish")),
        "rope_parameters: rope_type": (rope.get("rope_type", "default"), ("default",)),
        "rope_parameters: partial_rotary_factor": (rope.get("partial_rotary_factor", 1.0), (1.0,)),
    }
    problems = [
        f"{name} is {value}, here it is {' or '.join(map(str, allowed))}"
        for name, (value, allowed) in has.items()
        if value not in allowed
    ]
    if theirs.L_cycles < 1:
        problems.append(f"L_cycles is {theirs.L_cycles}: it never runs its low level")
    if problems:
        raise BundleError(f"{where} cannot be imported: {'; '.join(problems)}")
    heads, width = theirs.num_attention_heads, theirs.hidden_size
    calls = theirs.H_cycles * (theirs.L_cycles + 1)
    content = {
        **ARCHITECTURES["hrm-text"],
        "arch": "hrm-text",
        "vocab_size": theirs.vocab_size,
        "max_seq_len": theirs.max_position_embeddings,
        "hidden_size": width,
        "intermediate_size": theirs.intermediate_size,
        "num_heads": heads,
        "head_width": None if heads * theirs.head_dim == width else theirs.head_dim,
        "h_layers": theirs.num_layers_per_stack,
        "l_layers": theirs.num_layers_per_stack,
        "h_cycles": theirs.H_cycles,
        "l_cycles": theirs.L_cycles,
        # as a new hrm-text is trained; theirs are cut off in another pattern, see `gradient_calls`
        "grad_calls": max(2, calls - theirs.L_cycles),
        "halt_max_steps": 1,
        "norm_eps": theirs.rms_norm_eps,
        "initial_z_l": "zero" if is_zero_state else "random",
        "pos_encodings": "rope",
        "rope_theta": float(rope.get("rope_theta", 10000.0)),
        "embedding_scale": float(theirs.embedding_scale),
        "prefix_lm": theirs.prefix_lm,
    }
    return validated(CoreConfig, content, BundleError, f"the sizes of {where} do not fit together")
