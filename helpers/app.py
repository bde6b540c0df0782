"""The page, under the name that users import: see `helpers.serve.page`."""

from helpers.serve.page import LOOK, QUIET, build_app

__all__ = ["LOOK", "QUIET", "build_app"]
