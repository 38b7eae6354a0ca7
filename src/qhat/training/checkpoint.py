"""Checkpoints: a pytree as safetensors beside a JSON manifest. Loading is data only, never code."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qhat.errors import UsageError

FORMAT = 2
MANIFEST = "manifest.json"


def write(
    folder: Path, trees: Mapping[str, Any], about: Mapping[str, Any], same: Mapping[str, Path] | None = None
) -> None:
    """Write each tree to `<name>.safetensors` and `about` to the manifest, all or nothing.

    Everything goes to a folder beside the target first and is renamed when it is whole and on
    disk, so a kill leaves the old checkpoint or the new one.

    Args:
        same: trees that are in another checkpoint already, and which; their files are linked, not written.

    Raises:
        UsageError: there is something at `folder` that is no checkpoint; it is left as it is.
        OSError: the disk took no more. `folder` is as it was, and nothing is left beside it.
    """
    folder = folder.resolve()
    _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _settle(folder)
    new = _beside(folder, "new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        _fill(new, trees, about, same or {})
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        old = _beside(folder, "old")
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(folder)
    _to_disk(folder.parent)


def _fill(new: Path, trees: Mapping[str, Any], about: Mapping[str, Any], same: Mapping[str, Path]) -> None:
    """Write a whole checkpoint, on disk when this returns."""
    new.mkdir()
    hashes = {}
    known = {source: read_manifest(source)["sha256"] for source in set(same.values())}
    for name, source in same.items():
        path = source / f"{name}.safetensors"
        _link(path, new / path.name)
        hashes[path.name] = known[source][path.name]
    for name, tree in trees.items():
        path = new / f"{name}.safetensors"
        try:
            save_file(flatten(tree), path)
        except SafetensorError as error:
            # It wraps the system's error in text of its own.
            raise OSError(str(error)) from None
        hashes[path.name] = _sha256(path)
        _to_disk(path)
    manifest = new / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "sha256": hashes, **about}, indent=2) + "\n")
    _to_disk(manifest)
    _to_disk(new)


def _link(old: Path, new: Path) -> None:
    """Give a file a second name; on a disk that has no such thing, copy it."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
        _to_disk(new)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest.

    Raises:
        UsageError: the folder is no checkpoint of qhat's, or of another format.
    """
    path = whole(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"'{folder}' is no qhat checkpoint: it has no {MANIFEST}.") from None
    except (OSError, ValueError):
        raise UsageError(f"'{path}' cannot be read as JSON: the checkpoint is damaged.") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise UsageError(f"'{path}' is not a qhat manifest: it names no format.")
    if manifest["format"] != FORMAT:
        raise UsageError(
            f"'{folder}' has checkpoint format {manifest['format']!r}; this qhat reads {FORMAT}."
        )
    return manifest


def read_tree(folder: Path, name: str, like: Any) -> Any:
    """Read the tree `name` into the structure, shapes and dtypes of `like`.

    Args:
        like: a tree of arrays or of `jax.ShapeDtypeStruct`s.

    Raises:
        UsageError: damaged, missing or foreign data; nothing else was touched.
    """
    path = whole(folder) / f"{name}.safetensors"
    expected = read_manifest(folder).get("sha256", {})
    try:
        if not isinstance(expected, dict) or expected.get(path.name) != _sha256(path):
            raise UsageError(f"'{path}' is damaged: its SHA-256 is not the manifest's.")
        with safe_open(path, framework="numpy") as file:
            return _unflatten(file, like, path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from None


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Name every leaf by its path. Random keys become their words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): np.asarray(_words(leaf), order="C") for path, leaf in leaves}


def _unflatten(file: Any, like: Any, path: Path) -> Any:
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = set(file.keys())
    wanted = [_name(where) for where, _ in leaves]
    if set(wanted) != names:
        odd = sorted(set(wanted) ^ names)[0]
        verb = "lacks" if odd in wanted else "has an unexpected"
        raise UsageError(f"'{path}' is of another composition: it {verb} tensor '{odd}'.")
    values = []
    for name, (_, leaf) in zip(wanted, leaves, strict=True):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        shape = (*leaf.shape, 2) if is_key else tuple(leaf.shape)
        dtype = np.dtype(np.uint32) if is_key else np.dtype(leaf.dtype)
        part = file.get_slice(name)
        if tuple(part.get_shape()) != shape:
            raise UsageError(
                f"'{path}' is of another composition: tensor '{name}' has shape"
                f" {tuple(part.get_shape())}, expected {shape}."
            )
        value = file.get_tensor(name)
        if value.dtype != dtype:
            raise UsageError(f"'{path}': tensor '{name}' is {value.dtype}; expected {dtype}.")
        values.append(jax.random.wrap_key_data(value) if is_key else value)
    return jax.tree_util.tree_unflatten(structure, values)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _words(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def whole(folder: Path) -> Path:
    """Return where the checkpoint is: beside `folder` while a writer swaps it. Changes nothing."""
    old = _beside(folder, "old")
    return old if old.exists() and not folder.exists() else folder


def _beside(folder: Path, word: str) -> Path:
    """A name next to `folder` that nobody else would choose."""
    return folder.with_name(f".{folder.name}.qhat-{word}")


def _require_replaceable(folder: Path) -> None:
    """Refuse to write over what is not a checkpoint."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder.is_dir() and (folder / MANIFEST).is_file()):
        raise UsageError(
            f"'{folder}' exists and is no qhat checkpoint; expected a new folder, or a checkpoint to"
            " replace. Nothing was written."
        )


def _settle(folder: Path) -> None:
    """Mend what a kill between the two renames of `write` left: the older one is whole."""
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a checkpoint, or what a kill left of one."""
    shutil.rmtree(folder, ignore_errors=True)
