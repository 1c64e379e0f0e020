"""Templates of pages: those of one package, and the parts and the style that all pages share."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

SHARED = "cwerm.suspects"


def page_template(package: str, name: str) -> Template:
    """A template in which names and paths are text, whatever they hold."""
    packages = dict.fromkeys((package, SHARED))
    loader = ChoiceLoader([PackageLoader(each, "") for each in packages])
    rooms = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return rooms.get_template(name)
