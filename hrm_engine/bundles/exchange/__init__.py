"""Exchange of weights with the reference implementations of HRM and TRM: equal logits, and every bit back again."""

from hrm_engine.bundles.exchange.exporting import ExportReport, export_checkpoint, inexpressible
from hrm_engine.bundles.exchange.importing import ImportReport, import_checkpoint
from hrm_engine.bundles.exchange.names import FORMATS, Format
from hrm_engine.bundles.exchange.sizes import Told

__all__ = [
    "FORMATS",
    "ExportReport",
    "Format",
    "ImportReport",
    "Told",
    "export_checkpoint",
    "import_checkpoint",
    "inexpressible",
]
