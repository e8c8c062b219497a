"""Typed settings, the published recipes, and the experiment file."""

from edm2core.config.experiment import Experiment, load_experiment
from edm2core.config.recipes import load_recipe, recipe_names
from edm2core.config.settings import Recipe

__all__ = ["Experiment", "Recipe", "load_experiment", "load_recipe", "recipe_names"]
