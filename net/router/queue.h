/* Requests that wait and slots that are free: the exact queue of one deployment, as a pure state
 * machine. It knows no sockets, no clock and no threads.
 *
 * Rules:   first come, first served. A request gets a slot only when one is free (late binding).
 *          Slots on this node before others; among those, for a request with a model, one that has it
 *          loaded, or else one with the fewest models; for a request with a session, the one that the
 *          session belongs to most; then the one with the fewest in flight; among equals the one that
 *          was used longest ago. What comes back unstarted goes to the front.
 * Patience: where only busy slots have a request's model, it lets others go before it until
 *          `patient_until` rather than have the model loaded once more; then it takes any slot.
 * Limit:   max_queued counts requests that wait because no slot is free for them; -1: no limit.
 * Ownership: links are embedded in the caller's objects and borrowed.
 */
#pragma once

#include "core/base/list.h"
#include "net/router/wish.h"

#include <stdbool.h>
#include <stdint.h>

/* The slots of one backend. */
struct rs_slots {
    struct rs_list link; /* in the queue's list; least recently used first */
    unsigned limit, in_flight;
    bool admitted; /* may be given requests */
    bool blocked;  /* not for now */
    bool remote;   /* on another node */
    uint64_t key;  /* who it is, for sessions: any number that stays */
    struct rs_models models;
};

struct rs_waiter {
    struct rs_list link;
    uint64_t seq;
    bool local_only;
    struct rs_wish wish;
    int64_t patient_until; /* for its model; monotonic ns, 0: takes any slot */
};

struct rs_queue {
    struct rs_list waiting,
        waiting_local;      /* by seq; local: those that only a local slot may take */
    struct rs_list patient; /* by seq: those that let others go before them */
    struct rs_list held;    /* by seq: those that somebody else chooses for */
    struct rs_list slots;
    int max_queued;
    unsigned queued, multiplexed; /* all that wait; slots that tell of their models */
    uint64_t first_seq, last_seq; /* next numbers at the front and at the end */
};

enum { RS_QUEUE_FULL = 1 };

void rs_queue_init(struct rs_queue *q, int max_queued);

/* To the end. RS_QUEUE_FULL: the limit is met and no slot is free for it; it was not taken. */
int rs_queue_put(struct rs_queue *q, struct rs_waiter *w);
/* To the front, whatever the limit. Of several, the oldest is put last. */
void rs_queue_return(struct rs_queue *q, struct rs_waiter *w);
void rs_queue_remove(struct rs_queue *q, struct rs_waiter *w); /* it no longer waits */
/* The next waiter that a slot is free for: removed from the queue, its slot taken. NULL: none. */
struct rs_waiter *rs_queue_next(struct rs_queue *q, int64_t now, struct rs_slots **ret);
/* It waits on, but rs_queue_next passes it by; and back again, to its place. */
void rs_queue_hold(struct rs_queue *q, struct rs_waiter *w);
void rs_queue_unhold(struct rs_queue *q, struct rs_waiter *w);
/* This waiter gets a slot of these, of which one is free. */
void rs_queue_take(struct rs_queue *q, struct rs_waiter *w, struct rs_slots *s);
/* When someone's patience ends next, and rs_queue_next may have a pair; 0: nobody's. */
int64_t rs_queue_deadline(const struct rs_queue *q, int64_t now);
struct rs_waiter *rs_queue_pop(struct rs_queue *q); /* the oldest, no slot; NULL: empty */

void rs_queue_add_slots(struct rs_queue *q, struct rs_slots *s);
void rs_queue_remove_slots(struct rs_queue *q, struct rs_slots *s);
void rs_queue_release(struct rs_queue *q, struct rs_slots *s); /* one of its requests ended */
/* It tells which models it has; all of them. */
void rs_queue_models(struct rs_queue *q, struct rs_slots *s, const uint64_t *models, size_t n);
/* Any slots that are admitted, free or not. */
bool rs_queue_open(const struct rs_queue *q);
