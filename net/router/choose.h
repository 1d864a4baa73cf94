/* A deployment's own request router: user code in a process beside the node that ranks replicas for
 * each request. The pool holds a request back while it is asked, binds it to the first of the ranked
 * replicas that has a free slot, and asks again after a while if none has. A router that does not
 * answer in time, fails or is away costs a request that time and no more: it is then given away as
 * any other, and counted as a fallback.
 *
 * A pool without such a router has none of this: its chooser is NULL.
 *
 * Thread:    the home lane's.
 * Ownership: a request's choice (r->choice) lives from rs_chooser_add to rs_chooser_drop.
 */
#pragma once

#include "net/router/pool.h"

#include <jansson.h>

struct rs_chooser;

/* `conf`: request_router_config; see RS_ROUTER_PATIENCE. */
struct rs_chooser *rs_chooser_new(struct rs_pool *p, const json_t *conf);
void rs_chooser_configure(struct rs_chooser *c, const json_t *conf);
/* Requests that are held become ordinary ones. NULL is fine. */
void rs_chooser_free(struct rs_chooser *c);

/* It was put (back) into the queue: it is held and asked about. */
void rs_chooser_add(struct rs_chooser *c, struct rs_request *r);
/* It was bound to a backend, by whose choice ever. */
void rs_chooser_bound(struct rs_chooser *c, struct rs_request *r, const struct rs_backend *b);
/* It ended, or waits no longer. `b`: who worked on it to the end; NULL: nobody. */
void rs_chooser_drop(struct rs_chooser *c, struct rs_request *r, const struct rs_backend *b);
/* The next held request that a slot of its choice is free for: out of the queue, its slot taken; or
 * with `*ret` NULL past its deadline, as from rs_queue_next. */
struct rs_request *rs_chooser_next(struct rs_chooser *c, struct rs_slots **ret);
/* CHOSEN for question `id`; NULL: no answer will come, for `id` 0 to any. */
void rs_chooser_answer(struct rs_chooser *c, uint64_t id, const json_t *answer);
