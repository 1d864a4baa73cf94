#include "net/router/queue.h"

#include <assert.h>
#include <stddef.h>

void rs_queue_init(struct rs_queue *q, int max_queued)
{
    *q = (struct rs_queue){.max_queued = max_queued,
                           .first_seq = UINT64_C(1) << 63,
                           .last_seq = (UINT64_C(1) << 63) + 1};
    rs_list_init(&q->waiting);
    rs_list_init(&q->waiting_local);
    rs_list_init(&q->slots);
}

static bool is_free(const struct rs_slots *s)
{
    return s->admitted && !s->blocked && s->in_flight < s->limit;
}

static bool better(const struct rs_slots *a, const struct rs_slots *b)
{
    if (a->remote != b->remote)
        return !a->remote;
    return a->in_flight < b->in_flight;
}

/* The list is in order of last use, so the first of equals is the one to take. */
static struct rs_slots *best_slot(const struct rs_queue *q, bool local_only)
{
    struct rs_slots *best = NULL;

    rs_list_for_each (it, &q->slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        if (!is_free(s) || (s->remote && local_only))
            continue;
        if (!best || better(s, best))
            best = s;
        if (best->in_flight == 0 && !best->remote)
            break;
    }
    return best;
}

static struct rs_list *list_of(struct rs_queue *q, const struct rs_waiter *w)
{
    return w->local_only ? &q->waiting_local : &q->waiting;
}

static struct rs_waiter *head(const struct rs_list *list)
{
    return rs_list_empty(list) ? NULL : rs_container_of(list->next, struct rs_waiter, link);
}

/* The oldest of both lists; with `local_too` false, of the one that may take any slot. */
static struct rs_waiter *oldest(const struct rs_queue *q, bool local_too)
{
    struct rs_waiter *any = head(&q->waiting);
    struct rs_waiter *local = local_too ? head(&q->waiting_local) : NULL;

    if (!any || !local)
        return any ? any : local;
    return any->seq < local->seq ? any : local;
}

int rs_queue_put(struct rs_queue *q, struct rs_waiter *w)
{
    /* Those before it take what is free; nobody waits beside a slot that suits him. */
    if (q->max_queued >= 0 && q->queued >= (unsigned)q->max_queued) {
        if (!rs_list_empty(list_of(q, w)) || !best_slot(q, w->local_only))
            return RS_QUEUE_FULL;
    }
    w->seq = q->last_seq++;
    rs_list_init(&w->link);
    rs_list_push_back(list_of(q, w), &w->link);
    q->queued++;
    return 0;
}

void rs_queue_return(struct rs_queue *q, struct rs_waiter *w)
{
    w->seq = q->first_seq--;
    rs_list_init(&w->link);
    rs_list_push_front(list_of(q, w), &w->link);
    q->queued++;
}

void rs_queue_remove(struct rs_queue *q, struct rs_waiter *w)
{
    assert(!rs_list_empty(&w->link) && q->queued);
    rs_list_remove(&w->link);
    q->queued--;
}

struct rs_waiter *rs_queue_next(struct rs_queue *q, struct rs_slots **ret)
{
    struct rs_waiter *w = oldest(q, true);
    struct rs_slots *s;

    if (!w)
        return NULL;
    s = best_slot(q, w->local_only);
    if (!s && w->local_only) {
        /* Only slots elsewhere are free, and it may not go there: those behind it may. */
        w = oldest(q, false);
        s = w ? best_slot(q, false) : NULL;
    }
    if (!s)
        return NULL;
    rs_queue_remove(q, w);
    s->in_flight++;
    rs_list_push_back(&q->slots, &s->link);
    *ret = s;
    return w;
}

struct rs_waiter *rs_queue_pop(struct rs_queue *q)
{
    struct rs_waiter *w = oldest(q, true);

    if (w)
        rs_queue_remove(q, w);
    return w;
}

void rs_queue_add_slots(struct rs_queue *q, struct rs_slots *s)
{
    rs_list_init(&s->link);
    rs_list_push_front(&q->slots, &s->link);
}

void rs_queue_remove_slots(struct rs_queue *q, struct rs_slots *s)
{
    (void)q;
    rs_list_remove(&s->link);
}

void rs_queue_release(struct rs_queue *q, struct rs_slots *s)
{
    (void)q;
    assert(s->in_flight);
    s->in_flight--;
}

bool rs_queue_open(const struct rs_queue *q)
{
    rs_list_for_each (it, &q->slots) {
        if (rs_container_of(it, struct rs_slots, link)->admitted)
            return true;
    }
    return false;
}
