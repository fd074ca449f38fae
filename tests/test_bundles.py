"""Kept bundles: whole or not there, and only as long as a baseline needs them."""

import shutil
from pathlib import Path

import pytest

from fisher_edge.errors import StateError
from fisher_edge.store.bundles import find, forget_unused, keep

SHA = "5" * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a folder that looks like a bundle."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / "model.onnx").write_bytes(b"model")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_kept_bundle_is_found_by_its_model(tmp_path: Path, bundle: Path) -> None:
    """The copy has every file and needs the original no more; another model is not found."""
    state = tmp_path / "state"
    assert find(state, SHA) is None
    keep(state, bundle, SHA)
    kept = content(bundle)
    shutil.rmtree(bundle)
    found = find(state, SHA)
    assert found is not None
    assert content(found) == kept
    assert find(state, "6" * 64) is None
    assert found.parent.stat().st_mode & 0o007 == 0


def test_bundle_that_is_kept_is_not_copied_again(tmp_path: Path, bundle: Path) -> None:
    """Keeping the same model twice needs no write."""
    keep(tmp_path, bundle, SHA)
    (bundle / "model.onnx").write_bytes(b"another")
    keep(tmp_path, bundle, SHA)
    found = find(tmp_path, SHA)
    assert found is not None
    assert content(found)["model.onnx"] == b"model"


def test_copy_that_fails_leaves_nothing(tmp_path: Path, bundle: Path) -> None:
    """A copy that cannot be completed is one line, is not found afterwards, and is made whole the next time."""
    (bundle / "views.npy").symlink_to(bundle / "nowhere")
    with pytest.raises(StateError, match=r"cannot keep the bundle .*make room") as caught:
        keep(tmp_path, bundle, SHA)
    assert "\n" not in str(caught.value)
    assert find(tmp_path, SHA) is None
    assert list((tmp_path / "bundles").iterdir()) == []
    (bundle / "nowhere").touch()
    keep(tmp_path, bundle, SHA)
    found = find(tmp_path, SHA)
    assert found is not None
    assert content(found) == content(bundle)


def test_copy_of_a_killed_process_is_replaced(tmp_path: Path, bundle: Path) -> None:
    """What a process that was killed left half copied is not found, and not mixed into the next copy."""
    half = tmp_path / "bundles" / f"{SHA}.partial"
    half.mkdir(parents=True)
    (half / "rest").touch()
    assert find(tmp_path, SHA) is None
    keep(tmp_path, bundle, SHA)
    found = find(tmp_path, SHA)
    assert found is not None
    assert content(found) == content(bundle)
    assert not half.exists()


def test_only_bundles_that_a_baseline_needs_stay(tmp_path: Path, bundle: Path) -> None:
    """Those of no baseline are deleted, half copies too; where nothing was kept there is nothing to do."""
    forget_unused(tmp_path, {SHA})
    for number in "567":
        keep(tmp_path, bundle, number * 64)
    (tmp_path / "bundles" / f"{SHA}.partial").mkdir()
    forget_unused(tmp_path, {"5" * 64, "7" * 64, "8" * 64})
    assert sorted(each.name[:8] for each in (tmp_path / "bundles").iterdir()) == ["5" * 8, "7" * 8]
    assert find(tmp_path, "5" * 64)
    assert find(tmp_path, "6" * 64) is None
