"""Options are declared once: by a recipe, by `Settings`, or by the configuration of the data."""

import inspect
import re
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from kappaflow.cli.fit import fit
from kappaflow.cli.fit_options import (
    OF_TABLES,
    RENAMED,
    FitImages,
    FitTable,
    ModelFlags,
    TrainingFlags,
)
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity, FlowOutlierDetector
from kappaflow.flows.recipe import flat_signature
from kappaflow.images import ImageConfig
from kappaflow.images.kind import ImageKind
from kappaflow.images.options import ImageOptions
from kappaflow.options import (
    AnyModel,
    ImageModel,
    OptionGroup,
    TableModel,
    descriptions,
    write_section,
)
from kappaflow.runs import TableConfig
from kappaflow.runs.recipes import COUPLINGS, DEFAULTS, RECIPES, options_of
from kappaflow.table_options import TableOptions
from kappaflow.training import Settings

OF_THE_COMMAND = {
    *("data", "out", "model", "search_time", "seed", "device", "tensorboard", "quiet", "json"),
    *("images", "options", "training", "rows"),  # classes of options
}
# Arguments of recipes that the command line does not offer, and why.
PYTHON_ONLY = {
    "context_features": "follows from --context and --by-class",
    "values": "follows from the images",
    "bounds": "follows from --bounds, by column",
    "seed": "drawn by the recipe; --seed decides the weights, the rows and the split",
    "embedding": "a network",
    "min_bin": "bounds slopes; SplineCoupling explains what for",
    "min_slope": "bounds slopes; SplineCoupling explains what for",
    "spatial_every": "a detail of jet that its source keeps fixed",
    "heads": "a detail of jet that its source keeps fixed",
    "blocks": "depth of the networks; --width and --hidden set their size",
}


def test_each_option_has_a_description():
    """Help, reference and estimators show it, from the one place where the option is declared."""
    estimators = FlowDensity, ConditionalFlowDensity, FlowOutlierDetector
    for declared in (*OptionGroup.__subclasses__(), *ImageOptions.__subclasses__(), TableOptions):
        assert names(declared) == set(descriptions(declared)), declared
        assert all(f"    {name}: " in declared.__doc__ for name in names(declared))
    for estimator in estimators:
        parameters = estimator.__doc__.partition("Args:\n")[2].partition("\nAttributes:")[0]
        assert names(estimator) == set(re.findall(r"^    (\w+): ", parameters, re.MULTILINE))


def test_descriptions_do_not_depend_on_the_indent_of_docstrings():
    """Python removes the indent of docstrings from 3.13 on; earlier versions keep it."""
    kept = type("Kept", (), {"__doc__": "Options.\n\n    Example:\n        >>> 1\n    "})
    removed = type("Removed", (), {"__doc__": "Options.\n\nExample:\n    >>> 1\n"})
    for cls in (kept, removed):
        write_section(cls, "Attributes", {"depth": "Number of couplings."})
        assert cls.__doc__ == (
            "Options.\n\nAttributes:\n    depth: Number of couplings.\n\nExample:\n    >>> 1\n"
        )


def names(options):
    """Returns the names of the fields of a dataclass."""
    return {field.name for field in fields(options)}


def leaves(hint):
    """Returns the types and the choices in a type hint, without None."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return leaves(args[0])
    if origin is Literal:
        return set(args)
    if origin in (Union, UnionType):
        return set().union(*map(leaves, args))
    return set() if hint is NoneType else {hint}


def test_models_have_the_names_of_their_recipes():
    """The command line offers every recipe."""
    assert set(get_args(TableModel)) == set(RECIPES)
    assert set(get_args(ImageModel)) == set(ImageKind().models())


def test_each_option_of_fit_has_one_declaration():
    """It is an argument of a recipe, a field of the settings or of the data, or fit's own."""
    arguments = set().union(*map(options_of, get_args(AnyModel)))
    assert {RENAMED.get(name, name) for name in names(ModelFlags)} <= arguments
    assert names(TrainingFlags) <= set(Settings.model_fields) and names(TrainingFlags) >= OF_TABLES
    assert names(FitTable) <= names(TableConfig) and names(FitImages) <= names(ImageConfig)
    assert set(inspect.signature(fit).parameters) == OF_THE_COMMAND


@pytest.mark.parametrize("model", get_args(AnyModel))
def test_each_argument_of_a_recipe_is_an_option(model):
    """The others are listed with a reason."""
    offered = {RENAMED.get(name, name) for name in names(ModelFlags)}
    assert set(options_of(model)) <= offered | set(PYTHON_ONLY)
    assert not offered & set(PYTHON_ONLY)


def test_options_have_the_types_and_choices_of_the_recipes():
    """An option takes what the signature of each recipe takes."""
    hints = get_type_hints(ModelFlags, include_extras=True)
    plain = {name: leaves(hint) for name, hint in hints.items()}
    for recipe in (*RECIPES.values(), *ImageKind().models().values()):
        parameters = flat_signature(recipe).parameters
        for name, taken in plain.items():
            parameter = parameters.get(RENAMED.get(name, name))
            if parameter is not None and name != "hidden":  # a sequence, or one number
                assert taken <= leaves(parameter.annotation), (recipe, name)


def test_defaults_of_runs_are_not_those_of_the_recipes():
    """A default that equals the recipe's is not repeated."""
    for recipe in COUPLINGS:
        options = options_of(recipe)
        assert all(value != options[name] for name, value in DEFAULTS.items())
