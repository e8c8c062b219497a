"""Typed settings, the published recipes, and the reader of YAML."""

from edm2core.config.recipes import load_recipe, recipe_names
from edm2core.config.settings import Recipe

__all__ = ["Recipe", "load_recipe", "recipe_names"]
