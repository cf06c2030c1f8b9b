# Those who pick from the same slots, a cluster and its views, in one list, so that a change of health reaches all of them
# without a word of Python: it may come while a request ends. The list holds no references; each takes itself out.


cdef void share_totals(Balancer balancer, Totals* totals) noexcept:
    """Has a picker count there, and hear of changes."""
    balancer.totals = totals
    totals.refs += 1
    balancer.link.previous = NULL
    balancer.link.next = totals.pickers
    if totals.pickers != NULL:
        totals.pickers.previous = &balancer.link
    totals.pickers = &balancer.link


cdef void leave_totals(Balancer balancer) noexcept:
    cdef Totals* totals = balancer.totals
    cdef PickerLink* link = &balancer.link
    if link.previous != NULL:
        link.previous.next = link.next
    else:
        totals.pickers = link.next
    if link.next != NULL:
        link.next.previous = link.previous
    balancer.totals = NULL
    totals_release(totals)


cdef void become_stale(PickerLink* link) noexcept:
    """Has the picker build its snapshot anew before it is next used."""
    store_pointer(<void**>link.direct, NULL)    # its owner may be picking without the GIL
    link.clocked[0] = NULL
    link.changes = link.changes + 1 or 1
    link.stale = link.changes


cdef void pickers_become_stale(Totals* totals) noexcept:
    cdef PickerLink* link = totals.pickers
    while link != NULL:
        become_stale(link)
        link = link.next


cdef void views_become_stale(Balancer cluster) noexcept:
    cdef PickerLink* link = cluster.totals.pickers
    while link != NULL:
        if link != &cluster.link:
            become_stale(link)
        link = link.next


cdef void health_has_changed(Balancer cluster) noexcept:
    """For a caller that renews the cluster itself at once: until then others pick on as before, rather than build, too."""
    views_become_stale(cluster)
    cluster.link.changes = cluster.link.changes + 1 or 1
    cluster.link.stale = cluster.link.changes
