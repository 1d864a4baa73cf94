/* The object store of a node: the table of objects.h behind one lock, and waiting across lanes.
 *
 * Thread:    any, but what says otherwise. One mutex guards the whole table; it is held for a few
 *            pointer moves at a time and never across a callback that could take it again. A body
 *            is read without it by whoever has a reference: what is ready does not change.
 * Ownership: one per data plane, which frees it after its lanes. Watches and holds are the caller's.
 * Layer:     knows loops, no connections.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"
#include "net/router/objects.h"
#include "net/wire/frame.h"

struct rs_store;

struct rs_store *rs_store_new(uint64_t max_bytes, size_t max_fds, struct rs_metrics *metrics);
void rs_store_free(struct rs_store *s); /* NULL is fine; no watches and holds are left */
RS_DEFINE_AUTO(struct rs_store *, rs_store_free);

struct rs_store_figures {
    size_t objects, fds;
    uint64_t bytes, max_bytes;
};
struct rs_store_figures rs_store_figures(struct rs_store *s);

/* Ids in a field: 16 bytes each. -1: the length is no multiple of that, or more than `most`. */
RS_MUST_CHECK int rs_store_ids(const struct rs_field *f, size_t most,
                               const struct rs_object_id **ret, size_t *n, struct rs_error *err);
/* A field of metadata by itself, where parsing all would be too much; `data` NULL: absent. */
struct rs_field rs_store_field(const void *meta, size_t len, enum rs_tag tag);

/* The object with this id, with a reference for the caller; made, pending, if there is none and
 * `maker` is set. `refs` set: one more reference for that process. `maker`: who makes it from now on
 * if it is pending, `at`: for rs_store_maker. NULL: not known. */
struct rs_object *rs_store_open(struct rs_store *s, const struct rs_object_id *id,
                                struct rs_object_refs *refs, const void *maker, void *at);
void rs_store_close(struct rs_store *s,
                    struct rs_object *x); /* the caller's reference; NULL is fine */
/* Who makes it and lives `at` the place that it was opened with; NULL: nobody does there. */
const void *rs_store_maker(struct rs_store *s, const struct rs_object_id *id, const void *at);

/* The value or error of a pending object. The object's own OBJECTS are read from the metadata.
 * 0 or RS_OBJECTS_FULL, with `full` saying it in one line with numbers, or RS_OBJECTS_DONE. Takes the
 * descriptor in any case. */
int rs_store_put(struct rs_store *s, struct rs_object *x, bool error, struct rs_object_body *body,
                 char full[200]);

/* References of processes. `ids` may repeat; what is not known is left out. */
void rs_store_grant(struct rs_store *s, struct rs_object_refs *refs, const struct rs_object_id *ids,
                    size_t n);
void rs_store_drop(struct rs_store *s, struct rs_object_refs *refs, const struct rs_object_id *ids,
                   size_t n);
void rs_store_drop_all(struct rs_store *s, struct rs_object_refs *refs);

/* References of a request or a message; none for what is not known. NULL if that is all. */
struct rs_store_hold;
struct rs_store_hold *rs_store_hold(struct rs_store *s, const struct rs_object_id *ids, size_t n);
bool rs_store_holds(const struct rs_store_hold *h, const struct rs_object *x);
void rs_store_release(struct rs_store_hold *h); /* NULL is fine */

/* --- waiting ----------------------------------------------------------------------------------- */

struct rs_store_watch;

/* What is waited for, and what is called then. */
struct rs_store_wish {
    struct rs_loop *loop; /* `fn` is called there; its thread starts and ends the watch */
    const struct rs_object_id *ids;
    size_t n, need; /* so many of the n must be ready */
    bool fail_fast; /* one that is an error is enough */
    bool lenient;   /* ids that are not known count as ready */
    void (*fn)(void *arg);
    void *arg;
};

/* RS_STORE_READY: it is so already, fn is not called. -1: an id is not known, `*unknown` says which; no
 * watch was made. */
enum { RS_STORE_READY = 1 };
int rs_store_watch(struct rs_store_watch **ret, struct rs_store *s,
                   const struct rs_store_wish *wish, size_t *unknown);
/* Its objects, those left out as NULL; they may be read as long as the watch is there. */
size_t rs_store_watched(const struct rs_store_watch *w, struct rs_object *const **ret);
/* Which of them are ready now; `ready` has room for all. */
void rs_store_states(struct rs_store_watch *w, bool *ready);
/* The first error among them, or NULL. */
struct rs_object *rs_store_failed(struct rs_store_watch *w);
/* Those that are pending and that nobody wants but this watch and `h`: their makers can stop. Told with
 * the place that each was opened with. Called without the lock. */
void rs_store_unwanted(struct rs_store_watch *w, const struct rs_store_hold *h,
                       void (*fn)(const struct rs_object_id *id, void *at));
void rs_store_unwatch(struct rs_store_watch *w); /* NULL is fine; fn is not called any more */
