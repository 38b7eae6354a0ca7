"""Print the counts of the house: `python tools/house.py [--json] [--root FOLDER]`.

The counts say how much a reader has to hold in mind: rooms, levels and arrows of imports, the way from
the command line to the gradient, and names that are not plain. The source is read and never imported.
"""

import argparse
import ast
import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "qhat"
LONGEST = 350
"""Lines of the longest file that still reads at one sitting."""
AT_THE_ROOT = {"__init__", "__main__", "_version"}
"""Modules that belong to no room."""
NOT_OURS = "package"
"""Folder of what is copied into the ROS 2 package of a robot; qhat does not import it."""
PAGE = "docs/architecture.md"
TO_THE_GRADIENT = "From the command to the gradient"
ONE_UPDATE = "One update"
"""Headings of `PAGE`: the lists under them name functions and files, each with its link."""
ENVIRONMENTS = "environments"
"""The room that may ask its own classes what they are."""
TRAIN = "runs/train.py"
BANNED = frozenset({
    "told", "own", "apart", "held", "once", "seen", "whose", "among", "brief", "sift", "settled", "adopt",
    "spoken", "stage", "beginning",
})  # fmt: skip
"""Everyday words that carried a technical load; the plain word says what the thing is."""


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the package.

    Args:
        name: dotted, without the package: `engine.replay.ring`; empty for the package itself.
        imports: names of other modules of the package that it imports, also inside functions.
    """

    name: str
    path: Path
    lines: int
    tree: ast.Module
    imports: frozenset[str] = frozenset()

    @property
    def room(self) -> str:
        """The folder directly below the package, or the module at the root."""
        return self.name.partition(".")[0] or "__init__"


def read_modules(source: Path) -> dict[str, Module]:
    """Read every module below `source`, by its dotted name."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        if NOT_OURS in parts:
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path, len(text.splitlines()), ast.parse(text))
    names = frozenset(modules)
    return {
        name: dataclasses.replace(module, imports=frozenset(imported(module, names)) - {name})
        for name, module in modules.items()
    }


def imported(module: Module, names: frozenset[str]) -> Iterator[str]:
    """Yield the modules that `module` imports; `from qhat.engine import loop` imports `engine.loop`."""
    is_package = module.path.name == "__init__.py"
    package = [PACKAGE, *filter(None, module.name.split("."))]
    package = package if is_package else package[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            targets = [
                whole if _short(whole := f"{base}.{alias.name}") in names else base for alias in node.names
            ]
        else:
            continue
        yield from (name for target in targets if (name := _short(target)) in names)


def _short(target: str) -> str | None:
    """The name of a module without the package; `None` outside the package."""
    first, _, rest = target.partition(".")
    return rest if first == PACKAGE else None


def arrows(modules: dict[str, Module]) -> set[tuple[str, str]]:
    """Return the pairs of different rooms of which the first imports from the second."""
    pairs = {(module.room, modules[name].room) for module in modules.values() for name in module.imports}
    return {(room, other) for room, other in pairs if room != other}


def levels(pairs: set[tuple[str, str]]) -> int:
    """Return the number of rooms on the longest path of imports; rooms in a circle share one level."""
    below = {room: {other for one, other in pairs if one == room} for pair in pairs for room in pair}

    @functools.cache
    def reachable(room: str) -> frozenset[str]:
        found, waiting = set(), [room]
        while waiting:
            fresh = below[waiting.pop()] - found
            found |= fresh
            waiting += fresh
        return frozenset(found)

    @functools.cache
    def height(room: str) -> int:
        circle = {room} | {other for other in reachable(room) if room in reachable(other)}
        return 1 + max((height(other) for each in circle for other in below[each] - circle), default=0)

    return max(map(height, below), default=1)


def dispatches(tree: ast.Module) -> int:
    """Count the `isinstance` calls that ask for a kind of environment."""
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and any(re.search(r"Environment\b", ast.unparse(kind)) for kind in node.args[1:])
        for node in ast.walk(tree)
    )


def largest_class(tree: ast.Module) -> int:
    """Return the number of attributes of the class that has the most."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return max((len(attributes(node)) for node in classes), default=0)


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the annotated fields of a class, and what its methods set on `self`."""
    fields = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    set_on_self = {
        target.attr
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }
    return fields | set_on_self


def identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that a file writes, with its line: of variables, arguments, definitions, imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.keyword(arg=str(name)):
                yield name, node.lineno
            case ast.alias(name=name, asname=alias):
                yield alias or name.rpartition(".")[2], node.lineno
            case ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno


def banned(name: str) -> frozenset[str]:
    """Return the banned words that are parts of a snake_case or CamelCase name."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")
    return BANNED.intersection(words)


def banned_in(folder: Path) -> Counter[str]:
    """Count the identifiers with a banned word in the files of a folder, and the names of these files."""
    found: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.py")):
        names = [name for name, _ in identifiers(ast.parse(path.read_text(encoding="utf-8")))]
        found.update(name for name in [*names, path.stem] if banned(name))
    return found


@dataclasses.dataclass(frozen=True)
class Link:
    """An item of a list of the page: the name in the link, the file, and its lines `first` to `last`."""

    name: str
    path: Path
    first: int | None
    last: int | None


ITEM = re.compile(r"^\s*\d+\.\s")
LINK = re.compile(r"\[`?([^\]`]+)`?\]\(([^)#\s]+)(?:#L(\d+)(?:-L(\d+))?)?\)")


def links_under(page: Path, heading: str) -> list[Link]:
    """Return the first link of each item of the numbered list under a heading.

    An item without a link is not ours: the list to the gradient ends with JAX's function.
    """
    _, _, section = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    found = []
    for item in filter(ITEM.match, section.splitlines()):
        link = LINK.search(item)
        if link is not None:
            name, file, first, last = link.groups()
            path = (page.parent / file).resolve()
            found.append(Link(name, path, *(None if line is None else int(line) for line in (first, last))))
    return found


def lines_to_read(links: list[Link]) -> int:
    """Count the lines: of a link `#L10-L30` these, of any other its whole file, each line once."""
    lines: dict[Path, set[int]] = {}
    for link in links:
        whole = range(1, len(link.path.read_text(encoding="utf-8").splitlines()) + 1)
        part = whole if link.first is None or link.last is None else range(link.first, link.last + 1)
        lines.setdefault(link.path, set()).update(part)
    return sum(map(len, lines.values()))


def reading(page: Path) -> dict[str, int | str]:
    """Count what the page says is on the way to the gradient, and what to read for one update."""
    if not page.is_file():
        missing = f"{PAGE} is not there"
        return dict.fromkeys(("hops", "files_to_gradient", "files_of_update", "lines_of_update"), missing)
    hops, update = (links_under(page, heading) for heading in (TO_THE_GRADIENT, ONE_UPDATE))
    return {
        "hops": len(hops),
        "files_to_gradient": len({link.path for link in hops}),
        "files_of_update": len({link.path for link in update}),
        "lines_of_update": lines_to_read(update),
    }


MEANINGS = {
    "rooms": "rooms: folders directly below the package",
    "loose_modules": "loose modules at the root",
    "levels": "levels of imports between rooms",
    "arrows": "import arrows between rooms",
    "modules": "modules",
    "one_importer": "modules with exactly one importer",
    "long_files": f"files of more than {LONGEST} lines",
    "hops": "functions from the command line to jax.value_and_grad",
    "files_to_gradient": "files of these functions",
    "files_of_update": "files to read to understand one update",
    "lines_of_update": "lines of them",
    "dispatches": "isinstance dispatches over environments, outside their room",
    "attributes": f"attributes of the largest class in {TRAIN}",
    "banned_in_source": "identifiers with a banned word, in the source",
    "banned_in_tests": "identifiers with a banned word, in the tests",
}


def count(root: Path) -> dict[str, int | str]:
    """Count the house of a repository, in the order of `MEANINGS`."""
    source = root / "src" / PACKAGE
    modules = read_modules(source)
    pairs = arrows(modules)
    importers = Counter(name for module in modules.values() for name in module.imports)
    train = source / TRAIN
    found: dict[str, int | str] = {
        "rooms": sum(1 for folder in source.iterdir() if any(folder.glob("*.py"))),
        "loose_modules": sum(path.stem not in AT_THE_ROOT for path in source.glob("*.py")),
        "levels": levels(pairs),
        "arrows": len(pairs),
        "modules": len(modules),
        "one_importer": sum(times == 1 for times in importers.values()),
        "long_files": sum(module.lines > LONGEST for module in modules.values()),
        "dispatches": sum(
            dispatches(module.tree) for module in modules.values() if module.room != ENVIRONMENTS
        ),
        "attributes": largest_class(modules["runs.train"].tree) if train.is_file() else 0,
        "banned_in_source": banned_in(source).total(),
        "banned_in_tests": banned_in(root / "tests").total(),
        **reading(root / PAGE),
    }
    return {name: found[name] for name in MEANINGS}


def main() -> None:
    """Print the counts as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(description="Print the counts of the house.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=Path, default=here, help="repository to count (default: this one)")
    options = parser.parse_args()
    counts = count(options.root)
    if options.json:
        print(json.dumps(counts, indent=2))
        return
    for name, meaning in MEANINGS.items():
        print(f"{counts[name]:>8}  {meaning}")


if __name__ == "__main__":
    main()
