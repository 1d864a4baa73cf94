#include "net/router/queue.h"

#include "core/base/clock.h"

#include <assert.h>
#include <stddef.h>

#define AGEING (5 * RS_SEC)

void rs_queue_init(struct rs_queue *q, int max_queued)
{
    *q = (struct rs_queue){.max_queued = max_queued, .ageing = AGEING};
    for (int kind = 0; kind < RS_WAITS_KINDS; kind++) {
        for (int p = 0; p < RS_PRIORITIES; p++)
            rs_list_init(&q->waiting[kind][p]);
    }
    rs_list_init(&q->patient);
    rs_list_init(&q->slots);
}

void rs_queue_configure(struct rs_queue *q, const struct rs_queue_conf *conf)
{
    q->max_queued = conf->max_queued;
    q->ageing = conf->ageing ? conf->ageing : AGEING;
    q->shed.target = conf->shed_target;
    q->shed.interval = conf->shed_interval;
    if (!q->shed.target)
        q->shed.on = false;
}

/* --- slots ------------------------------------------------------------------------------------- */

static bool is_free(const struct rs_slots *s)
{
    return s->admitted && !s->blocked && !s->resting &&
           s->in_flight < (s->every && s->share < s->limit ? s->share : s->limit);
}

/* It is slow, and had its share. */
static bool had_enough(const struct rs_queue *q, const struct rs_slots *s)
{
    return s->every && q->picks - s->last_pick + 1 < s->every;
}

static bool is_fresh(const struct rs_queue *q, const struct rs_waiter *w)
{
    return q->split.on && w->draw >= q->split.from[w->local_only];
}

bool rs_queue_belongs(const struct rs_queue *q, const struct rs_waiter *w, const struct rs_slots *s)
{
    return !q->split.on || s->fresh == is_fresh(q, w);
}

static bool suits(const struct rs_queue *q, const struct rs_slots *s, const struct rs_waiter *w)
{
    return is_free(s) && !(s->remote && w->local_only) && rs_queue_belongs(q, w, s);
}

/* Its model, where that is of any meaning. */
static uint64_t model_of(const struct rs_queue *q, const struct rs_waiter *w)
{
    return q->multiplexed ? w->wish.model : 0;
}

static bool better(const struct rs_queue *q, const struct rs_slots *a, const struct rs_slots *b,
                   uint64_t model, uint64_t session)
{
    bool a_has, b_has;

    if (a->remote != b->remote)
        return !a->remote;
    if (had_enough(q, a) != had_enough(q, b))
        return !had_enough(q, a);
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

        if (!suits(q, s, w))
            continue;
        if (!best || better(q, s, best, model, session))
            best = s;
        if (!model && !session && best->in_flight == 0 && !best->remote && !best->every)
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

        if (s->admitted && !s->blocked && !s->resting && s->limit &&
            rs_models_have(&s->models, model) && rs_queue_belongs(q, w, s))
            return true;
    }
    return false;
}

/* --- who waits --------------------------------------------------------------------------------- */

static struct rs_waiter *of(struct rs_list *link)
{
    return rs_container_of(link, struct rs_waiter, link);
}

static bool is_expired(const struct rs_waiter *w, int64_t now)
{
    return w->deadline && now >= w->deadline;
}

/* It would hardly be done in time. */
static bool is_late(const struct rs_queue *q, const struct rs_waiter *w, int64_t now)
{
    return w->deadline && w->deadline - now < rs_span_most(&q->work) &&
           w->deadline - now < now - w->arrived;
}

/* Waiting makes all of them more urgent at the same pace: what is due first now will be so later. */
bool rs_queue_before(const struct rs_queue *q, const struct rs_waiter *a, const struct rs_waiter *b)
{
    int64_t x = a->arrived - a->priority * q->ageing, y = b->arrived - b->priority * q->ageing;

    return x != y ? x < y : a->seq < b->seq;
}

static enum rs_waits kind_of(const struct rs_queue *q, const struct rs_waiter *w)
{
    if (is_fresh(q, w))
        return w->local_only ? RS_WAITS_FRESH_LOCAL : RS_WAITS_FRESH;
    return w->local_only ? RS_WAITS_LOCAL : RS_WAITS_ANY;
}

/* Nearly always the last; what comes back, nearly always the first. */
static void insert(struct rs_queue *q, struct rs_waiter *w, enum rs_waits kind)
{
    struct rs_list *list = &q->waiting[kind][w->priority], *at = list;

    assert(w->priority < RS_PRIORITIES);
    if (!rs_list_empty(list) && of(list->prev)->seq > w->seq) {
        at = list->next;
        while (of(at)->seq < w->seq)
            at = at->next;
    }
    rs_list_init(&w->link);
    rs_list_push_back(at, &w->link); /* before `at` */
    q->filled[kind] |= 1u << w->priority;
    w->waits = (uint8_t)kind;
}

static void take_out(struct rs_queue *q, struct rs_waiter *w)
{
    rs_list_remove(&w->link);
    if (w->waits < RS_WAITS_KINDS && rs_list_empty(&q->waiting[w->waits][w->priority]))
        q->filled[w->waits] &= ~(1u << w->priority);
}

/* Of one kind the one that is due first: the heads of its classes tell. NULL: none. */
static struct rs_waiter *first(const struct rs_queue *q, enum rs_waits kind)
{
    struct rs_waiter *best = NULL;

    for (unsigned left = q->filled[kind]; left; left &= left - 1) {
        struct rs_waiter *w = of(q->waiting[kind][__builtin_ctz(left)].next);

        if (!best || rs_queue_before(q, w, best))
            best = w;
    }
    return best;
}

/* Of those that wait for a slot and no more, but for the kinds in `passed`. */
static struct rs_waiter *due(const struct rs_queue *q, unsigned passed)
{
    unsigned special =
        q->filled[RS_WAITS_LOCAL] | q->filled[RS_WAITS_FRESH] | q->filled[RS_WAITS_FRESH_LOCAL];
    struct rs_waiter *best = NULL;

    if (!special)
        return passed ? NULL : first(q, RS_WAITS_ANY);
    for (unsigned kind = RS_WAITS_ANY; kind <= RS_WAITS_FRESH_LOCAL; kind++) {
        struct rs_waiter *w =
            q->filled[kind] && !(passed & 1u << kind) ? first(q, (enum rs_waits)kind) : NULL;

        if (w && (!best || rs_queue_before(q, w, best)))
            best = w;
    }
    return best;
}

/* Of the lowest class that waits; -1: nobody does. */
static int lowest(const struct rs_queue *q)
{
    unsigned all = 0;

    for (int kind = 0; kind < RS_WAITS_KINDS; kind++)
        all |= q->filled[kind];
    return all ? __builtin_ctz(all) : -1;
}

/* Of one class the one that came last, or first. */
static struct rs_waiter *end_of(const struct rs_queue *q, int priority, bool last)
{
    struct rs_waiter *best = NULL;

    for (int kind = 0; kind < RS_WAITS_KINDS; kind++) {
        const struct rs_list *list = &q->waiting[kind][priority];
        struct rs_waiter *w = rs_list_empty(list) ? NULL : of(last ? list->prev : list->next);

        if (w && (!best || (w->seq > best->seq) == last))
            best = w;
    }
    return best;
}

void rs_queue_remove(struct rs_queue *q, struct rs_waiter *w)
{
    assert(!rs_list_empty(&w->link) && q->queued);
    take_out(q, w);
    q->queued--;
}

static struct rs_waiter *drop(struct rs_queue *q, struct rs_waiter *w, enum rs_drop why)
{
    rs_queue_remove(q, w);
    q->dropped[why]++;
    return w;
}

bool rs_queue_cancel(struct rs_queue *q, struct rs_waiter *w, int64_t now)
{
    bool expired = is_expired(w, now);

    rs_queue_remove(q, w);
    q->dropped[RS_DROP_EXPIRED] += expired;
    return expired;
}

/* At the limit: somebody less urgent makes room, or there is none. */
static struct rs_waiter *displace(struct rs_queue *q, const struct rs_waiter *w)
{
    int p = lowest(q), late = __builtin_ffs((int)q->filled[RS_WAITS_LATE]) - 1;

    if (late >= 0 && late <= w->priority)
        return drop(q, of(q->waiting[RS_WAITS_LATE][late].next), RS_DROP_FULL);
    return p >= 0 && p < w->priority ? drop(q, end_of(q, p, true), RS_DROP_FULL) : NULL;
}

int rs_queue_put(struct rs_queue *q, struct rs_waiter *w, int64_t now, struct rs_waiter **displaced)
{
    *displaced = NULL;
    if (q->split.on)
        rs_queue_settle(q);
    /* Those before it take what is free; nobody waits beside a slot that suits him. */
    if (q->max_queued >= 0 && q->queued >= (unsigned)q->max_queued) {
        if (!q->filled[kind_of(q, w)] && best_slot(q, w)) {
            w->patient_until = 0;
        } else {
            *displaced = displace(q, w);
            if (!*displaced) {
                q->dropped[RS_DROP_FULL]++;
                return RS_QUEUE_FULL;
            }
        }
    }
    w->seq = ++q->last_seq;
    w->arrived = now;
    insert(q, w, kind_of(q, w));
    q->queued++;
    return 0;
}

void rs_queue_return(struct rs_queue *q, struct rs_waiter *w, int64_t now)
{
    if (!w->seq) {
        w->seq = ++q->last_seq;
        w->arrived = now;
    }
    insert(q, w, kind_of(q, w));
    q->queued++;
}

void rs_queue_hold(struct rs_queue *q, struct rs_waiter *w)
{
    take_out(q, w);
    insert(q, w, RS_WAITS_HELD);
}

void rs_queue_unhold(struct rs_queue *q, struct rs_waiter *w)
{
    take_out(q, w);
    insert(q, w, kind_of(q, w));
}

/* --- who lets others go first ------------------------------------------------------------------ */

enum { SCAN_MAX = 1024 }; /* of those; the rest is looked at when these are fewer */

static void be_patient(struct rs_queue *q, struct rs_waiter *w)
{
    struct rs_list *at = q->patient.prev;

    take_out(q, w);
    while (at != &q->patient && rs_queue_before(q, w, of(at)))
        at = at->prev;
    rs_list_push_front(at, &w->link);
    w->waits = RS_WAITS_PATIENT;
}

/* The first of them that takes a slot now. */
static struct rs_waiter *patient_next(const struct rs_queue *q, int64_t now, struct rs_slots **ret)
{
    unsigned seen = 0;

    rs_list_for_each (it, &q->patient) {
        struct rs_waiter *w = of(it);
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

static int64_t patience_end(const struct rs_queue *q, int64_t now)
{
    rs_list_for_each (it, &q->patient) {
        if (of(it)->patient_until > now)
            return of(it)->patient_until;
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
    unsigned passed = 0; /* kinds for which there is no slot: those behind may have one */
    struct rs_waiter *w;

    while ((w = due(q, passed))) {
        struct rs_slots *s = best_slot(q, w);

        if (!s) {
            passed |= 1u << w->waits;
        } else if (is_late(q, w, now) && !is_expired(w, now)) {
            take_out(q, w);
            insert(q, w, RS_WAITS_LATE);
        } else if (is_expired(w, now) || !rather_waits(q, w, s, now)) {
            *ret = s;
            return w;
        } else {
            be_patient(q, w);
        }
    }
    return NULL;
}

/* Nobody else takes what is free: of the most urgent the one that came last has the most time. */
static struct rs_waiter *late_next(const struct rs_queue *q, struct rs_slots **ret)
{
    unsigned seen = 0;

    for (int p = RS_PRIORITIES - 1; p >= 0; p--) {
        const struct rs_list *list = &q->waiting[RS_WAITS_LATE][p];

        for (struct rs_list *it = list->prev; it != list && seen++ < SCAN_MAX; it = it->prev) {
            struct rs_slots *s = best_slot(q, of(it));

            if (s) {
                *ret = s;
                return of(it);
            }
        }
    }
    return NULL;
}

struct rs_waiter *rs_queue_next(struct rs_queue *q, int64_t now, struct rs_slots **ret)
{
    struct rs_waiter *w, *p = NULL;
    struct rs_slots *s = NULL, *for_p = NULL;

    if (!q->queued)
        return NULL;
    if (q->split.on)
        rs_queue_settle(q);
    if (!rs_list_empty(&q->patient)) {
        if (!any_free(q))
            return NULL;
        p = patient_next(q, now, &for_p);
    }
    w = ordinary_next(q, now, &s);
    if (p && (!w || rs_queue_before(q, p, w))) {
        w = p;
        s = for_p;
    }
    if (!w && q->filled[RS_WAITS_LATE] && any_free(q))
        w = late_next(q, &s);
    if (!w)
        return NULL;
    *ret = rs_queue_take(q, w, s, now) ? s : NULL;
    return w;
}

bool rs_queue_take(struct rs_queue *q, struct rs_waiter *w, struct rs_slots *s, int64_t now)
{
    if (is_expired(w, now)) {
        (void)drop(q, w, RS_DROP_EXPIRED);
        return false;
    }
    rs_queue_remove(q, w);
    s->in_flight++;
    s->last_pick = ++q->picks;
    if (s->models.known && w->wish.model)
        rs_models_add(&s->models, w->wish.model); /* it will have it soon */
    rs_list_push_back(&q->slots, &s->link);
    return true;
}

struct rs_waiter *rs_queue_pop(struct rs_queue *q)
{
    struct rs_waiter *w = rs_list_empty(&q->patient) ? NULL : of(q->patient.next);
    for (int p = 0; p < RS_PRIORITIES; p++) {
        struct rs_waiter *x = end_of(q, p, false);

        if (x && (!w || x->seq < w->seq))
            w = x;
    }
    if (w)
        rs_queue_remove(q, w);
    return w;
}

/* --- too many ---------------------------------------------------------------------------------- */

/* Since when the oldest waits who would not wait by choice; 0: nobody. */
static int64_t oldest_since(const struct rs_queue *q)
{
    int64_t since = 0;

    for (int kind = 0; kind < RS_WAITS_KINDS; kind++) {
        for (unsigned left = q->filled[kind]; left; left &= left - 1) {
            const struct rs_waiter *w = of(q->waiting[kind][__builtin_ctz(left)].next);

            if (!since || w->arrived < since)
                since = w->arrived;
        }
    }
    return since;
}

/* Each slot has somebody to take when it is free again: these are never too many. */
static unsigned enough(const struct rs_queue *q)
{
    unsigned n = 0;

    rs_list_for_each (it, &q->slots) {
        const struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        n += s->admitted && !s->blocked && !s->resting ? s->limit : 0;
    }
    return n;
}

struct rs_waiter *rs_queue_shed(struct rs_queue *q, int64_t now)
{
    unsigned keep;
    int64_t since;

    if (!q->shed.target)
        return NULL;
    since = oldest_since(q);
    keep = since ? enough(q) : 0;
    rs_shed_observe(&q->shed, keep ? now - since : 0, now);
    if (!q->shed.on || q->queued <= keep || now - since <= q->shed.target)
        return NULL;
    return drop(q, end_of(q, lowest(q), false), RS_DROP_SHED);
}

/* The delay exceeds the target, or has done so for the interval. */
static int64_t shed_at(const struct rs_queue *q, int64_t now)
{
    int64_t since = q->shed.target ? oldest_since(q) : 0, at;

    if (!since)
        return 0;
    at = !q->shed.on && q->shed.above_since ? q->shed.above_since + q->shed.interval
                                            : since + q->shed.target + 1;
    return at > now ? at : 0;
}

int64_t rs_queue_deadline(const struct rs_queue *q, int64_t now)
{
    int64_t a = patience_end(q, now), b = shed_at(q, now);

    return !a || (b && b < a) ? b : a;
}

unsigned rs_queue_retry_after(const struct rs_queue *q, int64_t now)
{
    return rs_drain_wait(&q->drain, q->queued, now);
}

/* --- slots come and go ------------------------------------------------------------------------- */

void rs_queue_add_slots(struct rs_queue *q, struct rs_slots *s)
{
    rs_list_init(&s->link);
    rs_list_push_front(&q->slots, &s->link);
    s->fresh = q->split.version && s->version == q->split.version;
}

void rs_queue_weigh(struct rs_queue *q, struct rs_slots *s, unsigned percent, unsigned n)
{
    s->resting = percent == 0;
    s->every = percent > 0 && percent < 100 ? (n ? n : 1) * 100 / percent : 0;
    s->share = s->limit * percent / 100 ? s->limit * percent / 100 : 1;
    s->last_pick = q->picks;
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

void rs_queue_release(struct rs_queue *q, struct rs_slots *s, int64_t now)
{
    assert(s->in_flight);
    s->in_flight--;
    if (q->queued || q->drain.since)
        rs_drain_ended(&q->drain, q->queued > 0, now);
}

void rs_queue_took(struct rs_queue *q, int64_t took, bool whole)
{
    /* Of one that was broken off it is known that it takes longer than that. */
    if (whole || took > rs_span_most(&q->work))
        rs_span_add(&q->work, took);
}

bool rs_queue_open(const struct rs_queue *q)
{
    rs_list_for_each (it, &q->slots) {
        if (rs_container_of(it, struct rs_slots, link)->admitted)
            return true;
    }
    return false;
}

bool rs_queue_idle(struct rs_queue *q, const struct rs_waiter *w)
{
    rs_queue_settle(q);
    return q->queued == 0 && best_slot(q, w);
}

/* --- two versions ------------------------------------------------------------------------------ */

static void share_out(struct rs_queue *q, struct rs_list *from, struct rs_list to[2])
{
    struct rs_waiter *w = of(from->next);

    rs_list_push_back(&to[is_fresh(q, w)], &w->link);
}

static void put_all(struct rs_queue *q, enum rs_waits kind, int priority, struct rs_list *from)
{
    struct rs_list *list = &q->waiting[kind][priority];

    while (!rs_list_empty(from)) {
        of(from->next)->waits = (uint8_t)kind;
        rs_list_push_back(list, from->next);
    }
    if (rs_list_empty(list))
        q->filled[kind] &= ~(1u << priority);
    else
        q->filled[kind] |= 1u << priority;
}

/* Both lists of a class, by seq, are taken apart and put together anew. */
static void resort(struct rs_queue *q, enum rs_waits old, enum rs_waits fresh, int priority)
{
    struct rs_list *a = &q->waiting[old][priority], *b = &q->waiting[fresh][priority], to[2];

    rs_list_init(&to[0]);
    rs_list_init(&to[1]);
    while (!rs_list_empty(a) || !rs_list_empty(b)) {
        bool from_a =
            !rs_list_empty(a) && (rs_list_empty(b) || of(a->next)->seq < of(b->next)->seq);

        share_out(q, from_a ? a : b, to);
    }
    put_all(q, old, priority, &to[0]);
    put_all(q, fresh, priority, &to[1]);
}

static void resort_all(struct rs_queue *q)
{
    for (int priority = 0; priority < RS_PRIORITIES; priority++) {
        resort(q, RS_WAITS_ANY, RS_WAITS_FRESH, priority);
        resort(q, RS_WAITS_LOCAL, RS_WAITS_FRESH_LOCAL, priority);
    }
}

void rs_queue_split(struct rs_queue *q, const struct rs_split *split)
{
    q->split = *split;
    rs_list_for_each (it, &q->slots) {
        struct rs_slots *s = rs_container_of(it, struct rs_slots, link);

        s->fresh = split->version && s->version == split->version;
    }
    rs_queue_settle(q);
    resort_all(q);
}

void rs_queue_settle(struct rs_queue *q)
{
    bool has[2][2] = {{false}};

    if (!q->split.on)
        return;
    rs_list_for_each (it, &q->slots) {
        const struct rs_slots *s = rs_container_of(it, struct rs_slots, link);
        bool open = s->admitted && !s->blocked && s->limit;

        has[0][s->fresh] |= open;
        has[1][s->fresh] |= open && !s->remote;
    }
    if (rs_split_settle(&q->split, has))
        resort_all(q);
}
