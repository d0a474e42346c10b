"""Models in Hugging Face format, from a folder or the hub: what every way of loading one needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hrm_engine.bundles.weights import check_types, meta_tensors
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import ConfigError, HRMError
from hrm_engine.store.files import read_json

HUB_TIMEOUT_S = 5.0
_PROXY_REFUSES = 407
_CALLS = 4096
"""Most calls of a layer whose number a configuration may count instead of the layers themselves, as hrm_text's does."""
_JSON_FILES = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    "model.safetensors.index.json",
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "*.tiktoken", "vocab.*", "merges.txt", "spiece.model", "*.spm")


def tokenizer_of(fast: Any, source: str) -> Tokenizer:
    """Ours from one that transformers has loaded. Raises ConfigError where it is none of the library's fast ones."""
    if getattr(fast, "backend_tokenizer", None) is None:
        raise ConfigError(f"{source} has no fast tokenizer (tokenizer.json), which is needed here")
    return Tokenizer(fast.backend_tokenizer, roles_of(fast))


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer; for one that has none transformers makes an empty one."""
    return any(file.is_file() for pattern in _TOKENIZER_FILES for file in folder.glob(pattern))


def roles_of(fast: Any) -> dict[str, str]:
    """Begin, end and padding tokens of a tokenizer of the library, as far as it has them."""
    roles = {"bos_token": fast.bos_token, "eos_token": fast.eos_token, "pad_token": fast.pad_token}
    return {role: token for role, token in roles.items() if token}


def check_folder(folder: Path, error: type[HRMError]) -> None:
    """Look at a folder in Hugging Face format before transformers does, which believes what such files say.

    Raises ``error``: JSON that is no object, weights that are quantized, not fetched, elsewhere or of other sizes than
    the configuration says.
    """
    contents = {name: read_json(folder / name, error) for name in _JSON_FILES if (folder / name).exists()}
    config = contents.get("config.json", {})
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise error(f"{folder} holds a quantized model ({str(method)[:40]}): take the one that it was made of")
    if not (folder / "model.safetensors").is_file() and "model.safetensors.index.json" not in contents:
        return
    tensors = meta_tensors(folder, "model", error=error)
    if problems := check_types({n: t for n, t in tensors.items() if n.endswith("weight") and t.ndim > 1}, where=folder):
        raise error(problems[0])
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    limits = {
        **dict.fromkeys(("hidden_size", "n_embd", "vocab_size", "intermediate_size"), max(4096, 16 * largest)),
        **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers_per_stack"), max(4096, _CALLS * len(tensors))),
    }
    for name, limit in limits.items():
        if isinstance(size := config.get(name), int) and size > limit:
            raise error(f"{folder / 'config.json'}: {name} is {str(size)[:40]}, and its weights are of another model")


def load_causal_model(source: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A causal model of transformers, and what its loading reports. Nothing but safetensors is read."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    options |= {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    network, report = loader.from_pretrained(source, **options)
    return network, report


def save_tokenizer(tokenizer: Tokenizer, folder: Path, **settings: Any) -> None:
    """Write a tokenizer with these settings as transformers reads it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer.save(folder / "tokenizer.json")
    library: Any = PreTrainedTokenizerFast
    with quiet_transformers():
        library(tokenizer_file=str(folder / "tokenizer.json"), **settings).save_pretrained(folder)


def hub_answers() -> bool:
    """Whether the hub's server answers within seconds, through a proxy where the environment names one.

    The library itself tries for minutes, behind a dead proxy as without a network.
    """
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # of its documentation, not of its __all__

    try:
        answer = get_session().head(ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception:  # of the library below it, which differs between versions
        return False
    return bool(answer.status_code < 500 and answer.status_code != _PROXY_REFUSES)


def hub_words(why: str) -> str:
    """What the library says of the hub, in fewer words where nothing answered."""
    return "it does not answer, and its cache here has no such model" if "couldn't connect" in why else why


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep back progress bars and advice of the library, which would tear the trainer's own display."""
    from transformers.utils import logging

    library: Any = logging  # which has no types
    level = library.get_verbosity()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        library.enable_progress_bar()
