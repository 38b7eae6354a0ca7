"""Print what a dependency costs on disk: `python tools/dependency_cost.py gymnax [PACKAGE ...]`.

Counted are the package and what no other runtime dependency of qhat's needs, as installed here.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needs(name: str) -> set[str]:
    """Return a package and everything that it needs without extras, by canonical names."""
    found, left = set[str](), [canonicalize_name(name)]
    while left:
        package = left.pop()
        if package in found:
            continue
        try:
            requirements = [Requirement(text) for text in distribution(package).requires or []]
        except PackageNotFoundError:
            continue
        found.add(package)
        left += [canonicalize_name(each.name) for each in requirements if _applies(each)]
    return found


def size(package: str) -> int:
    """Return the bytes of a package's files."""
    paths = [Path(str(file.locate())) for file in distribution(package).files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main(names: list[str]) -> None:
    """Print a table for each name."""
    ours = [Requirement(text) for text in distribution("qhat").requires or []]
    runtime = {canonicalize_name(each.name) for each in ours if _applies(each)}
    for name in map(canonicalize_name, names):
        others = set[str]().union(*(needs(other) for other in runtime - {name}))
        sizes = sorted(((size(package), package) for package in needs(name) - others), reverse=True)
        print(f"{name}: {sum(count for count, _ in sizes) / 1e6:,.0f} MB in {len(sizes)} packages")
        for count, package in sizes:
            print(f"  {count / 1e6:8.1f} MB  {package} {distribution(package).version}")


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


if __name__ == "__main__":
    main(sys.argv[1:])
