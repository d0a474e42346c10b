"""Functions that take the leaves of a configuration as keywords, as a command takes them as flags."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic_core import PydanticUndefined

from hrm_engine.config.base import Config, build_config, leaves

R = TypeVar("R")


def takes(model: type[Config]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a function whose keyword ``settings`` is a ``model`` be called with the model's leaves.

    A caller gives ``settings``, or leaves, or both, leaves on top. The signature, which ``help`` shows, lists them.

    Raises:
        ConfigError: from the function, for values of leaves that :func:`build_config` refuses.
    """
    declared = leaves(model)

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def run(*args: Any, settings: Config | None = None, **given: Any) -> R:
            chosen = {name: given.pop(name) for name in list(given) if name in declared}
            if settings is None or chosen:
                before = None if settings is None else settings.model_dump()
                settings = build_config(model, preset=before, overrides=chosen)
            return function(*args, settings=settings, **given)

        signature = inspect.signature(function)
        own = [item for item in signature.parameters.values() if item.name != "settings"]
        keywords = [
            inspect.Parameter(
                leaf.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if leaf.default is PydanticUndefined else leaf.default,
                annotation=leaf.annotation,
            )
            for leaf in declared.values()
        ]
        run.__signature__ = signature.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
        return run

    return decorate
