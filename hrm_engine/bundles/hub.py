"""Models in Hugging Face format, from a folder or the hub: what every way of loading one needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import ConfigError

HUB_TIMEOUT_S = 5.0


def tokenizer_of(fast: Any, source: str) -> Tokenizer:
    """Ours from one that transformers has loaded. Raises ConfigError where it is none of the library's fast ones."""
    if getattr(fast, "backend_tokenizer", None) is None:
        raise ConfigError(f"{source} has no fast tokenizer (tokenizer.json), which is needed here")
    return Tokenizer(fast.backend_tokenizer, roles_of(fast))


def roles_of(fast: Any) -> dict[str, str]:
    """Begin, end and padding tokens of a tokenizer of the library, as far as it has them."""
    roles = {"bos_token": fast.bos_token, "eos_token": fast.eos_token, "pad_token": fast.pad_token}
    return {role: token for role, token in roles.items() if token}


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
    """Whether the hub's server can be reached; taken for granted behind a proxy, which only the library knows."""
    from huggingface_hub.constants import ENDPOINT

    if any(name in os.environ for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(ENDPOINT)
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=HUB_TIMEOUT_S):
            return True
    except OSError:
        return False


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
