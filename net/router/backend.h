/* What works on requests: a replica that speaks frames, an HTTP server, another node.
 *
 * A backend belongs to one deployment on its home lane. The router gives it a request only when it
 * has a free slot, and keeps count; the backend answers through rs_request_answer, _data and _fail
 * (request.h), each request exactly once.
 *
 * Thread:    the home lane's, in both directions.
 * Ownership: made by its own constructor, embeds struct rs_backend, freed through ops->free.
 * Implemented by: replica.c (frames), peer.c (another node), net/http/upstream.c (HTTP):
 *
 *     struct rs_backend *rs_upstream_new(struct rs_loop *loop, const char *host, uint16_t port,
 *                                        const char *unix_path);
 */
#pragma once

#include "core/base/list.h"
#include "core/loop/loop.h"
#include "net/router/queue.h"
#include "net/router/request.h"

struct rs_backend_ops {
    /* Start on it. r->meta, the body that is there and r->body_end tell everything. */
    void (*send)(struct rs_backend *b, struct rs_request *r);
    /* More of the body of a request that was sent with body_end false. Give back with
     * rs_request_taken what was passed on, so that the origin reads on. */
    void (*feed)(struct rs_backend *b, struct rs_request *r, struct rs_chunk *body, bool end);
    /* The origin took `n` bytes of the answer's body: so many more may be under way. A backend must
     * stop reading from its source when RS_STREAM_WINDOW bytes are. */
    void (*window)(struct rs_backend *b, struct rs_request *r, uint64_t n);
    /* Not wanted any more: stop the work and forget `r` before returning. Never called from inside
     * rs_request_answer, _data, _taken of the same request. */
    void (*cancel)(struct rs_backend *b, struct rs_request *r);
    /* The same when it is no death, and the origin alone has no use for the answer: true if the work may
     * go on for a while and its end will be told by rs_backend_ended. So long its slot is taken. NULL:
     * never. */
    bool (*abandon)(struct rs_backend *b, struct rs_request *r);
    /* Close and free. The router has ended all its requests before. */
    void (*free)(struct rs_backend *b);
};

struct rs_backend {
    const struct rs_backend_ops *ops;

    /* --- the router's own; zero at first --- */
    struct rs_slots slots;
    struct rs_list requests; /* sent to it and not ended */
    struct rs_pool *pool;
    char *replica_id; /* NULL: another node. The lane sets and frees it */
    bool retired;
    struct rs_figures *figures; /* shared with the control thread; NULL: another node */
    struct rs_series *processing;
    struct rs_series_cache *cache;
    bool gone;
    unsigned abandoned;       /* slots of requests that were cancelled and still work */
    struct rs_timer mourning; /* lost requests wait to hear how it ended */
    char *last_why;
};

/* It cannot take requests for now (true), or can again: a connection that is refused, a peer that is
 * away. Requests wait or go elsewhere meanwhile. */
void rs_backend_block(struct rs_backend *b, bool blocked);
/* Work that was abandoned has ended. */
void rs_backend_ended(struct rs_backend *b);
/* It cannot answer this request any more: back to the queue, or DIED. `started` is false only where it
 * is certain that no work on it began. The backend has forgotten it. */
void rs_request_lost(struct rs_request *r, bool started, const char *why);
/* The same for all its requests, by their `unread`; the backend itself stays. */
void rs_backend_cut(struct rs_backend *b, const char *why);
/* It is dead: the same, and the control thread is told `why`. The router calls ops->free later, from
 * the loop. */
void rs_backend_gone(struct rs_backend *b, const char *why);
