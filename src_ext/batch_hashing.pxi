# Many hashes in one call.


def hash_many(keys, seed=0):
    """XXH64 of each key, as a uint64 array: `pick_many` takes it, and so does an xDS-fed peer.

    Args:
        keys: a sequence of what `hash64` takes, or an array of fixed-width bytes (dtype S), hashed where it lies; its
            items end before their trailing zero bytes, as numpy's own do.
        seed: 0 to 2**64 - 1.

    Raises TypeError and ValueError as `hash64` does.

    >>> import lbcore
    >>> [hex(each) for each in lbcore.hash_many(["user-1", b"user-1"])]
    ['0xa173746b114c6be8', '0xa173746b114c6be8']
    """
    cdef uint64_t start = checked_seed(seed)
    cdef numpy.ndarray array, hashes
    cdef numpy.npy_intp count
    cdef Py_ssize_t i
    cdef uint64_t* out
    if numpy.PyArray_Check(keys) and numpy.PyArray_NDIM(keys) == 1:
        if numpy.PyArray_TYPE(keys) == numpy.NPY_STRING:
            return hash_fixed_width(numpy.PyArray_GETCONTIGUOUS(keys), start)
        keys = keys.tolist()
    if isinstance(keys, (str, bytes, bytearray, memoryview)) or not hasattr(keys, "__iter__"):
        raise TypeError(f"keys: expected a sequence of keys, got {type(keys).__name__}")
    keys = list(keys)
    count = len(keys)
    hashes = numpy.PyArray_SimpleNew(1, &count, numpy.NPY_UINT64)
    out = <uint64_t*>numpy.PyArray_DATA(hashes)
    for i in range(count):
        out[i] = hash_of(keys[i], start)
    return hashes


cdef numpy.ndarray hash_fixed_width(numpy.ndarray keys, uint64_t seed):
    cdef numpy.npy_intp count = numpy.PyArray_DIM(keys, 0)
    cdef Py_ssize_t width = numpy.PyArray_ITEMSIZE(keys)
    cdef const char* at = <const char*>numpy.PyArray_DATA(keys)
    cdef numpy.ndarray hashes = numpy.PyArray_SimpleNew(1, &count, numpy.NPY_UINT64)
    cdef uint64_t* out = <uint64_t*>numpy.PyArray_DATA(hashes)
    if count < GIL_FREE_BATCH:
        hash_strided(at, width, count, seed, out)
    else:
        with nogil:
            hash_strided(at, width, count, seed, out)
    return hashes


cdef void hash_strided(const char* at, Py_ssize_t width, Py_ssize_t count, uint64_t seed, uint64_t* out) noexcept nogil:
    cdef Py_ssize_t i, length
    for i in range(count):
        length = width
        while length and at[length - 1] == 0:
            length -= 1
        out[i] = xxh64(at, length, seed)
        at += width
