from __future__ import annotations

import sys

import pytest

from edgecxr.errors import MissingPackage, UsageError
from edgecxr.registry import BACKENDS, DATASETS, METHODS, check, load, resolve


@pytest.mark.parametrize(("table", "name"), [(t, n) for t in (BACKENDS, METHODS, DATASETS) for n in t])
def test_there_is_something_behind_every_name(table, name):
    assert callable(resolve(table, name, "name"))


def test_a_method_says_whether_it_needs_a_teacher():
    assert [name for name in METHODS if not resolve(METHODS, name, "method").needs_teacher] == ["none"]


def test_a_slip_of_the_keyboard_gets_a_hint_and_the_choice():
    with pytest.raises(UsageError) as error:
        resolve(METHODS, "mlcack", "method")
    names = "none, vanilla, hinton, last-block, one-to-one, mlcak"
    assert str(error.value) == f"unknown method 'mlcack'; did you mean 'mlcak'? (there are: {names})"
    with pytest.raises(UsageError) as error:
        check(DATASETS, "xyz", "data set")
    names = "phantom, vindr, vinbigdata, nih, chexpert, mimic-cxr, chestmnist, folder"
    assert str(error.value) == f"unknown data set 'xyz' (there are: {names})"


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    for package, extra in (("torch", "train"), ("onnx", "export")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, "edgecxr.export.onnx", raising=False)
        with pytest.raises(MissingPackage, match=rf"the export needs {package}, .*\[{extra}\]'$"):
            load("edgecxr.export.onnx:export_fp32", "the export")
        monkeypatch.undo()


def test_a_mistake_in_our_own_imports_is_not_taken_for_a_missing_package():
    with pytest.raises(ModuleNotFoundError, match=r"edgecxr\.nowhere"):
        load("edgecxr.nowhere:Thing", "a test")
