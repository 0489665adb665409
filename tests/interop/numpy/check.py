#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exchanges arrays with NumPy, which has to be installed: DLPack both ways in one process, and
.npz files.

    g++ -std=c++20 -O1 -shared -fPIC -Iinclude -I/usr/include/eigen3 tests/interop/numpy/exchange.cpp -o exchange.so -lz
    tests/interop/numpy/check.py ./exchange.so
"""
import ctypes
import os
import sys
import tempfile
import zipfile

import numpy as np

api = ctypes.pythonapi
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
NAMES = {False: (b"dltensor", b"used_dltensor"), True: (b"dltensor_versioned", b"used_dltensor_versioned")}


def library(path):
    lib = ctypes.CDLL(path)
    for name in ("dpmp_take", "dpmp_give", "dpmp_address"):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.dpmp_take.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    lib.dpmp_give.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.dpmp_forget.argtypes = lib.dpmp_address.argtypes = [ctypes.c_void_p]
    lib.dpmp_copy_npz.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    lib.dpmp_message.restype = ctypes.c_char_p
    lib.dpmp_live_bytes.restype = ctypes.c_longlong
    return lib


def take(lib, array, versioned, copy=0):
    """A tensor of dpmp's that shares the memory of an array, or the text of the refusal."""
    capsule = array.__dlpack__(max_version=(1, 0)) if versioned else array.__dlpack__()
    name, used = NAMES[versioned]
    pointer = api.PyCapsule_GetPointer(capsule, name)
    api.PyCapsule_SetName(capsule, used)
    USED.append(used)  # a capsule keeps the pointer, not the text
    return lib.dpmp_take(pointer, versioned, copy) or lib.dpmp_message().decode()


class Shared:
    """What numpy.from_dlpack() asks: a tensor of dpmp's."""

    def __init__(self, lib, tensor):
        self.lib, self.tensor = lib, tensor

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, *, max_version=None, **unused):
        versioned = max_version is not None and max_version[0] >= 1
        return api.PyCapsule_New(self.lib.dpmp_give(self.tensor, versioned), NAMES[versioned][0], None)


class SharedWithoutVersion(Shared):
    def __dlpack__(self, **unused):
        return super().__dlpack__()


USED = []


def check_dlpack(lib):
    rng = np.random.default_rng()
    count = 0
    for dtype in (np.float32, np.float64, np.float16, np.int32):
        for shape in ((), (5,), (2, 3), (2, 1, 3, 2), (2, 2, 2, 2, 3), (0, 4)):
            for versioned in (False, True):
                array = np.asarray(rng.integers(-100, 100, shape), dtype=dtype)
                references = sys.getrefcount(array)
                tensor = take(lib, array, versioned)
                assert isinstance(tensor, int), tensor
                assert array.size == 0 or lib.dpmp_address(tensor) == array.ctypes.data
                if array.size:
                    assert sys.getrefcount(array) > references, "the tensor holds the array"
                back = np.from_dlpack((Shared if versioned else SharedWithoutVersion)(lib, tensor))
                lib.dpmp_forget(tensor)
                assert back.dtype == array.dtype and back.shape == array.shape and np.array_equal(back, array)
                if array.size:
                    array[...] = 7
                    assert (back == 7).all(), "one memory"
                del back
                assert sys.getrefcount(array) == references, "the array is given back"
                count += 1
    # What has to be copied: other types, gaps, other directions, read-only.
    base = rng.integers(0, 100, (6, 8))
    frozen = np.arange(4, dtype=np.float32)
    frozen.flags.writeable = False
    for array in (base, base.astype(np.uint8), base.astype(np.float32)[::2, 1::3], base.astype(np.float64).T,
                  base.astype(np.float32)[::-1], base > 50, frozen, np.broadcast_to(np.float32(3), (2, 3))):
        versioned = not array.flags.writeable  # numpy hands out read-only memory with a version alone
        assert "can be shared" in str(take(lib, array, versioned))
        tensor = take(lib, array, versioned, copy=1)
        assert isinstance(tensor, int), tensor
        assert np.array_equal(np.from_dlpack(Shared(lib, tensor)), array)
        lib.dpmp_forget(tensor)
        count += 1
    assert "of real numbers, integers" in take(lib, np.zeros(3, np.complex64), False)
    assert "values that i32 has" in take(lib, np.array([1 << 40]), False, copy=1)
    assert lib.dpmp_live_bytes() == 0
    print(f"DLPack: {count} arrays of NumPy {np.__version__} exchanged")


def check_npz(lib):
    rng = np.random.default_rng()
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        path, copied = (os.path.join(folder, name) for name in ("x.npz", "y.npz"))
        copy = lambda: lib.dpmp_copy_npz(path.encode(), copied.encode())
        for save in (np.savez, np.savez_compressed):
            for trial in range(40):
                arrays = {}
                for k in range(rng.integers(0, 5)):
                    shape = rng.integers(0, 5, rng.integers(0, 6))
                    dtype = rng.choice(["<f2", "<f4", "<f8", ">f4", "<i4", "<i8", "|u1", "|b1", ">i2"])
                    array = np.asarray(rng.integers(0, 200, shape)).astype(dtype)
                    arrays[f"layer{k}.gr\u00f6\u00dfe" if rng.integers(2) else f"a/{k}"] = array.T if rng.integers(2) else array
                save(path, **arrays)
                assert copy(), lib.dpmp_message().decode()
                assert zipfile.ZipFile(copied).testzip() is None
                with np.load(copied) as back:
                    assert back.files == list(arrays)
                    for name, array in arrays.items():
                        little = array.dtype.newbyteorder("<")
                        same = little.str in ("<f2", "<f4", "<f8", "<i4")
                        assert back[name].dtype == (little if same else np.float64)
                        assert back[name].shape == array.shape and np.array_equal(back[name], array)
                        count += 1
        np.savez(path, objects=np.array([None]))
        assert not copy() and "descr" in lib.dpmp_message().decode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as other:
            other.writestr("a.npy", b"x" * 100)
        assert not copy() and "method 12" in lib.dpmp_message().decode()
    print(f".npz: {count} arrays of NumPy {np.__version__} read, written and read back")


if __name__ == "__main__":
    check_dlpack(library(sys.argv[1]))
    check_npz(library(sys.argv[1]))
