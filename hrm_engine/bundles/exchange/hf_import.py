"""Models of type ``hrm_text``, from a folder or the hub, become text bundles with equal logits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_engine.bundles.exchange.hf_config import core_of_theirs
from hrm_engine.bundles.hub import (
    check_folder,
    has_tokenizer,
    hub_answers,
    hub_words,
    load_causal_model,
    quiet_transformers,
    roles_of,
    tokenizer_of,
)
from hrm_engine.bundles.load import build_model
from hrm_engine.bundles.save import write_history, write_model
from hrm_engine.bundles.weights import check_finite
from hrm_engine.config.kinds import TEXT
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError
from hrm_engine.reading import told_by
from hrm_engine.store.files import new_folder, read_json, sha256_file
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import TRANSFORMERS_TYPE, free_folder

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NOT_KEPT = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")


@dataclass(frozen=True)
class ModelReport:
    """The bundle made of a model; ``notes`` names differences."""

    bundle: Path
    arch: str
    num_parameters: int
    notes: str


def import_model(source: str, *, name: str, workspace: Workspace, command_line: list[str] | None = None) -> ModelReport:
    """Write the bundle ``artifacts/brains/actv1/NAME`` from a folder in Hugging Face format or a hub id.

    Raises:
        BundleError: nothing there, not of type ``hrm_text``, weights missing, damaged, not finite or too many, no
            tokenizer, or a network that the core cannot express. ConfigError: the name is taken or not allowed.
        StorageError: cannot write.
    """
    target = free_folder(workspace.brains, name, "--name")
    place = _place(source, workspace)
    settings, network, fast = _load(place)
    theirs = network.state_dict()
    check_finite(theirs, where=place)
    config = core_of_theirs(settings, where=place, is_zero_state=not bool(theirs["model.z_L_init"].any()))
    tensors = {key.removeprefix("model."): tensor for key, tensor in theirs.items()}
    tensors["z_H_init"] = tensors["z_L_init"].new_zeros(tensors["z_L_init"].shape)
    core = build_model(config, tensors, where=Path(place))
    tokenizer, origin, notes = _tokenizer(settings, network, fast, place)
    if tokenizer.vocab_size > config.vocab_size:
        raise BundleError(
            f"{place}: its tokenizer has {tokenizer.vocab_size} tokens and its model {config.vocab_size}; they do not "
            "belong together"
        )
    with new_folder(target) as folder:
        files = write_model(folder, TEXT.name, config, tensors, tokenizer)
        write_history(
            folder,
            TEXT.name,
            {"path": place, **_digest(place, settings)},
            {"format": "hf", **origin},
            {"config": origin["config"]},
            command_line,
            files,
        )
    count = sum(parameter.numel() for parameter in core.parameters())
    return ModelReport(target, config.arch, count, "; ".join(notes) or "none")


def _place(source: str, workspace: Workspace) -> str:
    """A local folder with a model of the type, as text; else a hub id."""
    folder = workspace.resolve(source)
    if folder.is_file():
        raise BundleError(f"{folder} is a file: name the folder that holds config.json and the weights")
    if not folder.is_dir():
        if _HUB_ID.fullmatch(source):
            return source
        raise BundleError(f"{source} cannot be imported: there is no such folder, and it is no hub id (owner/name)")
    if not (folder / "config.json").is_file():
        raise BundleError(f"{folder} is no model in Hugging Face format: config.json is missing")
    content = read_json(folder / "config.json", BundleError)
    if "model_type" not in content and "kind" in content:
        raise BundleError(f"{folder} is a bundle of this lab already: use it as it is")
    _check_type(content.get("model_type"), str(folder))
    return str(folder)


def _check_type(kind: object, where: str) -> None:
    if kind != TRANSFORMERS_TYPE:
        raise BundleError(f"{where} is of model type {kind!r}, and only {TRANSFORMERS_TYPE!r} is a network of this lab")


def _load(place: str) -> tuple[Any, Any, Any]:
    """Configuration, model and tokenizer."""
    part = "configuration"
    is_local = Path(place).is_dir()
    is_offline = is_local or not hub_answers()  # without a network the library tries for a minute before it says so

    def problem(why: str) -> BundleError:
        if not is_local:
            return BundleError(
                f"{place} is no local folder, and its {part} could not be had from the hub "
                f"({hub_words(why)}). "
                "Offline, copy the model's folder here and name that"
            )
        if part == "tokenizer" and not has_tokenizer(Path(place)):
            why = "tokenizer.json is missing; copy it from the original, or save it there with save_pretrained"
        return BundleError(f"{place} cannot be imported: its {part} cannot be loaded: {why}")

    if is_local:
        check_folder(Path(place), BundleError)
    from transformers import AutoConfig, AutoTokenizer

    with told_by(problem), quiet_transformers():
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": is_offline}
        config = AutoConfig.from_pretrained(place, **options)
        _check_type(config.model_type, place)
        core_of_theirs(config, where=place)  # what cannot be had is said before gigabytes are read
        part = "weights"
        network, report = load_causal_model(
            place,
            config=config,
            dtype="auto",
            ignore_mismatched_sizes=True,  # its own refusal names none; they are refused below
            **options,
        )
        part = "tokenizer"
        fast = AutoTokenizer.from_pretrained(place, **options)
    _check_report(report, place)
    return config, network, fast


def _check_report(report: dict[str, Any], place: str) -> None:
    """Raise BundleError where the weights are not those that the configuration describes."""
    for kind, names in (("no", report["missing_keys"]), ("what is no part of the model:", report["unexpected_keys"])):
        if names:
            raise BundleError(f"{place} cannot be imported: its weights hold {kind} {', '.join(sorted(names)[:4])}")
    wrong = [
        f"{name} has shape {tuple(shape)}, its configuration says {tuple(configured)}"
        for name, shape, configured in sorted(report["mismatched_keys"])
    ]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise BundleError(
            f"{place} cannot be imported: {'; '.join(wrong[:4])}{more}. Compare config.json with the original"
        )


def _tokenizer(config: Any, network: Any, fast: Any, place: str) -> tuple[Tokenizer, dict[str, Any], list[str]]:
    """The tokenizer, what an export needs to give back the same, and notes.

    Their generation stops at any of the tokens that its own configuration names, whatever the tokenizer calls its end
    token; some of them may have no name. So does ours.
    """
    generation = network.generation_config
    tokenizer_of(fast, place)  # refuses one that is not fast
    own_roles, roles = roles_of(fast), roles_of(fast)
    stops = generation.eos_token_id if generation.eos_token_id is not None else config.eos_token_id
    ends = stops if isinstance(stops, list) else [] if stops is None else [stops]
    if not all(type(end) is int for end in ends):  # of generation_config.json the library checks no types
        raise BundleError(f"{place} cannot be imported: eos_token_id is {str(stops)[:80]}, and token ids are needed")
    names = [name for name in map(fast.convert_ids_to_tokens, ends) if name is not None]
    if names and roles.get("eos_token") not in names:
        roles["eos_token"] = names[0]
    first = fast("a").input_ids[:1]
    tokenizer = Tokenizer(fast.backend_tokenizer, roles, end_ids=ends)
    adds_bos = "bos_token" in own_roles and first == [fast.bos_token_id]
    notes = list[str]()
    if not adds_bos:
        notes.append("no begin token before a prompt, as its tokenizer has it; trained further, it gets one")
    if getattr(fast, "chat_template", None):
        notes.append("its chat template is not kept")
    if config.tie_word_embeddings:
        notes.append("token embedding and output head were one matrix; here they are two, equal at first")
    if config.attention_dropout:
        notes.append(f"its attention_dropout of {config.attention_dropout} is not used in training here")
    settings = {key: value for key, value in config.to_dict().items() if key not in _NOT_KEPT}
    origin = {
        "config": settings,
        "generation": generation.to_diff_dict(),
        "tokenizer": {
            **own_roles,
            **{name: getattr(fast, name) for name in ("split_special_tokens", "padding_side", "model_max_length")},
        },
        "adds_bos": adds_bos,
    }
    return tokenizer, origin, notes


def _digest(place: str, config: Any) -> dict[str, str]:
    """Hash or revision of a source."""
    weights = sorted(Path(place).glob("*.safetensors")) if Path(place).is_dir() else []
    if len(weights) == 1:
        return {"sha256": sha256_file(weights[0])}
    if weights:
        return {"sha256": sha256_file(Path(place) / "model.safetensors.index.json")}
    return {"revision": str(getattr(config, "_commit_hash", None))}
