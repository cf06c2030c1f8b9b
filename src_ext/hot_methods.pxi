# The entry points of the hottest calls, by hand. They take the common shapes of a call (no argument, one positional key)
# straight to the core, and pass every other to the method that Cython has made, which parses and explains.
#
# CPython's fastest call of a C method wants the instance to be of the very type that the method descriptor names (ceval.c,
# CALL of a method descriptor); methods merely inherited from `Balancer` would cost half as much again. Each subclass
# therefore gets descriptors of its own.

cdef extern from "Python.h":
    ctypedef PyObject* (*FastCall "_PyCFunctionFastWithKeywords")(PyObject*, PyObject**, Py_ssize_t, PyObject*)
    ctypedef struct PyMethodDef:
        const char* ml_name
        void* ml_meth
        int ml_flags
        const char* ml_doc
    ctypedef struct PyMethodDescrObject:
        PyMethodDef* d_method
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
    int METH_FASTCALL, METH_KEYWORDS
    object PyDescr_NewMethod(type owner, PyMethodDef* method)
    void PyType_Modified(type owner)

ctypedef object (*EntryPoint)(PyObject*, PyObject**, Py_ssize_t, PyObject*)

cdef PyMethodDef pick_method, acquire_method, done_method, exit_method
cdef EntryPoint pick_in_full, acquire_in_full, done_in_full, exit_in_full


# What is rarer stands in functions of its own, so that the commonest call saves no register but the one it needs.

cdef object pick_entry(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names):
    cdef Selector* selector = (<Balancer>self).direct
    cdef int32_t member
    if lb_likely(count == 0 and names == NULL and selector != NULL and not (<Balancer>self).hashing):
        member = selector.choose(selector, &(<Balancer>self).draw, 0)
        if lb_likely(member >= 0):
            return <object>(<Balancer>self).objects[member]
        return pick_otherwise(self, NULL, 0, NULL)
    return pick_otherwise(self, arguments, count, names)


cdef object pick_otherwise(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names):
    cdef int32_t member = entry_choose(self, arguments, count, names)
    if lb_unlikely(member < 0):
        return pick_in_full(self, arguments, count, names)
    return <object>(<Balancer>self).objects[member]


cdef object acquire_entry(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names):
    cdef Selector* selector = (<Balancer>self).direct
    cdef int32_t member
    if lb_unlikely((<Balancer>self).totals.active >= (<Balancer>self).totals.free_until):
        return acquire_in_full(self, arguments, count, names)
    if lb_likely(count == 0 and names == NULL and selector != NULL and not (<Balancer>self).hashing):
        member = selector.choose(selector, &(<Balancer>self).draw, 0)
        if lb_likely(member >= 0):
            return lease_new(<Balancer>self, member)
        return acquire_otherwise(self, NULL, 0, NULL)
    return acquire_otherwise(self, arguments, count, names)


cdef object acquire_otherwise(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names):
    cdef int32_t member = entry_choose(self, arguments, count, names)
    if lb_unlikely(member < 0):
        return acquire_in_full(self, arguments, count, names)
    return lease_new(<Balancer>self, member)


cdef int32_t entry_choose(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names) except -2:
    """A member for a call with one plain key, or without one but by the clock; NO_MEMBER where the method in full is to
    be called."""
    cdef Selector* selector = (<Balancer>self).direct
    cdef uint64_t hash
    if count == 0 and names == NULL:
        selector = (<Balancer>self).clocked
        if selector == NULL:
            return NO_MEMBER
        (<Balancer>self).draw.now = read_native_clock(<Balancer>self)
        fleet_refresh((<Balancer>self).fleet, (<Balancer>self).draw.now)
        return selector.choose(selector, &(<Balancer>self).draw, 0)
    if count != 1 or names != NULL or selector == NULL:
        return NO_MEMBER
    # Of these types alone, because reading another may run code that replaces the selector.
    if type(<object>arguments[0]) is str or type(<object>arguments[0]) is bytes or type(<object>arguments[0]) is int:
        hash = key_hash(<object>arguments[0], (<Balancer>self).hashing)
        return selector.choose(selector, &(<Balancer>self).draw, hash)
    return NO_MEMBER


cdef object done_entry(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names):
    if lb_likely(count == 0 and names == NULL and (<Lease>self).slot != NULL):
        lease_succeed(<Lease>self)
        return None
    return done_in_full(self, arguments, count, names)


cdef object exit_entry(PyObject* self, PyObject** arguments, Py_ssize_t count, PyObject* names):
    """Of `with`, whose block has ended without an exception: three times None."""
    if lb_likely(count == 3 and names == NULL and <object>arguments[0] is None and (<Lease>self).slot != NULL):
        lease_succeed(<Lease>self)
        return False
    return exit_in_full(self, arguments, count, names)


cdef inline int lease_succeed(Lease lease) except -1:
    if lb_unlikely(slot_observed(lease.slot)):
        return lease_succeed_observed(lease)
    lease.slot.successes += 1
    lease_end(lease)
    return 0


cdef int lease_succeed_observed(Lease lease) except -1:
    cdef Outcome outcome = Outcome(ok=True, status=0, now=0, latency=-1, met=lease.met, load=NULL)
    return lease_finish(lease, &outcome)


cdef EntryPoint replace_entry(PyMethodDef* method, type owner, str name, EntryPoint entry) except NULL:
    """Fills a method definition in with the name and documentation of the method in full, which it returns."""
    cdef PyMethodDef* full = (<PyMethodDescrObject*>owner.__dict__[name]).d_method
    method.ml_name = full.ml_name
    method.ml_doc = full.ml_doc
    method.ml_flags = METH_FASTCALL | METH_KEYWORDS
    method.ml_meth = <void*>entry
    return <EntryPoint>full.ml_meth


pick_in_full = replace_entry(&pick_method, Balancer, "pick", pick_entry)
acquire_in_full = replace_entry(&acquire_method, Balancer, "acquire", acquire_entry)
done_in_full = replace_entry(&done_method, Lease, "done", done_entry)
exit_in_full = replace_entry(&exit_method, Lease, "__exit__", exit_entry)
(<dict>(<PyTypeObject*>Lease).tp_dict)["done"] = PyDescr_NewMethod(Lease, &done_method)
(<dict>(<PyTypeObject*>Lease).tp_dict)["__exit__"] = PyDescr_NewMethod(Lease, &exit_method)
PyType_Modified(Lease)


def _adopt_hot_methods(type subclass):
    """Called once for each subclass of Balancer; methods that it overrides stay its own."""
    if inherits_entry(subclass, "pick", &pick_method):
        setattr(subclass, "pick", PyDescr_NewMethod(subclass, &pick_method))
    if inherits_entry(subclass, "acquire", &acquire_method):
        setattr(subclass, "acquire", PyDescr_NewMethod(subclass, &acquire_method))


cdef bint inherits_entry(type subclass, str name, PyMethodDef* entry) except -1:
    inherited = getattr(subclass, name)
    native = Balancer.__dict__[name]
    if inherited is native:
        return True
    return type(inherited) is type(native) and (<PyMethodDescrObject*>inherited).d_method == entry
