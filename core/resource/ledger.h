/* The books of one node: what it has, what is promised, what is in use.
 *
 * reserve -> commit -> release, or reserve -> release. A reservation counts from the moment it is
 * made. Whatever is taken comes back exactly: rs_ledger_check proves free + taken == total, and every
 * release asserts the sums in O(1).
 *
 * GPUs: device i has RS_ONE. A want of at most one GPU lies on one device (the fullest that still has
 * room, so that whole devices stay free); more than one takes whole devices, lowest index first.
 *
 * Ownership: the ledger owns its reservations; a pointer to one is valid until its release.
 * Thread:    one.
 */
#pragma once

#include "core/base/list.h"
#include "core/resource/resources.h"

#define RS_GPU_MAX 1024 /* devices of one node */

struct rs_ledger;

struct rs_reservation {
    struct rs_list link;
    struct rs_resources want;
    bool committed;
    int *devices;        /* indexes of GPU devices, rising */
    size_t device_count; /* 0 without GPUs; 1 for a fraction */
};

enum { RS_LEDGER_NO_ROOM = 1 };

/* `total.gpu` must be whole; that many devices exist, all free. Copies `total`. */
RS_MUST_CHECK int rs_ledger_new(struct rs_ledger **ret, const struct rs_resources *total,
                                struct rs_error *err);
void rs_ledger_free(struct rs_ledger *l); /* NULL is fine; releases what is still reserved */
RS_DEFINE_AUTO(struct rs_ledger *, rs_ledger_free);

/* 0; or RS_LEDGER_NO_ROOM with nothing changed: rs_ledger_why says why. */
RS_MUST_CHECK int rs_ledger_reserve(struct rs_ledger *l, const struct rs_resources *want,
                                    struct rs_reservation **ret);
/* Takes note of what already runs, on the named devices, also beyond what is free (a node reports
 * facts; free amounts may then be negative until something is released). Committed at once. */
void rs_ledger_adopt(struct rs_ledger *l, const struct rs_resources *want, const int *devices,
                     size_t device_count, struct rs_reservation **ret);
void rs_ledger_commit(struct rs_ledger *l, struct rs_reservation *r);
void rs_ledger_release(struct rs_ledger *l, struct rs_reservation *r); /* NULL is fine */

const struct rs_resources *rs_ledger_total(const struct rs_ledger *l);
/* Free amounts; may be negative after rs_ledger_adopt. Borrowed until the next change. */
const struct rs_resources *rs_ledger_available(const struct rs_ledger *l);
int64_t rs_ledger_device_free(const struct rs_ledger *l, size_t device); /* 1/10000 */
size_t rs_ledger_count(const struct rs_ledger *l);                       /* reservations */

/* Could it ever fit on this node, were it empty? */
bool rs_ledger_feasible(const struct rs_ledger *l, const struct rs_resources *want);
/* Why `want` does not fit now, in numbers: "needs 1 GPU; node has 0, 0 free". False: it fits. */
bool rs_ledger_why(const struct rs_ledger *l, const struct rs_resources *want, struct rs_buf *out);
/* Walks everything and asserts that the sums hold; for tests and debugging. */
void rs_ledger_check(const struct rs_ledger *l);
