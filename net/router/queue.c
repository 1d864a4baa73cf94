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
    rs_list_init(&q->patient);
    rs_list_init(&q->held);
    rs_list_init(&q->slots);
}

static bool is_free(const struct rs_slots *s)
{
    return s->admitted && !s->blocked && s->in_flight < s->limit;
}

static bool suits(const struct rs_slots *s, const struct rs_waiter *w)
{
    return is_free(s) && !(s->remote && w->local_only);
}

/* Its model, where that is of any meaning. */
static uint64_t model_of(const struct rs_queue *q, const struct rs_waiter *w)
{
    return q->multiplexed ? w->wish.model : 0;
}

static bool better(const struct rs_slots *a, const struct rs_slots *b, uint64_t model,
                   uint64_t session)
{
    bool a_has, b_has;

    if (a->remote != b->remote)
        return !a->remote;
    a_has = model && rs_models_have(&a->models, model);
    b_has = model && rs_models_have(&b->models, model);
    if (a_has != b_has)
        return a_has;
    if (model && !a_has && a->models.n != b->models.n)
        return a->models.n < b->models.n;
    if (session)
        return rs_session_weight(session, a->key) > rs_session_weight(session, b->key);
    return a->in_flight < b->in_flight;
}

/* The list is in order of last use, so the first of equals is the one to take. */
static struct rs_slots *best_slot(const struct rs_queue *q, const struct rs_waiter *w)
{
    uint64_t model = model_of(q, w), session = w->wish.session;
    struct rs_slots *best = NULL;

    rs_list_for_each (it, &q->slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        if (!suits(s, w))
            continue;
        if (!best || better(s, best, model, session))
            best = s;
        if (!model && !session && best->in_flight == 0 && !best->remote)
            break;
    }
    return best;
}

/* Someone who is only busy has its model, and the free one has not. */
static bool rather_waits(const struct rs_queue *q, const struct rs_waiter *w,
                         const struct rs_slots *free, int64_t now)
{
    uint64_t model = model_of(q, w);

    if (!model || now >= w->patient_until || rs_models_have(&free->models, model))
        return false;
    rs_list_for_each (it, &q->slots) {
        const struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        if (s->admitted && !s->blocked && s->limit && rs_models_have(&s->models, model))
            return true;
    }
    return false;
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
        if (!rs_list_empty(list_of(q, w)) || !best_slot(q, w))
            return RS_QUEUE_FULL;
        w->patient_until = 0;
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

/* --- who lets others go first ------------------------------------------------------------------ */

enum { SCAN_MAX = 1024 }; /* of those; the rest is looked at when these are fewer */

static void insert_by_seq(struct rs_list *list, struct rs_waiter *w)
{
    struct rs_list *at = list->prev;

    while (at != list && rs_container_of(at, struct rs_waiter, link)->seq > w->seq)
        at = at->prev;
    rs_list_push_front(at, &w->link);
}

static void be_patient(struct rs_queue *q, struct rs_waiter *w)
{
    insert_by_seq(&q->patient, w);
}

void rs_queue_hold(struct rs_queue *q, struct rs_waiter *w)
{
    insert_by_seq(&q->held, w);
}

void rs_queue_unhold(struct rs_queue *q, struct rs_waiter *w)
{
    insert_by_seq(list_of(q, w), w);
}

/* The oldest of them that takes a slot now. */
static struct rs_waiter *patient_next(const struct rs_queue *q, int64_t now, struct rs_slots **ret)
{
    unsigned seen = 0;

    rs_list_for_each (it, &q->patient) {
        struct rs_waiter *w = rs_container_of(it, struct rs_waiter, link);
        struct rs_slots *s = best_slot(q, w);

        if (s && !rather_waits(q, w, s, now)) {
            *ret = s;
            return w;
        }
        if (++seen == SCAN_MAX)
            break;
    }
    return NULL;
}

int64_t rs_queue_deadline(const struct rs_queue *q, int64_t now)
{
    rs_list_for_each (it, &q->patient) {
        const struct rs_waiter *w = rs_container_of(it, struct rs_waiter, link);

        if (w->patient_until > now)
            return w->patient_until;
    }
    return 0;
}

/* --- who is next ------------------------------------------------------------------------------- */

static bool any_free(const struct rs_queue *q)
{
    rs_list_for_each (it, &q->slots) {
        if (is_free(rs_container_of(it, struct rs_slots, link)))
            return true;
    }
    return false;
}

static struct rs_waiter *ordinary_next(struct rs_queue *q, int64_t now, struct rs_slots **ret)
{
    struct rs_waiter *w;

    while ((w = oldest(q, true))) {
        struct rs_slots *s = best_slot(q, w);

        if (!s && w->local_only) {
            /* Only slots elsewhere are free, and it may not go there: those behind it may. */
            w = oldest(q, false);
            s = w ? best_slot(q, w) : NULL;
        }
        if (!s)
            return NULL;
        if (!rather_waits(q, w, s, now)) {
            *ret = s;
            return w;
        }
        be_patient(q, w);
    }
    return NULL;
}

struct rs_waiter *rs_queue_next(struct rs_queue *q, int64_t now, struct rs_slots **ret)
{
    struct rs_waiter *w, *p = NULL;
    struct rs_slots *s = NULL, *for_p = NULL;

    if (!rs_list_empty(&q->patient)) {
        if (!any_free(q))
            return NULL;
        p = patient_next(q, now, &for_p);
    }
    w = ordinary_next(q, now, &s);
    if (p && (!w || p->seq < w->seq)) {
        w = p;
        s = for_p;
    }
    if (!w)
        return NULL;
    rs_queue_take(q, w, s);
    *ret = s;
    return w;
}

void rs_queue_take(struct rs_queue *q, struct rs_waiter *w, struct rs_slots *s)
{
    rs_queue_remove(q, w);
    s->in_flight++;
    if (s->models.known && w->wish.model)
        rs_models_add(&s->models, w->wish.model); /* it will have it soon */
    rs_list_push_back(&q->slots, &s->link);
}

struct rs_waiter *rs_queue_pop(struct rs_queue *q)
{
    struct rs_waiter *w = oldest(q, true), *p = head(&q->patient), *h = head(&q->held);

    if (p && (!w || p->seq < w->seq))
        w = p;
    if (h && (!w || h->seq < w->seq))
        w = h;
    if (w)
        rs_queue_remove(q, w);
    return w;
}

void rs_queue_add_slots(struct rs_queue *q, struct rs_slots *s)
{
    rs_list_init(&s->link);
    rs_list_push_front(&q->slots, &s->link);
}

void rs_queue_models(struct rs_queue *q, struct rs_slots *s, const uint64_t *models, size_t n)
{
    if (!s->models.known)
        q->multiplexed++;
    rs_models_clear(&s->models);
    for (size_t i = 0; i < n; i++)
        rs_models_add(&s->models, models[i]);
}

void rs_queue_remove_slots(struct rs_queue *q, struct rs_slots *s)
{
    if (s->models.known)
        q->multiplexed--;
    s->models = (struct rs_models){0};
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
