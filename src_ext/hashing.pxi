# The two hash functions that Envoy and gRPC agree on: XXH64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md) and
# MurmurHash64A with Envoy's seed (source/common/common/hash.h). Keys are hashed where they lie.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from operator import index

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFFULL


cdef inline uint64_t read64(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef inline uint32_t read32(const uint8_t* at) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, at, 4)
    return word


cdef inline uint64_t rotate_left(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef extern from *:
    """
    #define XXH_P1 0x9E3779B185EBCA87ULL
    #define XXH_P2 0xC2B2AE3D27D4EB4FULL
    #define XXH_P3 0x165667B19E3779F9ULL
    #define XXH_P4 0x85EBCA77C2B2AE63ULL
    #define XXH_P5 0x27D4EB2F165667C5ULL
    #define MURMUR_M 0xC6A4A7935BD1E995ULL
    #define MURMUR_SEED 0xC70F6907ULL
    """
    const uint64_t XXH_P1, XXH_P2, XXH_P3, XXH_P4, XXH_P5, MURMUR_M, MURMUR_SEED


cdef inline uint64_t xxh_round(uint64_t lane, uint64_t word) noexcept nogil:
    return rotate_left(lane + word * XXH_P2, 31) * XXH_P1


cdef inline uint64_t xxh_merge(uint64_t digest, uint64_t lane) noexcept nogil:
    return (digest ^ xxh_round(0, lane)) * XXH_P1 + XXH_P4


cdef inline uint64_t xxh_stripes(const uint8_t** at, size_t length, uint64_t seed) noexcept nogil:
    """What is hashed 32 bytes at a time, and the length; moves on to the rest of fewer bytes."""
    cdef const uint8_t* end = at[0] + length
    cdef uint64_t digest, lane1, lane2, lane3, lane4
    if length < 32:
        return seed + XXH_P5 + length
    lane1 = seed + XXH_P1 + XXH_P2
    lane2 = seed + XXH_P2
    lane3 = seed
    lane4 = seed - XXH_P1
    while end - at[0] >= 32:
        lane1 = xxh_round(lane1, read64(at[0]))
        lane2 = xxh_round(lane2, read64(at[0] + 8))
        lane3 = xxh_round(lane3, read64(at[0] + 16))
        lane4 = xxh_round(lane4, read64(at[0] + 24))
        at[0] += 32
    digest = rotate_left(lane1, 1) + rotate_left(lane2, 7) + rotate_left(lane3, 12) + rotate_left(lane4, 18)
    digest = xxh_merge(digest, lane1)
    digest = xxh_merge(digest, lane2)
    digest = xxh_merge(digest, lane3)
    return xxh_merge(digest, lane4) + length


cdef inline uint64_t xxh_eight(uint64_t digest, uint64_t word) noexcept nogil:
    return rotate_left(digest ^ xxh_round(0, word), 27) * XXH_P1 + XXH_P4


cdef inline uint64_t xxh_four(uint64_t digest, uint64_t word) noexcept nogil:
    return rotate_left(digest ^ (word * XXH_P1), 23) * XXH_P2 + XXH_P3


cdef inline uint64_t xxh_one(uint64_t digest, uint64_t byte) noexcept nogil:
    return rotate_left(digest ^ (byte * XXH_P5), 11) * XXH_P1


cdef inline uint64_t xxh_avalanche(uint64_t digest) noexcept nogil:
    digest = (digest ^ (digest >> 33)) * XXH_P2
    digest = (digest ^ (digest >> 29)) * XXH_P3
    return digest ^ (digest >> 32)


cdef inline uint64_t xxh64(const void* start, size_t length, uint64_t seed) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>start
    cdef const uint8_t* end = at + length
    cdef uint64_t digest = xxh_stripes(&at, length, seed)
    while end - at >= 8:
        digest = xxh_eight(digest, read64(at))
        at += 8
    if end - at >= 4:
        digest = xxh_four(digest, read32(at))
        at += 4
    while at < end:
        digest = xxh_one(digest, at[0])
        at += 1
    return xxh_avalanche(digest)


cdef void xxh64_last_bytes(char* text, size_t length, char first, uint32_t count, uint64_t* out) noexcept nogil:
    """Hashes of `count` texts that differ in the last byte alone, which counts up: the rest is hashed once for all.

    length: 1 or more. Writes to the last byte.
    """
    cdef const uint8_t* at = <const uint8_t*>text
    cdef const uint8_t* end = at + length
    cdef uint64_t last = <uint8_t>first
    cdef uint64_t digest, word
    cdef uint32_t i
    if length % 32 == 0:    # the last byte goes through the stripes
        for i in range(count):
            text[length - 1] = <char>(first + i)
            out[i] = xxh64(text, length, 0)
        return
    digest = xxh_stripes(&at, length, 0)
    while end - at > 8:
        digest = xxh_eight(digest, read64(at))
        at += 8
    if end - at == 8:
        word = read64(at) & 0x00FFFFFFFFFFFFFFULL
        for i in range(count):
            out[i] = xxh_avalanche(xxh_eight(digest, word | (last + i) << 56))
        return
    if end - at == 4:
        word = read32(at) & 0x00FFFFFFULL
        for i in range(count):
            out[i] = xxh_avalanche(xxh_four(digest, word | (last + i) << 24))
        return
    if end - at > 4:
        digest = xxh_four(digest, read32(at))
        at += 4
    while end - at > 1:
        digest = xxh_one(digest, at[0])
        at += 1
    for i in range(count):
        out[i] = xxh_avalanche(xxh_one(digest, last + i))


cdef inline uint64_t murmur64(const void* start, size_t length) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>start
    cdef const uint8_t* end = at + length
    cdef uint64_t digest = MURMUR_SEED ^ (length * MURMUR_M)
    cdef uint64_t word
    cdef size_t i
    while end - at >= 8:
        word = read64(at) * MURMUR_M
        digest = (digest ^ ((word ^ (word >> 47)) * MURMUR_M)) * MURMUR_M
        at += 8
    if at < end:
        word = 0
        for i in range(<size_t>(end - at)):
            word |= <uint64_t>at[i] << (8 * i)
        digest = (digest ^ word) * MURMUR_M
    digest = (digest ^ (digest >> 47)) * MURMUR_M
    return digest ^ (digest >> 47)


cdef inline uint64_t hash_of(object data, uint64_t seed) except? 0:
    """XXH64 of text (as UTF-8) or bytes."""
    cdef Py_ssize_t size
    cdef const char* text
    if lb_likely(type(data) is str):
        if lb_likely(PyUnicode_IS_COMPACT_ASCII(data)):    # its own bytes are its UTF-8
            return xxh64(PyUnicode_DATA(data), PyUnicode_GET_LENGTH(data), seed)
        text = PyUnicode_AsUTF8AndSize(data, &size)
        return xxh64(text, size, seed)
    if type(data) is bytes:
        return xxh64(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), seed)
    return hash_of_other(data, seed)


cdef uint64_t hash_of_other(object data, uint64_t seed) except? 0:
    cdef Py_buffer view
    cdef Py_ssize_t size
    cdef const char* text
    if isinstance(data, str):
        text = PyUnicode_AsUTF8AndSize(data, &size)
        return xxh64(text, size, seed)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"cannot hash {type(data).__name__}: expected str, bytes, bytearray or memoryview")
    if isinstance(data, memoryview) and not data.c_contiguous:
        data = data.tobytes()
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return xxh64(view.buf, view.len, seed)
    finally:
        PyBuffer_Release(&view)


cdef inline uint64_t key_hash(object key, int hashing) except? 0:
    """The 64-bit hash a key stands for: of text or bytes as the policy wants it, an int is the hash itself."""
    if lb_likely(hashing != MD5_KEYS and (type(key) is str or type(key) is bytes)):
        return hash_of(key, 0)
    return key_hash_of_other(key, hashing)


cdef uint64_t key_hash_of_other(object key, int hashing) except? 0:
    if isinstance(key, (str, bytes, bytearray, memoryview)):
        if hashing == MD5_KEYS:
            key = key.encode() if isinstance(key, str) else bytes(key)
            return ketama_hash(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return hash_of_other(key, 0)
    if type(key) is not int:
        try:
            key = index(key)    # what stands for an int, such as numpy's
        except TypeError:
            raise TypeError(f"key {key!r}: expected str, bytes, or an int that is the 64-bit hash itself") from None
    try:
        return PyLong_AsUnsignedLongLong(key)
    except OverflowError:
        raise ValueError(f"key {key}: an int is the hash itself, expected 0 to 2**64 - 1") from None


def hash64(data, seed=0):
    """XXH64 of text (its UTF-8) or bytes: the hash by which Envoy, gRPC and lbcore place keys.

    Raises TypeError unless data is str, bytes, bytearray or memoryview, and ValueError unless 0 <= seed < 2**64.
    Source: xxHash specification 0.2.0.

    >>> from lbcore import hash64
    >>> hex(hash64("user-1"))
    '0xa173746b114c6be8'
    """
    return hash_of(data, checked_seed(seed))


cdef uint64_t checked_seed(object seed) except? 0:
    if not isinstance(seed, int):
        raise TypeError(f"seed {seed!r}: expected an int")
    try:
        return PyLong_AsUnsignedLongLong(seed)
    except OverflowError:
        raise ValueError(f"seed {seed}: expected 0 to 2**64 - 1") from None
