"""Bundles: finished run folders that can be loaded, checked and listed; and what training starts from."""

from hrm_engine.bundles.implant import ImplantReport, StartingPoint, create_implant, embedded_corpus, starting_point
from hrm_engine.bundles.listing import BundleInfo, find_run, list_bundles, verify_bundle
from hrm_engine.bundles.load import Bundle, PuzzleBundle, load_bundle, load_puzzle_bundle

__all__ = [
    "Bundle",
    "BundleInfo",
    "ImplantReport",
    "PuzzleBundle",
    "StartingPoint",
    "create_implant",
    "embedded_corpus",
    "find_run",
    "list_bundles",
    "load_bundle",
    "load_puzzle_bundle",
    "starting_point",
    "verify_bundle",
]
