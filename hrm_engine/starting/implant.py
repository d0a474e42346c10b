"""Base model of a training: a tokenizer, and where the widths fit, embeddings and output head of another model.

``--model`` takes a local folder in Hugging Face format or a hub id. The project makes its own default offline:
:func:`create_implant` trains a tokenizer on a corpus and writes a base model folder beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.hub import (
    check_folder,
    has_tokenizer,
    hub_answers,
    hub_words,
    load_causal_model,
    quiet_transformers,
    save_tokenizer,
    tokenizer_of,
)
from hrm_engine.bundles.weights import check_finite, check_types, load_file
from hrm_engine.config.datasets import ImplantConfig
from hrm_engine.config.keywords import takes
from hrm_engine.data.text.documents import read_documents
from hrm_engine.data.text.python_docs import build_python_docs
from hrm_engine.data.text.tokenizer import BOS, EOS, PAD, Tokenizer, train_tokenizer
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.reading import told_by
from hrm_engine.store.files import new_folder, read_json
from hrm_engine.store.paths import Workspace


@dataclass(frozen=True)
class ImplantReport:
    """Files written by :func:`create_implant`."""

    tokenizer_file: Path
    base_model: Path
    vocab_size: int
    num_documents: int
    messages: list[str]
    """What reading the text took, left out or changed, in sentences."""


@dataclass(frozen=True)
class StartingPoint:
    """Tokenizer, and embeddings (V, D) and head (V, D) in fp32 where the source has them in the asked width.

    ``messages`` are sentences for the user, ``about_weights`` one that holds where nothing else gives the weights.
    """

    tokenizer: Tokenizer
    embeddings: Tensor | None
    head: Tensor | None
    messages: list[str]
    about_weights: str


@takes(ImplantConfig)
def create_implant(*, workspace: Workspace, settings: ImplantConfig) -> ImplantReport:
    """Train a byte-level BPE tokenizer and write a base model (Llama of two layers, random weights) in HF format.

    Without ``dataset_file`` the embedded corpus is taken, and built first where it is missing. An existing implant is
    replaced only with ``replace``, when the new one is complete.

    Raises:
        ConfigError: there is one, or the sizes do not fit together. DataError: the text cannot be read.
        StorageError: it cannot be written.
    """
    hidden_size, dataset_file = settings.hidden_size, settings.dataset_file
    if hidden_size % 64:
        raise ConfigError(f"--hidden-size {hidden_size}: the base model has heads of 64, choose a multiple of 64")
    if implant_exists(workspace) and not settings.replace:
        there = workspace.base_model if workspace.base_model.exists() else workspace.tokenizer_file
        raise ConfigError(
            f"{there} exists: experts and runs were trained on it, and another one is no base for them. "
            "Replace it with --replace"
        )
    if dataset_file is None:
        dataset_file = embedded_corpus(workspace) / "train.jsonl"
    corpus = read_documents(workspace.resolve(dataset_file), settings=settings)
    tokenizer = train_tokenizer(corpus.documents, vocab_size=settings.vocab_size)
    with new_folder(workspace.base_model, replace=True) as folder:
        _write_base_model(folder, tokenizer, hidden_size, settings.seed)
    workspace.tokenizer_file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(workspace.tokenizer_file)
    return ImplantReport(
        workspace.tokenizer_file, workspace.base_model, tokenizer.vocab_size, len(corpus.documents), corpus.messages
    )


def implant_exists(workspace: Workspace) -> bool:
    """Whether there is a base model, whole or not, or a tokenizer that :func:`create_implant` would replace."""
    return workspace.base_model.exists() or workspace.tokenizer_file.exists()


def embedded_corpus(workspace: Workspace) -> Path:
    """Folder of the embedded corpus (train.jsonl, validation.jsonl), built first where it is missing."""
    folder = workspace.embedded_corpus
    if not (folder / "train.jsonl").is_file() or not (folder / "validation.jsonl").is_file():
        build_python_docs(folder)
    return folder


def base_model(workspace: Workspace) -> Path:
    """Folder of the default base model, made first where it is missing."""
    if not (workspace.base_model / "config.json").is_file():
        create_implant(workspace=workspace, replace=True)
    return workspace.base_model


def starting_point(model: str, *, hidden_size: int, workspace: Workspace) -> StartingPoint:
    """Resolve ``--model``; of a bundle of this lab it is the tokenizer alone.

    Raises:
        ConfigError: neither a folder nor a hub id that can be had from here; names ``lab implant``.
    """
    folder, messages = _folder(model, workspace)
    if folder.is_dir() and not (folder / "config.json").is_file():
        return StartingPoint(
            Tokenizer.load(folder), None, None, [], f"{folder}: tokenizer only, embeddings start fresh"
        )
    if folder.is_dir() and _is_bundle(folder, model):
        about = [f"tokenizer of the bundle {folder}"]
        return StartingPoint(Tokenizer.load(folder), None, None, about, "embeddings start fresh")
    if folder.is_dir() and not has_tokenizer(folder) and workspace.tokenizer_file.is_file():
        place = workspace.tokenizer_file.parent
        messages.append(f"{model} has no tokenizer: that of {place} is taken")
        return StartingPoint(Tokenizer.load(place), None, None, messages, "embeddings start fresh")
    parts = _implant(folder)
    if parts is None:
        tokenizer, network, absent = _load(model, folder)
        parts = (tokenizer, *_embeddings(network, absent, model))
    tokenizer, hub_embeddings, hub_head = parts
    check_finite(
        {"the token embeddings": hub_embeddings, "the output head": hub_head},
        where=f"--model {model}",
        error=ConfigError,
    )
    fits = hub_embeddings.shape[1] == hidden_size and hub_embeddings.shape[0] >= tokenizer.vocab_size
    if not fits:
        about_weights = (
            f"{model} has embeddings of {tuple(hub_embeddings.shape)}: width {hidden_size} with "
            f"{tokenizer.vocab_size} tokens cannot take them over; tokenizer only, embeddings start fresh"
        )
        return StartingPoint(tokenizer, None, None, messages, about_weights)
    rows = slice(0, tokenizer.vocab_size)
    taken = f"embeddings and output head taken over from {model}"
    return StartingPoint(tokenizer, hub_embeddings[rows].float(), hub_head[rows].float(), messages, taken)


def load_network(model: str, workspace: Workspace) -> tuple[Any, Tokenizer, Path | None, list[str]]:
    """The whole causal model that ``--model`` names, its tokenizer, its folder if it is a local one, and messages.

    Raises:
        ConfigError: as :func:`starting_point`; also where there is a tokenizer only, or weights are missing.
    """
    folder, messages = _folder(model, workspace)
    if folder.is_dir() and (folder / "config.json").is_file() and _is_bundle(folder, model):
        raise ConfigError(f"--model {model} is a bundle of this lab: name it with --student-init")
    tokenizer, network, absent = _load(model, folder)
    if absent:
        raise ConfigError(f"--model {model}: its weights hold no {', no '.join(absent[:4])}: it is not a whole model")
    check_finite(network.state_dict(), where=f"--model {model}", error=ConfigError)
    return network, tokenizer, folder if folder.is_dir() else None, messages


def _is_bundle(folder: Path, model: str) -> bool:
    """Whether a folder is a bundle of this lab; a model of others is looked at. Raises ConfigError."""
    try:
        if "kind" in read_json(folder / "config.json", ConfigError):
            return True
        check_folder(folder, ConfigError)
    except ConfigError as error:
        raise ConfigError(f"--model {model}: {error}") from error
    return False


def _folder(model: str, workspace: Workspace) -> tuple[Path, list[str]]:
    """Local folder of ``--model``; the default is made where it is missing."""
    folder = workspace.resolve(model)
    if folder != workspace.resolve(workspace.base_model) or (folder / "config.json").is_file():
        return folder, []
    report = create_implant(workspace=workspace, replace=True)
    return folder, [f"no base model yet: made one from the embedded corpus at {report.base_model} (lab implant)"]


def _implant(folder: Path) -> tuple[Tokenizer, Tensor, Tensor] | None:
    """Tokenizer, embeddings (V, D) and head (V, D) of what :func:`create_implant` wrote; None for everything else.

    They are read without transformers, whose import takes longer than a short training.
    """
    try:
        config, names = (read_json(folder / name, ConfigError) for name in ("config.json", "tokenizer_config.json"))
        ours = config.get("model_type") == "llama" and names.get("bos_token") == BOS
        if not ours or config.get("tie_word_embeddings") is not False:
            return None
        both = ("model.embed_tokens.weight", "lm_head.weight")
        tensors = load_file(folder / "model.safetensors", error=ConfigError, only=both)
        shapes = dict.fromkeys(both, (config.get("vocab_size"), config.get("hidden_size")))
        if check_types(tensors, where=folder) or {name: tensors[name].shape for name in tensors} != shapes:
            return None
        return Tokenizer.load(folder), tensors[both[0]], tensors[both[1]]
    except (ConfigError, DataError):
        return None


def _load(model: str, folder: Path) -> tuple[Tokenizer, Any, list[str]]:
    """Tokenizer, causal model, and the names of the parameters that its files do not hold."""
    is_local = folder.is_dir()
    source = str(folder) if is_local else model
    is_offline = is_local or not hub_answers()  # without a network the library tries for a minute before it says so

    def problem(why: str) -> ConfigError:
        if is_local:
            return ConfigError(f"--model {source} cannot be loaded: {why}")
        return ConfigError(
            f"--model {source}: {folder} is no folder with a model, and the model could not be had from the hub "
            f"({hub_words(why)}). Offline, make the local default with: lab implant"
        )

    if is_local and not has_tokenizer(folder):
        raise problem("tokenizer.json is missing; copy it from the original")
    from transformers import AutoTokenizer

    with told_by(problem), quiet_transformers():
        fast = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=is_offline)
        network, report = load_causal_model(source, local_files_only=is_offline)
        tokenizer = tokenizer_of(fast, f"--model {source}")
    return tokenizer, network, sorted(report["missing_keys"])


def _embeddings(network: Any, absent: list[str], model: str) -> tuple[Tensor, Tensor]:
    """Token embeddings (V, D) and output head (V, D). Raises ConfigError where the files do not hold them."""
    embeddings = network.get_input_embeddings().weight.detach()
    output = network.get_output_embeddings()
    head = embeddings if output is None else output.weight.detach()
    pointers = {embeddings.data_ptr(), head.data_ptr()}
    names = [name for name, tensor in network.named_parameters() if tensor.data_ptr() in pointers]
    if missing := [name for name in names if name in absent]:
        raise ConfigError(f"--model {model}: its weights hold no {' and no '.join(missing)}; they cannot be taken over")
    return embeddings, head


def _write_base_model(folder: Path, tokenizer: Tokenizer, hidden_size: int, seed: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    save_tokenizer(tokenizer, folder, bos_token=BOS, eos_token=EOS, pad_token=PAD)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=hidden_size // 64,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
