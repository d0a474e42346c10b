"""Exchange of weights with other implementations: equal logits, and every bit back again.

``sapient-hrm`` and ``trm`` are checkpoints of the reference implementations (:func:`import_checkpoint`), ``hf`` is a
folder of transformers or a model of its hub (:func:`import_model`).
"""

from hrm_engine.bundles.exchange.exporting import ExportReport, export_checkpoint, inexpressible
from hrm_engine.bundles.exchange.hf_config import hf_problems
from hrm_engine.bundles.exchange.hf_export import FolderReport, export_folder
from hrm_engine.bundles.exchange.hf_import import ModelReport, import_model
from hrm_engine.bundles.exchange.importing import ImportReport, import_checkpoint
from hrm_engine.bundles.exchange.names import FORMATS, Format
from hrm_engine.bundles.exchange.sizes import Told

__all__ = [
    "FORMATS",
    "ExportReport",
    "FolderReport",
    "Format",
    "ImportReport",
    "ModelReport",
    "Told",
    "export_checkpoint",
    "export_folder",
    "hf_problems",
    "import_checkpoint",
    "import_model",
    "inexpressible",
]
