/* Requests that wait and slots that are free: the exact queue of one deployment, as a pure state
 * machine. It knows no sockets, no clock and no threads.
 *
 * Slots:   a request gets one only when it is free (late binding). Slots on this node before others;
 *          among those, for a request with a model, one that has it loaded, or else one with the fewest
 *          models; for a request with a session, the one that the session belongs to most; then the one
 *          with the fewest in flight; among equals the one that was used longest ago. One that is slow goes
 *          last of all, but for its small share.
 * Order:   the most urgent first, and each gains one class for every `ageing` ns that it has waited. So
 *          who came `ageing` earlier goes before who is one class more urgent, within a class it is
 *          first come, first served, and nobody is overtaken by who came more than 9 x `ageing` after
 *          him. What comes back unstarted takes the place that it had.
 * Time:    who is past its deadline gets no slot: it is handed out to be refused. (That a deadline comes
 *          while it waits is for its origin to see, which removes it.)
 *          Who has waited for half of his time, and has less left than requests take, as measured, lets
 *          all others go before him: under overload the first in the line has hardly any left, and the
 *          slots would work for nobody.
 * Limit:   max_queued counts requests that wait because no slot is free for them; -1: no limit. At the
 *          limit a newcomer takes the place of one that has too little time and is not more urgent, or
 *          of the newest one of the lowest class below its own.
 * Shed:    while the standing delay is too long (shed.h), those of the lowest class go first, the oldest
 *          of them, until nobody has waited longer than the target; as many as there are slots stay.
 * Split:   where two versions share the requests (split.h) each of them has a queue of its own, so to
 *          speak, in which all of this holds; one limit for both.
 * Patience: where only busy slots have a request's model, it lets others go before it until
 *          `patient_until` rather than have the model loaded once more; then it takes any slot.
 * Ownership: links are embedded in the caller's objects and borrowed.
 */
#pragma once

#include "core/base/list.h"
#include "core/model/policy.h"
#include "net/router/shed.h"
#include "net/router/split.h"
#include "net/router/wish.h"

#include <stdbool.h>
#include <stdint.h>

enum { RS_PRIORITIES = RS_PRIORITY_MAX + 1 };

/* The slots of one backend. */
struct rs_slots {
    struct rs_list link; /* in the queue's list; least recently used first */
    unsigned limit, in_flight;
    bool admitted; /* may be given requests */
    bool blocked;  /* not for now */
    bool resting;  /* not for now, since somebody thinks that it is ill */
    bool remote;   /* on another node */
    bool fresh;    /* of the new version of a split; the queue's own */
    /* It is slow: at most `share` at a time, and while others are free one in `every` picks. */
    unsigned every, share; /* 0: as all */
    uint64_t last_pick;    /* number of it in the queue's picks */
    uint64_t key;          /* who it is, for sessions: any number that stays */
    uint64_t version;      /* rs_wish_hash of it; 0: not known */
    struct rs_models models;
};

enum rs_waits {
    RS_WAITS_ANY,   /* for any slot */
    RS_WAITS_LOCAL, /* for one of this node */
    RS_WAITS_FRESH, /* the same two, for one of the new version */
    RS_WAITS_FRESH_LOCAL,
    RS_WAITS_HELD, /* somebody else chooses for it */
    RS_WAITS_LATE, /* lets others go before it: it has too little time left */
    RS_WAITS_KINDS,
    RS_WAITS_PATIENT = RS_WAITS_KINDS, /* lets others go before it, for its model */
};

struct rs_waiter {
    struct rs_list link;
    uint64_t seq;     /* its number among those that came; 0: it never waited */
    int64_t arrived;  /* monotonic ns */
    int64_t deadline; /* 0: none */
    uint8_t priority; /* below RS_PRIORITIES */
    uint8_t waits;    /* enum rs_waits, the queue's own */
    bool local_only;
    uint32_t draw; /* of a split */
    struct rs_wish wish;
    int64_t patient_until; /* for its model; monotonic ns, 0: takes any slot */
};

enum rs_drop { RS_DROP_FULL, RS_DROP_SHED, RS_DROP_EXPIRED, RS_DROPS };

struct rs_queue {
    struct rs_list waiting[RS_WAITS_KINDS][RS_PRIORITIES]; /* each by seq */
    unsigned filled[RS_WAITS_KINDS];                       /* bits: which of them are not empty */
    struct rs_list patient;                                /* in the order in which they are due */
    struct rs_list slots;
    int max_queued;
    int64_t ageing; /* ns */
    struct rs_shed shed;
    struct rs_drain drain;
    struct rs_split split;        /* zeroed: one version */
    struct rs_span work;          /* that a request takes */
    unsigned queued, multiplexed; /* all that wait; slots that tell of their models */
    uint64_t last_seq;
    uint64_t picks;             /* of slots, so far */
    uint64_t dropped[RS_DROPS]; /* refused, or handed out to be */
};

enum { RS_QUEUE_FULL = 1 };

/* What may be said of a queue; times in ns. */
struct rs_queue_conf {
    int max_queued;
    int64_t ageing;                     /* 0: the default */
    int64_t shed_target, shed_interval; /* target 0: nothing is shed */
};

void rs_queue_init(struct rs_queue *q, int max_queued);
void rs_queue_configure(struct rs_queue *q, const struct rs_queue_conf *conf);
/* Two versions share the requests from now on, or another way than before; `split` zeroed: no more. */
void rs_queue_split(struct rs_queue *q, const struct rs_split *split);
/* Slots came, went or were blocked: who waits for a version that has none goes to the other. rs_queue_put
 * and _next do it themselves. */
void rs_queue_settle(struct rs_queue *q);
/* Its version is the one that these slots are of. */
bool rs_queue_belongs(const struct rs_queue *q, const struct rs_waiter *w,
                      const struct rs_slots *s);

/* Takes it, at the end of its class. `displaced`: the one that has to go for it, which waits no longer;
 * NULL: none. RS_QUEUE_FULL: the limit is met and no slot is free for it; it was not taken. */
int rs_queue_put(struct rs_queue *q, struct rs_waiter *w, int64_t now,
                 struct rs_waiter **displaced);
/* Back to the place that it had (if it had none: at the end), whatever the limit. */
void rs_queue_return(struct rs_queue *q, struct rs_waiter *w, int64_t now);
void rs_queue_remove(struct rs_queue *q, struct rs_waiter *w); /* it no longer waits */
/* The same; counted as expired if its deadline is why. True: it is. */
bool rs_queue_cancel(struct rs_queue *q, struct rs_waiter *w, int64_t now);
/* The next waiter that a slot is free for: removed from the queue, its slot taken. With `*ret` NULL it
 * is past its deadline, and has none. NULL: no further one. */
struct rs_waiter *rs_queue_next(struct rs_queue *q, int64_t now, struct rs_slots **ret);
/* After _next has none: the next that is to be refused because the queue is too long; removed. NULL:
 * none. Ask until then, so that the delay is known. */
struct rs_waiter *rs_queue_shed(struct rs_queue *q, int64_t now);
/* It waits on, but rs_queue_next passes it by; and back again, to its place. */
void rs_queue_hold(struct rs_queue *q, struct rs_waiter *w);
void rs_queue_unhold(struct rs_queue *q, struct rs_waiter *w);
/* This waiter gets a slot of these, of which one is free. False: it is past its deadline; it is removed
 * and has none. */
bool rs_queue_take(struct rs_queue *q, struct rs_waiter *w, struct rs_slots *s, int64_t now);
/* Which of two that wait is due first. */
bool rs_queue_before(const struct rs_queue *q, const struct rs_waiter *a,
                     const struct rs_waiter *b);
/* When time alone may change something: someone's patience ends, or there is somebody to shed. Then ask
 * _next and _shed again. 0: never. */
int64_t rs_queue_deadline(const struct rs_queue *q, int64_t now);
struct rs_waiter *rs_queue_pop(struct rs_queue *q); /* the oldest, no slot; NULL: empty */
/* In how many seconds one that is refused now may find room. */
unsigned rs_queue_retry_after(const struct rs_queue *q, int64_t now);

void rs_queue_add_slots(struct rs_queue *q, struct rs_slots *s);
void rs_queue_remove_slots(struct rs_queue *q, struct rs_slots *s);
/* It is to get `percent` of its share, of `n` that there are; 0: none; 100: as all. */
void rs_queue_weigh(struct rs_queue *q, struct rs_slots *s, unsigned percent, unsigned n);
/* One of its requests ended. */
void rs_queue_release(struct rs_queue *q, struct rs_slots *s, int64_t now);
/* It had taken so long, ns; `whole`: it was done, and not cancelled. */
void rs_queue_took(struct rs_queue *q, int64_t took, bool whole);
/* It tells which models it has; all of them. */
void rs_queue_models(struct rs_queue *q, struct rs_slots *s, const uint64_t *models, size_t n);
/* Nobody waits, and there is a slot for this one. */
bool rs_queue_idle(struct rs_queue *q, const struct rs_waiter *w);
/* Any slots that are admitted, free or not. */
bool rs_queue_open(const struct rs_queue *q);
