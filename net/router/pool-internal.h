/* What request.c and pool.c share. */
#pragma once

#include "net/router/pool.h"

enum rs_unbind {
    RS_UNBIND_DONE,
    RS_UNBIND_FAILED,
    RS_UNBIND_CANCELLED,
    RS_UNBIND_ABANDONED,
    RS_UNBIND_RETURNED
};

/* The request leaves its backend and the slot is free again. `f`: with FAILED. */
void rs_pool_unbind(struct rs_pool *p, struct rs_request *r, enum rs_unbind how,
                    const struct rs_failure *f);
/* A part of its answer came that is not the last: it moves. */
void rs_pool_count_piece(struct rs_request *r, bool first);
/* The slot is taken: it is `b`'s from now on. */
void rs_pool_bind(struct rs_pool *p, struct rs_request *r, struct rs_backend *b);
/* What it has reserved is used. */
void rs_pool_dispatch(struct rs_pool *p, struct rs_request *r);
/* RS_WANTS_LIST and RS_WANTS_REPLICA. */
void rs_pool_aim(struct rs_pool *p, struct rs_request *r);
/* Sends what can be sent. */
void rs_pool_pump(struct rs_pool *p);
void rs_pool_show_queued(struct rs_pool *p);
/* Those who wait for a deployment that is closed hear so. */
void rs_pool_refuse_waiting(struct rs_pool *p);
void rs_pool_drop_series(struct rs_pool *p, struct rs_backend *b);

/* --- pool-split.c ------------------------------------------------------------------------------ */

/* What decides to which version it goes. Only while the queue is split. */
void rs_pool_draw(struct rs_pool *p, struct rs_request *r);
/* It has left `b`. Only with tallies. */
void rs_pool_tally(struct rs_pool *p, const struct rs_backend *b, const struct rs_request *r,
                   enum rs_unbind how, const struct rs_failure *f);

/* --- pool-drop.c ------------------------------------------------------------------------------- */

/* It waits no longer, or never did: it is refused, with the reason, and counted. The queue has counted
 * it already. */
void rs_pool_drop(struct rs_pool *p, struct rs_request *r, enum rs_drop why);
/* It got its slot after so many ns. */
void rs_pool_count_wait(struct rs_pool *p, int64_t waited);
void rs_pool_count_drop(struct rs_pool *p, enum rs_drop why);
