# Endpoints as protobuf, grouped by priority and locality as a ClusterLoadAssignment has them. Each endpoint is one field
# `lb_endpoints` of LocalityLbEndpoints, byte for byte what protobuf makes of the message; after a change only endpoints
# that are other objects are written again, and only their groups put together again.
# Field numbers: envoy/config/endpoint/v3/endpoint_components.proto, core/v3/address.proto.

from cpython.bytes cimport PyBytes_FromStringAndSize


cdef inline Py_ssize_t varint_length(uint64_t value) noexcept nogil:
    cdef Py_ssize_t length = 1
    while value > 0x7F:
        value >>= 7
        length += 1
    return length


cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value > 0x7F:
        at[0] = <uint8_t>(value & 0x7F | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1


cdef inline uint8_t* put_head(uint8_t* at, uint8_t key, Py_ssize_t length) noexcept nogil:
    """Key and length of a length-delimited field."""
    at[0] = key
    return put_varint(at + 1, <uint64_t>length)


cdef inline Py_ssize_t framed(Py_ssize_t length) noexcept nogil:
    """The length of a length-delimited field with a number below 16."""
    return 1 + varint_length(<uint64_t>length) + length


cdef bytes encoded_endpoint(object endpoint):
    """LbEndpoint as field 2, of an endpoint without metadata and further addresses. Its address is canonical."""
    cdef str address = endpoint.address
    cdef str hostname = endpoint.hostname
    cdef uint64_t health = <uint64_t>endpoint.health
    cdef uint64_t weight = <uint64_t>endpoint.weight
    cdef Py_ssize_t length, hostname_length
    cdef const char* text = PyUnicode_AsUTF8AndSize(address, &length)
    cdef const char* name = PyUnicode_AsUTF8AndSize(hostname, &hostname_length)
    cdef bint pipe = length >= 5 and memcmp(text, "unix:", 5) == 0
    cdef uint64_t port = 0
    cdef Py_ssize_t colon
    cdef Py_ssize_t inner, of_address, of_endpoint, of_weight, whole
    if pipe:
        text += 5
        length -= 5
        inner = framed(length) if length else 0             # Pipe{path=1}
    else:
        colon = length - 1
        while colon > 0 and text[colon] != c":":
            colon -= 1
        for i in range(colon + 1, length):
            port = port * 10 + <uint64_t>(text[i] - c"0")
        length = colon
        if length >= 2 and text[0] == c"[" and text[length - 1] == c"]":
            text += 1
            length -= 2
        inner = framed(length) + 1 + varint_length(port)    # SocketAddress{address=2, port_value=3}
    of_address = framed(inner)                              # Address{socket_address=1 | pipe=2}
    of_endpoint = framed(of_address) + (framed(hostname_length) if hostname_length else 0)
    of_weight = 1 + varint_length(weight)                   # UInt32Value{value=1}
    whole = framed(of_endpoint) + (1 + varint_length(health) if health else 0) + framed(of_weight)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, framed(whole))
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(made)
    at = put_head(at, 0x12, whole)                          # LocalityLbEndpoints.lb_endpoints=2
    at = put_head(at, 0x0A, of_endpoint)                    # LbEndpoint.endpoint=1
    at = put_head(at, 0x0A, of_address)                     # Endpoint.address=1
    at = put_head(at, 0x12 if pipe else 0x0A, inner)
    if length or not pipe:
        at = put_head(at, 0x0A if pipe else 0x12, length)
        memcpy(at, text, length)
        at += length
    if not pipe:
        at[0] = 0x18
        at = put_varint(at + 1, port)
    if hostname_length:
        at = put_head(at, 0x1A, hostname_length)            # Endpoint.hostname=3
        memcpy(at, name, hostname_length)
        at += hostname_length
    if health:
        at[0] = 0x10                                        # LbEndpoint.health_status=2
        at = put_varint(at + 1, health)
    at = put_head(at, 0x22, of_weight)                      # LbEndpoint.load_balancing_weight=4
    at[0] = 0x08
    put_varint(at + 1, weight)
    return made


@cython.final
cdef class EncodedEndpoints:
    """Endpoints by priority and locality, serialised.

    EncodedEndpoints(endpoints, encode, previous=None, natively=True): `encode` makes the serialised LbEndpoint of one that
    has metadata or further addresses, or of each; `previous` is what this one follows, whose unchanged parts it shares.
    """
    cdef tuple endpoints
    cdef object encode
    cdef bint natively      # what can be
    cdef list keys          # (priority, Locality) of each group
    cdef list chunks        # lists of bytes: the endpoints of each group
    cdef list bodies_       # bytes: each group put together
    cdef bytes layout       # pairs of int32_t: the group of each endpoint, and its position there

    def __init__(self, tuple endpoints not None, object encode, EncodedEndpoints previous=None, bint natively=True):
        self.endpoints = endpoints
        self.encode = encode
        self.natively = natively
        if previous is None or not self.follow(previous):
            self.build()

    @property
    def groups(self):
        """(priority, locality) of each group, in the order in which they first appear; the same list for followers."""
        return self.keys

    @property
    def bodies(self):
        """The serialised endpoints of each group."""
        return self.bodies_

    cdef bytes encoded(self, object endpoint):
        cdef bytes message
        cdef bytes made
        cdef uint8_t* at
        cdef Py_ssize_t length
        if self.natively and not endpoint.metadata and not endpoint.additional_addresses:
            return encoded_endpoint(endpoint)
        message = self.encode(endpoint)
        length = PyBytes_GET_SIZE(message)
        made = PyBytes_FromStringAndSize(NULL, framed(length))
        at = put_head(<uint8_t*>PyBytes_AS_STRING(made), 0x12, length)
        memcpy(at, PyBytes_AS_STRING(message), length)
        return made

    cdef int build(self) except -1:
        cdef Py_ssize_t count = len(self.endpoints)
        cdef dict known = {}        # groups by priority and locality
        cdef dict at_hand = {}      # the same by the locality's identity: hashing one costs more than all the rest
        cdef list members
        cdef object endpoint, place_of
        cdef tuple key
        cdef uint64_t priority, identity
        cdef Py_ssize_t i
        self.layout = PyBytes_FromStringAndSize(NULL, count * 2 * sizeof(int32_t))
        cdef int32_t* place = <int32_t*>PyBytes_AS_STRING(self.layout)
        self.keys = []
        self.chunks = []
        for i in range(count):
            endpoint = self.endpoints[i]
            place_of = endpoint.locality
            priority = endpoint.priority
            identity = <uint64_t><size_t><void*>place_of << 8 ^ priority    # priorities are at most 128
            found = at_hand.get(identity)
            if found is None:
                key = (endpoint.priority, place_of)
                found = known.get(key)
                if found is None:
                    found = known[key] = len(self.keys)
                    self.keys.append(key)
                    self.chunks.append([])
                at_hand[identity] = found
            place[2 * i] = <int32_t>found
            members = <list>self.chunks[<Py_ssize_t>found]
            place[2 * i + 1] = <int32_t>len(members)
            members.append(self.encoded(endpoint))
        self.bodies_ = [b"".join(each) for each in self.chunks]
        return 0

    cdef bint follow(self, EncodedEndpoints previous) except -1:
        """Whether the layout is the same; then it is taken over, with what is unchanged."""
        cdef Py_ssize_t count = len(self.endpoints)
        cdef const int32_t* place = <const int32_t*>PyBytes_AS_STRING(previous.layout)
        cdef list changed = []
        cdef Py_ssize_t i, group
        cdef object before, now
        if count != len(previous.endpoints) or not (self.natively and previous.natively):
            return False
        for i in range(count):
            if <PyObject*>self.endpoints[i] == <PyObject*>previous.endpoints[i]:
                continue
            before, now = previous.endpoints[i], self.endpoints[i]
            if before.priority != now.priority or before.locality != now.locality:
                return False
            changed.append(i)
        self.layout = previous.layout
        self.keys = previous.keys
        self.chunks = list(previous.chunks)
        self.bodies_ = list(previous.bodies_)
        touched = set()
        for i in changed:
            group = place[2 * i]
            if group not in touched:
                touched.add(group)
                self.chunks[group] = list(<list>self.chunks[group])
            (<list>self.chunks[group])[place[2 * i + 1]] = self.encoded(self.endpoints[i])
        for group in touched:
            self.bodies_[group] = b"".join(<list>self.chunks[group])
        return True
