"""What the names of the architecture table mean, as settings of the one core.

Sources: arXiv 2506.21734 (``hrm``), arXiv 2510.04871 (``trm``, ``trm-mlp``), arXiv 2601.19085 (``trm-fast``), the
``hrm_text`` model in transformers (``hrm-text``); ``transformer`` is the plain comparison.
"""

from __future__ import annotations

_HRM: dict[str, object] = {
    "norm": "post",
    "norm_eps": 1e-5,
    "exit_norm": False,
    "attention_gate": False,
    "initial_z_h": "random",
    "initial_z_l": "random",
    "inject_input": True,
    "shared_modules": False,
}
_TRM = {**_HRM, "shared_modules": True}

ARCHITECTURES: dict[str, dict[str, object]] = {
    "hrm": _HRM,
    "trm": _TRM,
    "trm-mlp": {**_TRM, "mixer": "sequence_mlp", "mixer_norm": "sequence"},
    "trm-fast": {**_TRM, "mixer": "sequence_mlp", "activation": "gated_norm"},
    "hrm-text": {
        "norm": "pre",
        "norm_eps": 1e-6,
        "exit_norm": True,
        "attention_gate": True,
        "initial_z_h": "embedding",
        "initial_z_l": "zero",
        "inject_input": False,
        "shared_modules": False,
    },
    "transformer": {
        "norm": "pre",
        "norm_eps": 1e-6,
        "exit_norm": True,
        "attention_gate": False,
        "initial_z_h": "zero",
        "initial_z_l": "zero",
        "inject_input": True,
        "shared_modules": True,
    },
}


def divisor_near(number: int, wanted: int) -> int:
    """The divisor of ``number`` that is nearest to ``wanted``, for a message that names a value that fits."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
