"""Own code's settings in a recipe: each is typed by the code's signature, and refused with its file and line like any other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model

from edm2core.config.fields import OWN, Settings
from edm2core.config.recipes import recipe_document
from edm2core.config.settings import DataSettings, DiffusionSettings, OwnNetworkSettings, Recipe, SampleSettings, TrainingSettings
from edm2core.config.validate import build, unknown
from edm2core.config.yaml_file import Document
from edm2core.errors import InputError
from edm2core.own_code.families import FAMILIES, METRIC, Family, addresses
from edm2core.own_code.requirements import refuse_neighbours
from edm2core.own_code.signature import Parameter, Signature, first_parameters, read_signature
from edm2core.own_code.source import BESIDE, OwnCode, find
from edm2core.paths import local_path
from edm2core.registry import is_own, own_package


@dataclass
class Library:
    """The own code that an experiment can name: what lies in a folder, or is installed. Each package is looked for once."""

    folder: Path
    found: dict[str, OwnCode] = field(default_factory=dict)
    do_next: str = BESIDE  # about a package that is not there

    def package(self, address: str, where: str) -> OwnCode:
        """The package of an address. Raises InputError if it is not there, and as `refuse_neighbours`."""
        name = own_package(address)
        if name not in self.found:
            self.found[name] = find(name, self.folder, where, self.do_next)
        refuse_neighbours(self.found[name], address.partition(":")[0])
        return self.found[name]

    def signature(self, family: Family, address: str, where: str) -> Signature:
        """The signature of the callable at an address, which must take what its family passes."""
        signature = read_signature(self.package(address, where), address, family.positional, where, family.passed)
        if len(signature.positional) < family.positional:
            takes = f"takes {family.positional} parameters by position, and '{address}' takes {len(signature.positional)}"
            what = f"{family.article.capitalize()} {family.words} {takes}."
            raise InputError(what, where=signature.where, do_next="docs/how-to/own-code.md shows one of each family.")
        return signature


SECTIONS: dict[str, type[Settings]] = {
    "data": DataSettings,
    "network": OwnNetworkSettings,
    "diffusion": DiffusionSettings,
    "training": TrainingSettings,
    "sample": SampleSettings,
}
"""The sections that can name own code. A network of own code has settings of its own class."""


def as_written(recipe: Recipe, swept: Iterable[str] = ()) -> dict[str, Any]:
    """A recipe's values as a file writes them, each setting once.

    Own code's settings stand beside the others of their section. Settings of the built-in choice whose place it takes are left out.
    Where the choice itself is `swept`, its own settings are left to their defaults: they are of the sweep's first choice alone.
    """
    values, families = recipe.model_dump(mode="json"), [family for family, _ in addresses(recipe)]
    chosen = {family.section for family in families if family.setting not in swept}
    for section in SECTIONS:
        replaced = {name for family in families if family.section == section for name in family.replaces}
        shared = {name: value for name, value in values[section].items() if name not in replaced and name != OWN}
        values[section] = shared | (values[section].get(OWN, {}) if section in chosen else {})
    return values


def metric_settings(address: str, given: Document, library: Library) -> dict[str, Any]:
    """The settings of an own metric that differ from its defaults, by name.

    Raises InputError with its line for code that is no metric, and for a setting that is unknown, of another type or missing.
    """
    parameters = library.signature(METRIC, address, str(given.origin(()))).settings
    values = typed_values(METRIC.section, parameters, given)
    return {name: values[name] for name in sorted(values) if values[name] != parameters[name].default}


def load_recipe_with_code(name: str, folder: Path | None = None) -> Recipe:
    """A recipe by its name or path, as `config.load_recipe`, whose own code lies in `folder`: by default that of the recipe's file."""
    beside = local_path(name).parent if name.endswith((".yaml", ".yml")) else Path()
    library = Library(folder or beside, do_next="Name its folder by --code, or install it.")
    return build(Recipe, with_own_settings(recipe_document(name), library))


def sweepable(recipes: Iterable[Document], sweep: Document, library: Library) -> set[str]:
    """The dotted settings of the own code that recipes name, or that a sweep has among its values. Raises as `Library.signature`."""
    named = {
        (family, address, str(recipe.origin((family.section, family.name))))
        for recipe in recipes
        for family, address in addresses(recipe.values)
    }
    for family in FAMILIES:
        values: Sequence[Any] = sweep.values.get(family.setting, ())
        named |= {(family, each, str(sweep.origin((family.setting, index)))) for index, each in enumerate(values) if is_own(each)}
    return {f"{family.section}.{name}" for family, address, where in named for name in library.signature(family, address, where).settings}


def with_own_settings(recipe: Document, library: Library) -> Document:
    """The recipe's document with the settings of own code checked and gathered in each section's `own`.

    Raises InputError for a setting that neither the section nor the code has, for one
    of another type, and for code whose signature cannot be read.
    """
    for section, model in SECTIONS.items():
        named = [each for each in addresses(recipe.values) if each[0].section == section]
        if (section, OWN) in recipe.origins:
            where = str(recipe.origin((section, OWN)))
            raise InputError(unknown("setting", f"{section}.{OWN}", OWN, sorted(model.model_fields.keys() - {OWN})), where=where)
        if section == "network" and named:
            _must_be_told(recipe, named[0][1], library)
        if named:
            recipe = _gathered(recipe, section, model, named, library)
    return recipe


def _must_be_told(recipe: Document, address: str, library: Library) -> None:
    """Raises InputError if images are augmented and the network takes no `augment_labels`."""
    training = recipe.values.get("training")
    if isinstance(training, dict) and training.get("augment") is not None:
        where = str(recipe.origin(("network", "use")))
        if "augment_labels" not in first_parameters(library.package(address, where), address, where):
            what = f"'{address}' takes no augment_labels, so it cannot be told of training.augment, and its samples would be augmented too."
            do_next = "Leave training.augment out, or give the network that parameter (docs/how-to/own-code.md)."
            raise InputError(what, where=f"{recipe.origin(('training', 'augment'))}; {where}", do_next=do_next)


def _gathered(recipe: Document, section: str, model: type[BaseModel], named: list[tuple[Family, str]], library: Library) -> Document:
    """The recipe with own code's settings gathered, without what the bundled recipe that it extends says of the built-in choice."""
    own: dict[str, Parameter] = {}
    for family, address in named:
        where = str(recipe.origin((section, family.name)))
        signature = library.signature(family, address, where)
        for name, parameter in signature.settings.items():
            if name in own or (name in model.model_fields and name not in family.replaces):
                what = f"'{address}' has a parameter '{name}', and {section}.{name} is a setting already."
                raise InputError(what, where=f"{where}; {signature.where}", do_next="Give the parameter another name.")
            own[name] = parameter
    replaced = {name for family, _ in named for name in family.replaces}
    values = {
        name: value
        for name, value in recipe.values[section].items()
        if (name in model.model_fields and name not in replaced) or not _is_bundled(recipe.origin((section, name)).file)
    }
    for name in values:
        if name not in own and name not in model.model_fields:
            known = [*own, *sorted(model.model_fields.keys() - {OWN})]
            raise InputError(unknown("setting", f"{section}.{name}", name, known), where=str(recipe.origin((section, name))))
    given = {name: values.pop(name) for name in own if name in values}
    origins = {path[1:]: at for path, at in recipe.origins.items() if path[:1] == (section,)}
    values[OWN] = typed_values(section, own, Document(given, {(): recipe.origin((section,)), **origins}))
    return Document({**recipe.values, section: values}, recipe.origins)


def _is_bundled(file: str) -> bool:
    return not Path(file).is_absolute() and resources.files("edm2core.config").joinpath(file).is_file()


def typed_values(section: str, parameters: Mapping[str, Parameter], given: Document) -> dict[str, Any]:
    """The values of all parameters, those that are given checked by their types. Raises InputError with the line of a wrong one."""
    fields: dict[str, Any] = {  # a file has lists where the code has tuples
        name: (each.type, Field(each.default, strict=False if "tuple" in str(each.type) else None)) for name, each in parameters.items()
    }
    outer: Any = {section: (create_model("OwnSettings", __base__=Settings, **fields), ...)}
    nested = {(section, *path): at for path, at in given.origins.items()}
    document = Document({section: given.values}, {(): given.origin(()), **nested})
    built = getattr(build(create_model("Section", __base__=Settings, **outer), document), section)
    return {name: getattr(built, name) for name in parameters}
