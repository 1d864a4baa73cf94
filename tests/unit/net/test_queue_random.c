/* The queue against a plain model: a million seeded events, after each of which its rules must hold.
 *
 * Slots never exceeded; each request ends exactly once; what is due first goes first, so that none
 * starves; nothing that is past its deadline starts; the limit is exact; only the least urgent are shed
 * or displaced; the counters are what a recount gives. In every other world two versions share the
 * requests, by shares that change: each goes to its own, but where that has no slots at all. */
#include "core/base/error.h"
#include "net/router/queue.h"
#include "tests/unit/check_main.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVENTS = 12500 };
#else
enum { EVENTS = 125000 };
#endif
enum { WORLDS = 8, REQUESTS = 120, BACKENDS = 6, AGEING = 40 };

/* ck_assert tells Check where it is each time, which takes longer than all the rest. */
#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            ck_abort_msg("%s", #what);                                                             \
    } while (0)

enum state { IDLE, WAITS, RUNS };

struct request {
    struct rs_waiter w;
    enum state state;
    bool held;
    struct rs_slots *with;
    int64_t arrived;
    uint64_t number; /* among those that came */
};

static struct rs_queue q;
static struct request all[REQUESTS];
static struct rs_slots slots[BACKENDS];
static int64_t now;
static uint64_t seed, numbers;
static bool two_versions, split;
static unsigned eighths; /* of the requests, for the new version */
enum { OLD = 1, NEW = 2 };
/* What became of requests. */
static unsigned came, done, cancelled, returned, started, ended[RS_DROPS], waiting, gave;

static unsigned below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static struct request *of(struct rs_waiter *w)
{
    return rs_container_of(w, struct request, w);
}

/* --- the rules, said once more ------------------------------------------------------------------ */

/* What it drew, in eighths, is among the highest of all; but nobody waits for a version that is not there. */
static bool is_for_new(const struct request *r)
{
    bool has[2] = {false, false};

    for (int j = 0; j < BACKENDS; j++) {
        const struct rs_slots *s = &slots[j];

        if (s->admitted && !s->blocked && s->limit && !(s->remote && r->w.local_only))
            has[s->version == NEW] = true;
    }
    return has[0] == has[1] ? (r->w.draw >> 29) + eighths >= 8 : has[1];
}

static bool belongs(const struct rs_slots *s, const struct request *r)
{
    return !split || is_for_new(r) == (s->version == NEW);
}

static bool may_take(const struct rs_slots *s, const struct request *r)
{
    return belongs(s, r) && s->admitted && !s->blocked && s->in_flight < s->limit &&
           !(s->remote && r->w.local_only);
}

static bool has_slot(const struct request *r)
{
    for (int j = 0; j < BACKENDS; j++) {
        if (may_take(&slots[j], r))
            return true;
    }
    return false;
}

/* Urgency counts as a time of arrival: each class is AGEING. */
static bool is_due_before(const struct request *a, const struct request *b)
{
    int64_t x = a->arrived - a->w.priority * AGEING, y = b->arrived - b->w.priority * AGEING;

    return x != y ? x < y : a->number < b->number;
}

static bool is_over(const struct request *r)
{
    return r->w.deadline && now >= r->w.deadline;
}

static unsigned slots_there(void)
{
    unsigned n = 0;

    for (int j = 0; j < BACKENDS; j++)
        n += slots[j].admitted && !slots[j].blocked ? slots[j].limit : 0;
    return n;
}

/* It lets others go first: it has waited for half of its time. (How much it would need is measured.) */
static bool gave_way(const struct request *r)
{
    return r->w.waits == RS_WAITS_LATE;
}

static int lowest_waiting(void)
{
    int lowest = RS_PRIORITIES;

    for (int i = 0; i < REQUESTS; i++) {
        if (all[i].state == WAITS && all[i].w.priority < lowest)
            lowest = all[i].w.priority;
    }
    return lowest;
}

/* Its class has nobody who came later (or earlier) and waits. */
static bool is_end_of_class(const struct request *r, bool last)
{
    for (int i = 0; i < REQUESTS; i++) {
        if (all[i].state == WAITS && all[i].w.priority == r->w.priority && &all[i] != r &&
            (all[i].number > r->number) == last)
            return false;
    }
    return true;
}

static void leaves(struct request *r, enum state to)
{
    must(r->state == WAITS);
    r->state = to;
    r->held = false;
    waiting--;
}

static void check_start(struct request *r, struct rs_slots *s)
{
    unsigned mine = 0;

    must(!is_over(r));
    must(s->admitted && !s->blocked && !(s->remote && r->w.local_only));
    must(s->in_flight <= s->limit);
    must(belongs(s, r));
    /* Whoever is due before it, and waits for no choice, had no slot. */
    s->in_flight--;
    for (int i = 0; i < REQUESTS; i++) {
        const struct request *o = &all[i];
        bool ordinary = o->state == WAITS && !o->held && !gave_way(o);

        mine += o->state == RUNS && o->with == s;
        if (ordinary && o != r && (gave_way(r) || is_due_before(o, r)))
            must(!has_slot(o));
        /* None starves: nobody passes him who came more than nine classes' ageing later. */
        if (ordinary && r->arrived > o->arrived + 9 * AGEING)
            must(!has_slot(o));
    }
    must(mine == s->in_flight);
    s->in_flight++;
}

/* --- events ------------------------------------------------------------------------------------ */

static void pump(void)
{
    struct rs_slots *s;
    struct rs_waiter *w;

    while ((w = rs_queue_next(&q, now, &s))) {
        struct request *r = of(w);

        must(!r->held);
        if (!s) {
            must(is_over(r));
            leaves(r, IDLE);
            ended[RS_DROP_EXPIRED]++;
            continue;
        }
        check_start(r, s);
        leaves(r, RUNS);
        r->with = s;
        started++;
    }
    while ((w = rs_queue_shed(&q, now))) {
        struct request *r = of(w);

        must(q.shed.on && waiting > slots_there());
        must(r->w.priority == lowest_waiting());
        must(is_end_of_class(r, false));
        leaves(r, IDLE);
        ended[RS_DROP_SHED]++;
    }
}

static void arrive(struct request *r)
{
    struct rs_waiter *displaced;
    unsigned before = waiting;
    bool slot;
    int lowest = lowest_waiting(), result;

    r->w = (struct rs_waiter){.priority = (uint8_t)below(RS_PRIORITIES),
                              .local_only = below(4) == 0,
                              .draw = two_versions ? below(UINT32_MAX) : 0,
                              .deadline = below(3) ? now + 1 + below(200) : 0};
    r->arrived = now;
    r->number = ++numbers;
    came++;
    slot = has_slot(r);
    result = rs_queue_put(&q, &r->w, now, &displaced);
    if (result == RS_QUEUE_FULL) {
        must(before >= (unsigned)q.max_queued);
        must(lowest >= r->w.priority);
        ended[RS_DROP_FULL]++;
        return;
    }
    if (displaced) {
        must(before >= (unsigned)q.max_queued);
        must(of(displaced)->w.priority <= r->w.priority);
        must(gave_way(of(displaced)) ||
             (of(displaced)->w.priority == lowest && lowest < r->w.priority &&
              is_end_of_class(of(displaced), true)));
        leaves(of(displaced), IDLE);
        ended[RS_DROP_FULL]++;
    } else {
        must(q.max_queued < 0 || before < (unsigned)q.max_queued || slot);
    }
    r->state = WAITS;
    waiting++;
    if (below(10) == 0) {
        rs_queue_hold(&q, &r->w);
        r->held = true;
    }
}

static void finish(struct request *r)
{
    rs_queue_took(&q, 1 + below(60), below(2));
    rs_queue_release(&q, r->with, now);
    r->state = IDLE;
    done++;
}

/* Its replica died before it began. */
static void come_back(struct request *r)
{
    rs_queue_release(&q, r->with, now);
    rs_queue_return(&q, &r->w, now);
    r->state = WAITS;
    waiting++;
    returned++;
}

static void cancel(struct request *r)
{
    bool late = is_over(r);

    must(rs_queue_cancel(&q, &r->w, now) == late);
    leaves(r, IDLE);
    if (late)
        ended[RS_DROP_EXPIRED]++;
    else
        cancelled++;
}

/* Somebody chose for it, or gave up choosing. */
static void chosen(struct request *r)
{
    struct rs_slots *s = &slots[below(BACKENDS)];

    if (below(2) || !may_take(s, r)) {
        rs_queue_unhold(&q, &r->w);
        r->held = false;
    } else if (rs_queue_take(&q, &r->w, s, now)) {
        must(!is_over(r));
        leaves(r, RUNS);
        r->with = s;
        started++;
    } else {
        must(is_over(r));
        leaves(r, IDLE);
        ended[RS_DROP_EXPIRED]++;
    }
}

static void share_out(void)
{
    struct rs_split s = {.version = NEW};

    split = below(4) != 0;
    eighths = below(9);
    if (split)
        s = rs_split_make(NEW, eighths / 8.0, 7);
    rs_queue_split(&q, &s);
}

static void event(void)
{
    struct request *r = &all[below(REQUESTS)];
    struct rs_slots *s = &slots[below(BACKENDS)];

    now += below(3);
    switch (below(40)) {
    case 0:
        s->admitted = below(5) != 0;
        break;
    case 1:
        s->blocked = below(5) == 0;
        break;
    case 2:
        s->limit = below(8);
        break;
    case 3:
        q.max_queued = below(4) ? (int)below(100) : -1;
        break;
    case 4:
        q.shed.target = below(3) ? 20 + below(100) : 0;
        q.shed.interval = 1 + below(100);
        if (!q.shed.target)
            q.shed.on = false;
        break;
    case 5:
        if (r->state == RUNS)
            come_back(r);
        break;
    case 6:
        if (two_versions)
            share_out();
        break;
    default:
        if (r->state == IDLE)
            arrive(r);
        else if (r->state == RUNS)
            finish(r);
        else if (r->held)
            chosen(r);
        else if (is_over(r) || below(20) == 0)
            cancel(r);
    }
    pump();
}

/* --- recounts ---------------------------------------------------------------------------------- */

static void recount(void)
{
    unsigned listed = 0, runs = 0, in_flight = 0;

    for (int kind = 0; kind < RS_WAITS_KINDS; kind++) {
        for (int p = 0; p < RS_PRIORITIES; p++) {
            uint64_t last = 0;

            must(rs_list_empty(&q.waiting[kind][p]) == !(q.filled[kind] >> p & 1));
            rs_list_for_each (it, &q.waiting[kind][p]) {
                const struct request *r = of(rs_container_of(it, struct rs_waiter, link));

                must(r->state == WAITS);
                must(r->w.priority == p);
                must(r->w.seq > last); /* first come, first served */
                last = r->w.seq;
                listed++;
            }
        }
    }
    for (int i = 0; i < REQUESTS; i++) {
        runs += all[i].state == RUNS;
        if (all[i].state == WAITS && gave_way(&all[i])) {
            must(all[i].w.deadline && 2 * now > all[i].w.deadline + all[i].arrived);
            gave++;
        }
        /* Nobody waits beside a slot that suits him. */
        if (all[i].state == WAITS && !all[i].held)
            must(!has_slot(&all[i]));
    }
    for (int j = 0; j < BACKENDS; j++)
        in_flight += slots[j].in_flight;
    must(listed == waiting);
    must(q.queued == waiting);
    must(in_flight == runs);
    must(started == done + returned + runs);
    must(came == done + cancelled + ended[RS_DROP_FULL] + ended[RS_DROP_SHED] +
                     ended[RS_DROP_EXPIRED] + runs + waiting);
    for (int i = 0; i < RS_DROPS; i++)
        must(q.dropped[i] == ended[i]);
}

static void begin(unsigned world)
{
    memset(all, 0, sizeof(all));
    seed = world + 1;
    two_versions = world % 2;
    split = false;
    now = 1000;
    rs_queue_init(&q, -1);
    q.ageing = AGEING;
    for (int j = 0; j < BACKENDS; j++) {
        slots[j] = (struct rs_slots){.limit = 4,
                                     .admitted = true,
                                     .remote = j >= 4,
                                     .key = (uint64_t)j + 1,
                                     .version = j % 2 ? NEW : OLD};
        rs_queue_add_slots(&q, &slots[j]);
    }
}

START_TEST(a_million_events)
{
    begin((unsigned)_i);
    for (int i = 0; i < EVENTS; i++) {
        event();
        must(q.queued == waiting);
        if (i % 16 == 0)
            recount();
    }
    /* Everything happened that can happen; and then everything ends. */
    for (int i = 0; i < RS_DROPS; i++)
        ck_assert_uint_gt(ended[i], EVENTS / 1000);
    ck_assert_uint_gt(done, EVENTS / 20);
    ck_assert_uint_gt(returned, EVENTS / 1000);
    ck_assert_uint_gt(gave, EVENTS / 1000);
    for (int i = 0; i < REQUESTS; i++) {
        if (all[i].state == RUNS)
            finish(&all[i]);
    }
    while (waiting) {
        struct rs_waiter *w = rs_queue_pop(&q);

        ck_assert_ptr_nonnull(w);
        leaves(of(w), IDLE);
        cancelled++;
    }
    ck_assert_ptr_null(rs_queue_pop(&q));
    recount();
    ck_assert_uint_eq(came,
                      done + cancelled + ended[0] + ended[1] + ended[2]); /* each exactly once */
}
END_TEST

RS_CHECK_MAIN("queue_random", tcase_add_loop_test(tc, a_million_events, 0, WORLDS);)
