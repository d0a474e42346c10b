"""The update rules that are built in."""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import MissingExtraError
from hrm_engine.optim.adam_atan2 import AdamATan2
from hrm_engine.optim.conditional import stepping
from hrm_engine.optim.groups import decay_groups, muon_groups
from hrm_engine.optim.muon import Muon
from hrm_engine.optim.updater import Updater

EPS = 1e-8


class DeviceUpdater(Updater):
    """Rules that clip and skip on the device, without asking the host."""

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        found_inf = (~finite).float()
        for optimizer in self.optimizers:
            with stepping(optimizer, grad_scale=divisor, found_inf=found_inf):
                optimizer.step()


class AskingUpdater(Updater):
    """Rules of libraries, which take no condition from the device: the host waits for it once a step."""

    def _step(self, divisor: Tensor, finite: Tensor) -> None:
        if not bool(finite):
            return
        torch._foreach_div_(self.weights.gradients(), divisor)
        for optimizer in self.optimizers:
            optimizer.step()


class AdamWUpdater(DeviceUpdater):
    """Torch's fused AdamW; clipping and skipping happen inside its kernel."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        groups = decay_groups(self.weights.parameters, config, decay_all=decay_all)
        return [torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=EPS, fused=True)]


class AdamATan2Updater(DeviceUpdater):
    """:class:`~hrm_engine.optim.adam_atan2.AdamATan2`, which HRM was trained with."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        groups = decay_groups(self.weights.parameters, config, decay_all=decay_all)
        return [AdamATan2(groups, betas=(config.beta1, config.beta2))]

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """See :meth:`Updater.load_state_tensors`."""
        super().load_state_tensors(tensors)
        for optimizer in self.optimizers:
            assert isinstance(optimizer, AdamATan2)
            optimizer.share_steps()


class MuonUpdater(DeviceUpdater):
    """:class:`~hrm_engine.optim.muon.Muon` for hidden matrices, AdamW for embeddings, heads, routers and vectors."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        hidden, rest = muon_groups(self.weights.parameters, config, decay_all=decay_all, stacks=True)
        muon = Muon(hidden)
        if not rest:
            return [muon]
        return [muon, torch.optim.AdamW(rest, betas=(config.beta1, config.beta2), eps=EPS, fused=True)]


class AdamW8bitUpdater(AskingUpdater):
    """bitsandbytes' AdamW with state in blocks of 8-bit numbers (Dettmers et al. 2022, arXiv 2110.02861)."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        try:
            from bitsandbytes.optim.adamw import AdamW8bit
        except ImportError as error:
            raise MissingExtraError("--use-8bit-optimizer needs bitsandbytes: pip install bitsandbytes") from error
        groups = decay_groups(self.weights.parameters, config, decay_all=decay_all)
        return [AdamW8bit(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=EPS)]

    def _restored(self, tensor: Tensor, device: torch.device) -> object:
        return int(tensor) if tensor.ndim == 0 and not tensor.is_floating_point() else tensor.to(device)
