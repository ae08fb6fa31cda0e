"""Every public name stands on one API page, and every page of docs/ in the navigation."""

import pkgutil
import re
from pathlib import Path
from types import ModuleType

import keras_vqvae2

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
DIRECTIVE = re.compile(r"^::: (\S+)", re.MULTILINE)
LINK = re.compile(r"(?:\]\(|\]: )([^)#\s]*\.md)#(keras_vqvae2[^)\s]*)")
NAVIGATION = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


def directives(page):
    """The objects that a page shows, by the names that the page gives them.

    Of a module and a function of one name it shows the module, and so does `resolve_name`.
    """
    return {name: pkgutil.resolve_name(name) for name in DIRECTIVE.findall(PAGES[page])}


def public_names():
    """Pairs of an object and its name: the package's own, and those of its public modules."""
    own = {name: getattr(keras_vqvae2, name) for name in keras_vqvae2.__all__}
    namespaces = [value for value in own.values() if isinstance(value, ModuleType)]
    for namespace in (keras_vqvae2, *namespaces):
        for name in namespace.__all__:
            value = getattr(namespace, name)
            if not isinstance(value, (ModuleType, str)):
                yield value, f"{namespace.__name__}.{name}"


def test_public_names_are_on_one_api_page():
    pages = [page for page in PAGES if page.startswith("api/")]
    shown = [value for page in pages for value in directives(page).values()]
    times = {name: sum(value is s for s in shown) for value, name in public_names()}
    assert len(times) > 70
    assert {name: count for name, count in times.items() if count != 1} == {}


def test_navigation_is_the_pages():
    assert sorted(NAVIGATION) == sorted(PAGES)


def test_links_to_api_pages_lead_to_an_object():
    lost = []
    for page, text in PAGES.items():
        for target, anchor in LINK.findall(text):
            api_page = str((DOCS / page).parent.joinpath(target).resolve().relative_to(DOCS))
            shown = directives(api_page)
            owner, _, member = anchor.rpartition(".")
            if anchor not in shown and not hasattr(shown.get(owner), member):
                lost.append((page, target, anchor))
    assert lost == []
