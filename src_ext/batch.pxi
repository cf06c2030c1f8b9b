# Many picks in one call: numpy in, numpy out, equal to the same picks one by one. A large batch runs without the GIL where
# nothing that it reads is written by others; what it consumes of shared state (a cursor, random numbers) it takes first.

cimport numpy

numpy.import_array()

cdef enum: GIL_FREE_BATCH = 4096     # releasing and taking the GIL costs as much as some 50 picks


cdef numpy.ndarray key_hashes(object keys, int hashing):
    """Keys as an array of hashes: an array of 64-bit integers as it is, anything else key by key."""
    cdef Py_ssize_t i
    cdef numpy.ndarray hashes
    cdef numpy.npy_intp count
    cdef uint64_t* out
    if numpy.PyArray_Check(keys) and numpy.PyArray_NDIM(keys) == 1:
        kind = numpy.PyArray_TYPE(keys)
        if kind == numpy.NPY_UINT64 and numpy.PyArray_ISBEHAVED_RO(keys):
            return numpy.PyArray_GETCONTIGUOUS(keys)
        if numpy.PyTypeNum_ISINTEGER(kind):
            if keys.size and keys.min() < 0:
                raise ValueError(f"key {keys.min()}: an int is the hash itself, expected 0 to 2**64 - 1")
            return keys.astype("uint64")
        keys = keys.tolist()
    if isinstance(keys, (str, bytes, bytearray, memoryview, dict, set)) or not hasattr(keys, "__iter__"):
        raise TypeError(f"keys: expected a number of picks, an array of hashes or a sequence of keys, got {type(keys).__name__}")
    keys = list(keys)
    count = len(keys)
    hashes = numpy.PyArray_SimpleNew(1, &count, numpy.NPY_UINT64)
    out = <uint64_t*>numpy.PyArray_DATA(hashes)
    for i in range(count):
        out[i] = key_hash(keys[i], hashing)
    return hashes


cdef int choose_many(Balancer balancer, const uint64_t* hashes, int32_t* out, Py_ssize_t count) except -1:
    """Fills `out` with members, NO_MEMBER where there is none; `hashes` is NULL for picks without keys."""
    cdef Snapshot snapshot = <Snapshot>balancer.snapshot
    cdef Selector* selector = balancer.direct
    cdef Draw batch = balancer.draw
    cdef Py_ssize_t i
    if count == 0:
        return 0
    if snapshot.pure and (selector != NULL or count >= GIL_FREE_BATCH):
        if count < GIL_FREE_BATCH:
            selector.choose_many(selector, &batch, hashes, out, count)
        else:
            with nogil:
                if selector != NULL:
                    selector.choose_many(selector, &batch, hashes, out, count)
                else:
                    choose_many_staged(snapshot, &batch, hashes, out, count)
    elif selector != NULL and selector.reserve != NULL:
        selector.reserve(selector, &balancer.draw, &batch, count)
        if count < GIL_FREE_BATCH:
            selector.choose_many(selector, &batch, hashes, out, count)
        else:
            with nogil:
                selector.choose_many(selector, &batch, hashes, out, count)
    elif selector != NULL:
        selector.choose_many(selector, &balancer.draw, hashes, out, count)
    else:
        for i in range(count):
            out[i] = choose_member(balancer, hashes[i] if hashes != NULL else 0)
    return 0


cdef void choose_many_staged(
    Snapshot snapshot, Draw* batch, const uint64_t* hashes, int32_t* out, Py_ssize_t count
) noexcept nogil:
    cdef Selector* selector
    cdef Py_ssize_t i
    for i in range(count):
        selector = snapshot_select(snapshot, batch, hashes[i]) if snapshot.priority_count else NULL
        out[i] = selector.choose(selector, batch, hashes[i]) if selector != NULL else NO_MEMBER


cdef numpy.ndarray picks_array(numpy.npy_intp count, object out):
    if out is None:
        return numpy.PyArray_SimpleNew(1, &count, numpy.NPY_INT32)
    if not numpy.PyArray_Check(out) or numpy.PyArray_TYPE(out) != numpy.NPY_INT32 or numpy.PyArray_NDIM(out) != 1:
        raise TypeError("out: expected a one-dimensional array of int32")
    if numpy.PyArray_DIM(out, 0) != count or not numpy.PyArray_ISCARRAY(out):
        raise ValueError(f"out: expected a contiguous, writable array of {count}, one for each pick")
    return out


cdef numpy.ndarray pick_batch(Balancer balancer, object keys_or_n, object out):
    cdef numpy.npy_intp count
    cdef numpy.npy_intp i
    cdef numpy.ndarray members
    cdef numpy.ndarray hashes = None
    cdef uint64_t* words
    if type(keys_or_n) is int:
        if not 0 <= keys_or_n <= INT32_LARGEST:
            raise ValueError(f"number of picks {keys_or_n}: expected 0 to 2147483647")
        count = keys_or_n
        if balancer.hashing:
            hashes = numpy.PyArray_SimpleNew(1, &count, numpy.NPY_UINT64)
            words = <uint64_t*>numpy.PyArray_DATA(hashes)
            for i in range(count):
                words[i] = random_bits(&balancer.draw.random)
    else:
        hashes = key_hashes(keys_or_n, balancer.hashing)
        count = numpy.PyArray_DIM(hashes, 0)
    members = picks_array(count, out)
    choose_many(
        balancer,
        <const uint64_t*>numpy.PyArray_DATA(hashes) if hashes is not None else NULL,
        <int32_t*>numpy.PyArray_DATA(members),
        count,
    )
    return members
