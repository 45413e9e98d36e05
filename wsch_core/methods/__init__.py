"""Methods: what turns a video's frame features into a hash code. `method.py` is the page that each of them fills."""

from __future__ import annotations

from typing import Any

from ..data import Dataset
from ..data.definition import Definition
from ..storage.words import unknown_name
from .autossvh import AutoSSVHMethod
from .bth import BTHMethod
from .conmh import ConMHMethod
from .method import Method
from .s5vh import S5VHMethod
from .ssvh import SSVHMethod
from .wsch.method import WSCHMethod

METHODS: dict[str, type[Method]] = {  # by the name that settings.json and notebooks use
    "wsch": WSCHMethod,
    "conmh": ConMHMethod,
    "autossvh": AutoSSVHMethod,
    "bth": BTHMethod,
    "ssvh": SSVHMethod,
    "s5vh": S5VHMethod,
}
DEFAULT = "wsch"  # also of runs whose settings.json names none: they are older than the other methods


def method_named(name: str | None) -> type[Method]:
    """None is WSCH. Raises ValueError for an unknown name, with the closest known one."""
    name = DEFAULT if name is None else name
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(unknown_name("method", name, list(METHODS)))
    return METHODS[name]


def method_of(settings: Any) -> str:
    """The name of the method whose settings these are."""
    return next(name for name, method in METHODS.items() if type(settings) is method.Settings)


def settings_for(dataset: Dataset, /, recipe: str | None = None, method: str | None = None, **chosen: Any) -> Any:
    """Settings for a data set: what is chosen, else the recipe's, else the data set's own, else the published values.

    recipe: a name in the method's `recipes`; None is the data set's own for WSCH, for other methods what was published for
        a data set of this name, and else "published"
    method: a name in `METHODS`; None is "wsch"
    None leaves a choice open. Raises ValueError for unknown names and bad values, those of the data set's definition
    (its table [settings]; [settings.NAME] for another method than WSCH) with the file's name.
    """
    return method_named(method).Settings.create(
        chosen | {"dataset": dataset.name}, defaults_for(dataset.definition, recipe, method)
    )


def defaults_for(definition: Definition, recipe: str | None = None, method: str | None = None) -> dict[str, Any]:
    """What a data set's definition and a recipe change of a method's published values; see `settings_for`."""
    of = method_named(method)
    own = {name: value for name, value in definition.settings.items() if not isinstance(value, dict)}
    if method not in (None, DEFAULT):
        own = definition.settings.get(method, {})
        recipe = definition.name if recipe is None and not own and definition.name in of.recipes else recipe
    else:
        recipe = definition.recipe or None if recipe is None else recipe
    try:
        of.Settings.create({}, own)
    except ValueError as error:
        raise ValueError(f"{definition.path}: [settings] {error}") from error
    return own | recipe_settings(recipe, of)


def recipe_settings(name: str | None, of: type[Method] = WSCHMethod) -> dict[str, Any]:
    """What a recipe changes of the published method; None is the published one. Raises ValueError for an unknown name."""
    name = "published" if name is None else name
    if not isinstance(name, str) or name not in of.recipes:
        raise ValueError(unknown_name("recipe", name, list(of.recipes)))
    return dict(of.recipes[name])


def recipe_of(settings: Any) -> str:
    """The recipe that settings follow in all it changes; "published" if no other."""
    values, recipes = settings.as_dict(), METHODS[method_of(settings)].recipes
    followed = [name for name, changes in recipes.items() if changes and changes.items() <= values.items()]
    return followed[0] if followed else "published"
