"""Checkpoints: a pytree as safetensors beside a JSON manifest. Loading reads data and runs no code."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from qhat.runs import tensors
from qhat.system import files
from qhat.system.errors import UsageError, require
from qhat.system.host_memory import require_memory

FORMAT = 2
MANIFEST = "manifest.json"
SUFFIX = ".safetensors"
IN_FILES = {"outlook": "seen"}
"""Fields that have another name in files: that of qhat 0.1, so that old and new files are alike."""
FILE, HASH = re.compile(r"[\w-]+\.safetensors"), re.compile("[0-9a-f]{64}")


def write(
    folder: Path, trees: Mapping[str, Any], about: Mapping[str, Any], same: Mapping[str, Path] | None = None
) -> None:
    """Write each tree to `<name>.safetensors` and `about` to the manifest, all or nothing.

    Everything goes to a folder beside the target first, which is renamed when it is complete and on
    disk. A kill therefore leaves the old checkpoint or the new one.

    Args:
        same: trees that another checkpoint has already, and its folder, or the file there where it has
            another name; their files are linked.

    Raises:
        UsageError: `folder` is something else than a checkpoint; it does not change.
        OSError: the disk is full. `folder` does not change, and nothing is left beside it.
    """
    folder = folder.resolve()
    _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing_folder(folder) as new:
        _fill(new, trees, about, same or {})
    _to_disk(folder.parent)


def _fill(new: Path, trees: Mapping[str, Any], about: Mapping[str, Any], same: Mapping[str, Path]) -> None:
    """Write a whole checkpoint, on disk when this returns."""
    hashes = {}
    files_of = {
        name: source if source.suffix == SUFFIX else source / f"{name}{SUFFIX}"
        for name, source in same.items()
    }
    known = {
        folder: read_manifest(folder)["sha256"] for folder in {old.parent for old in files_of.values()}
    }
    for name, old in files_of.items():
        path = new / f"{name}{SUFFIX}"
        _link(old, path)
        hashes[path.name] = known[old.parent][old.name]
    for name, tree in trees.items():
        path = new / f"{name}.safetensors"
        try:
            save_file(flatten(tree), path)
        except SafetensorError as error:
            # safetensors wraps the system's error in another text.
            raise OSError(str(error)) from None
        hashes[path.name] = _sha256(path)
        _to_disk(path)
    manifest = new / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "sha256": hashes, **about}, indent=2) + "\n")
    _to_disk(manifest)
    _to_disk(new)


def _link(old: Path, new: Path) -> None:
    """Give a file a second name; copy it on a disk without hard links."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
        _to_disk(new)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest.

    Raises:
        UsageError: the folder is no checkpoint of qhat, or has another format.
    """
    path = files.current_folder(folder) / MANIFEST
    try:
        manifest = files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"'{folder}' is no qhat checkpoint: it has no {MANIFEST}.") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise UsageError(f"'{path}' is not a qhat manifest: it names no format.")
    found = manifest["format"]
    require(
        type(found) is int and found == FORMAT,
        f"'{folder}' has checkpoint format {files.quote(found)}; this qhat reads {FORMAT}.",
    )
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict):
        raise UsageError(
            f"'{path}' is damaged: its sha256 is {files.quote(hashes)}; expected names and hashes."
        )
    for name, value in hashes.items():
        require(
            bool(FILE.fullmatch(name)) and isinstance(value, str) and bool(HASH.fullmatch(value)),
            f"'{path}' is damaged: its sha256 has {files.quote(name)}: {files.quote(value)}; expected a"
            " file of this folder and 64 digits.",
        )
    return manifest


def read_tree(folder: Path, name: str, like: Any, finite: Iterable[str] = ()) -> Any:
    """Read the tree `name` into the structure, shapes and dtypes of `like`.

    Nothing is allocated before the header, the file's size and its hash are those expected.

    Args:
        like: a tree of arrays or of `jax.ShapeDtypeStruct`s.
        finite: paths of branches that must be finite; an empty path is the whole tree.

    Raises:
        UsageError: damaged, missing or foreign data; nothing else changed.
    """
    folder = files.current_folder(folder)
    path = folder / f"{name}.safetensors"
    expected = read_manifest(folder)["sha256"].get(path.name)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    forms = {_name(where): _form(leaf) for where, leaf in leaves}
    require_memory(sum(form.nbytes for form in forms.values()), f"'{path}'", "expected a smaller one")
    try:
        with files.open_plain(path) as file:
            places = tensors.places(file, path, forms)
            _require_hash(file, path, expected)
            values = {leaf: tensors.load(file, path, leaf, places[leaf], forms[leaf]) for leaf in forms}
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"'{path}' is missing: the checkpoint is damaged.") from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from None
    for leaf, value in values.items():
        if jnp.issubdtype(value.dtype, np.floating) and any(_within(leaf, branch) for branch in finite):
            require(
                bool(np.isfinite(value).all()),
                f"'{path}': weights '{leaf}' have values that are not finite: training diverged, or the"
                " file is damaged. Expected finite numbers; use another checkpoint.",
            )
    ordered = [(values[_name(where)], _is_key(leaf)) for where, leaf in leaves]
    arrays = [jax.random.wrap_key_data(jnp.asarray(value)) if key else value for value, key in ordered]
    return jax.tree_util.tree_unflatten(structure, arrays)


def read_leaf(folder: Path, name: str, leaf: str, like: Any) -> np.ndarray:
    """Read one array of the tree `name`, by its path; the rest of the file is only hashed.

    Args:
        like: an array or struct of the same shape and dtype.

    Raises:
        UsageError: as `read_tree`.
    """
    path, form = files.current_folder(folder) / f"{name}.safetensors", _form(like)
    expected = read_manifest(folder)["sha256"].get(path.name)
    require_memory(form.nbytes, f"'{path}'", "expected a smaller one")
    try:
        with files.open_plain(path) as file:
            at = tensors.place(file, path, leaf, form)
            _require_hash(file, path, expected)
            return tensors.load(file, path, leaf, at, form)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"'{path}' is missing: the checkpoint is damaged.") from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from None


def _require_hash(file: Any, path: Path, expected: str | None) -> None:
    file.seek(0)
    require(
        hashlib.file_digest(file, "sha256").hexdigest() == expected,
        f"'{path}' is damaged: its SHA-256 is not the manifest's.",
    )


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Return every leaf by its path. Random keys become arrays of numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): np.asarray(_words(leaf), order="C") for path, leaf in leaves}


def _form(leaf: Any) -> tensors.Form:
    if _is_key(leaf):
        return tensors.Form((*leaf.shape, 2), np.dtype(np.uint32))
    return tensors.Form(tuple(leaf.shape), np.dtype(leaf.dtype))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _within(name: str, branch: str) -> bool:
    return not branch or name == branch or name.startswith(branch + "/")


def _name(path: Any) -> str:
    return "/".join(_in_file(key) for key in path)


def _in_file(key: Any) -> str:
    name = jax.tree_util.keystr((key,), simple=True)
    is_field = isinstance(key, jax.tree_util.GetAttrKey)
    return IN_FILES.get(name, name) if is_field else name


def _words(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _require_replaceable(folder: Path) -> None:
    """Refuse to overwrite anything but a checkpoint."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder.is_dir() and (folder / MANIFEST).is_file()):
        raise UsageError(
            f"'{folder}' exists and is no qhat checkpoint; expected a new folder, or a checkpoint to"
            " replace. Nothing was written."
        )


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
    """Remove a checkpoint, or the remains of one after a kill."""
    shutil.rmtree(folder, ignore_errors=True)
