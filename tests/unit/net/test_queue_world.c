/* The queue at work: clients, replicas and a virtual clock. What users would see. */
#include "core/base/clock.h"
#include "core/base/error.h"
#include "net/router/queue.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { REQUESTS = 10000 };
#else
enum { REQUESTS = 40000 };
#endif
enum { REPLICAS = 16 };

struct request {
    struct rs_waiter w;
    int64_t came, started, ends; /* ends: while it runs */
    int8_t with;                 /* replica; -1: waits; -2: it was dropped; -3: it has not come */
    bool late;                   /* its time was over before it was done */
};

struct replica {
    struct rs_slots s;
    int64_t service; /* mean time of one request, ns */
};

static struct rs_queue q;
static struct request all[REQUESTS];
static struct replica replicas[REPLICAS];
static unsigned n_replicas;
static int64_t now;
static uint64_t seed;

static double uniform(void)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return ((double)(seed >> 11) + 0.5) / 9007199254740992.0;
}

/* Times from half to one and a half of the mean: what replicas take, and between arrivals. */
static int64_t around(int64_t mean)
{
    return mean / 2 + (int64_t)(uniform() * (double)mean);
}

static bool wild;

static int64_t takes(int64_t mean)
{
    return wild ? (int64_t)(-log(uniform()) * (double)mean) : around(mean);
}

static void begin(unsigned n, unsigned limit, int64_t service)
{
    rs_queue_init(&q, -1);
    memset(all, 0, sizeof(all));
    seed = 42;
    now = RS_SEC;
    n_replicas = n;
    for (unsigned i = 0; i < n; i++) {
        replicas[i] = (struct replica){.s = {.limit = limit, .admitted = true, .key = i + 1},
                                       .service = service};
        rs_queue_add_slots(&q, &replicas[i].s);
    }
    for (int i = 0; i < REQUESTS; i++)
        all[i] = (struct request){.w = {.priority = RS_PRIORITY_DEFAULT}, .with = -3};
}

/* Those that run, as a heap by when they end. */
static struct request *running[REPLICAS * 64];
static unsigned n_running;

static void heap_swap(unsigned a, unsigned b)
{
    struct request *r = running[a];

    running[a] = running[b];
    running[b] = r;
}

static void heap_push(struct request *r)
{
    unsigned i = n_running++;

    ck_assert_uint_lt(i, RS_COUNT(running));
    running[i] = r;
    for (; i && running[i]->ends < running[(i - 1) / 2]->ends; i = (i - 1) / 2)
        heap_swap(i, (i - 1) / 2);
}

static struct request *heap_pop(void)
{
    struct request *r = running[0];
    unsigned i = 0, c;

    running[0] = running[--n_running];
    while ((c = 2 * i + 1) < n_running) {
        if (c + 1 < n_running && running[c + 1]->ends < running[c]->ends)
            c++;
        if (running[i]->ends <= running[c]->ends)
            break;
        heap_swap(i, c);
        i = c;
    }
    return r;
}

static void pump(void)
{
    struct rs_slots *s;
    struct rs_waiter *w;

    while ((w = rs_queue_next(&q, now, &s))) {
        struct request *r = rs_container_of(w, struct request, w);
        struct replica *x = s ? rs_container_of(s, struct replica, s) : NULL;

        r->with = (int8_t)(x ? x - replicas : -2);
        r->started = now;
        if (!x)
            continue;
        r->ends = now + takes(x->service);
        r->late = r->w.deadline && r->ends >= r->w.deadline;
        if (r->late)
            r->ends = r->w.deadline; /* it is cancelled */
        heap_push(r);
    }
    while ((w = rs_queue_shed(&q, now)))
        rs_container_of(w, struct request, w)->with = -2;
}

static void finish(struct request *r)
{
    now = r->ends;
    rs_queue_took(&q, now - r->started, !r->late);
    rs_queue_release(&q, &replicas[r->with].s, now);
    pump();
}

/* All come, `between` apart on average, and end. `with_deadline` ns, 0: none. */
static void run(int64_t between, int64_t with_deadline)
{
    int64_t at = now;

    n_running = 0;
    for (int i = 0; i < REQUESTS; i++) {
        struct request *r = &all[i];
        struct rs_waiter *displaced;

        at += around(between);
        while (n_running && running[0]->ends <= at)
            finish(heap_pop());
        now = at;
        r->came = now;
        r->w.deadline = with_deadline ? now + with_deadline : 0;
        r->with = -1;
        ck_assert_int_eq(rs_queue_put(&q, &r->w, now, &displaced), 0);
        pump();
    }
    while (n_running)
        finish(heap_pop());
    ck_assert_uint_eq(q.queued, 0);
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The given part of the times of those that `with` served (-1: any), or of one class (-1: any). */
static int64_t quantile(double part, unsigned first, unsigned last, int priority)
{
    static int64_t times[REQUESTS];
    size_t n = 0;

    for (int i = REQUESTS / 10; i < REQUESTS; i++) {
        const struct request *r = &all[i];

        if (r->with >= (int)first && r->with <= (int)last &&
            (priority < 0 || r->w.priority == priority))
            times[n++] = r->ends - r->came;
    }
    ck_assert_uint_gt(n, 100);
    qsort(times, n, sizeof(*times), by_size);
    return times[(size_t)((double)(n - 1) * part)];
}

/* Three replicas at the same load, alone and with a fourth that is ten times slower beside them. It
 * gets the tenth part of what they get, and the others do not become slower for it. */
static const struct {
    unsigned limit;
    double load; /* of the capacity of the three */
} slow_worlds[] = {{1, 0.5}, {1, 0.8}, {5, 0.5}, {5, 0.8}, {5, 0.95}, {20, 0.8}};

START_TEST(a_slow_replica_slows_nobody)
{
    unsigned limit = slow_worlds[_i].limit, slow = 0;
    int64_t service = 10 * RS_MS, p50, p99;
    int64_t between = (int64_t)((double)service / (3 * limit * slow_worlds[_i].load));

    begin(3, limit, service);
    run(between, 0);
    p50 = quantile(0.5, 0, 2, -1);
    p99 = quantile(0.99, 0, 2, -1);
    begin(4, limit, service);
    replicas[3].service = 10 * service;
    run(between, 0);
    ck_assert_int_le(quantile(0.5, 0, 2, -1), p50 * 102 / 100);
    ck_assert_int_le(quantile(0.99, 0, 2, -1), p99 * 102 / 100);
    for (int i = 0; i < REQUESTS; i++)
        slow += all[i].with == 3;
    /* All of its slots all of the time at the most: a tenth of what another one could do. */
    ck_assert_uint_le(slow,
                      (unsigned)((double)REQUESTS / (3 * slow_worlds[_i].load) / 10 * 1.1) + limit);
}
END_TEST

/* --- overload ---------------------------------------------------------------------------------- */

/* More than the replicas can do, with a time limit or with shedding; every tenth request is urgent. */
static const struct {
    double load;
    int64_t deadline, shed;
    bool wild; /* some requests take ten times as long as others */
} overloads[] = {
    {2, 500 * RS_MS, 0, false},   {10, 500 * RS_MS, 0, false},
    {10, 30 * RS_MS, 0, false}, /* twice what the longest one takes */
    {1.1, 100 * RS_MS, 0, false}, {2, 0, 100 * RS_MS, false},
    {10, 0, 100 * RS_MS, false},  {10, 300 * RS_MS, 50 * RS_MS, false},
    {10, 300 * RS_MS, 0, true},
};

static int64_t high_p99(double load, int64_t deadline, int64_t shed, double *goodput)
{
    enum { N = 4, LIMIT = 5 };
    int64_t service = 10 * RS_MS, began;
    unsigned served = 0;

    begin(N, LIMIT, service);
    rs_queue_configure(&q, &(struct rs_queue_conf){.max_queued = -1,
                                                   .shed_target = shed,
                                                   .shed_interval = shed ? RS_SEC : 0});
    for (int i = 0; i < REQUESTS; i++)
        all[i].w.priority = load <= 4 ? (i % 10 == 0 ? 9 : 5) : (i % 40 == 0 ? 9 : 5);
    began = now;
    run((int64_t)((double)service / (N * LIMIT * load)), deadline);
    for (int i = 0; i < REQUESTS; i++)
        served += all[i].with >= 0 && !all[i].late;
    *goodput = (double)served * (double)service / (N * LIMIT) / (double)(now - began);
    return quantile(0.99, 0, N - 1, 9);
}

START_TEST(goodput_stays_and_the_urgent_do_not_notice)
{
    double goodput;
    int64_t idle, busy;

    wild = overloads[_i].wild;
    idle = high_p99(0.5, 0, 0, &goodput);
    busy = high_p99(overloads[_i].load, overloads[_i].deadline, overloads[_i].shed, &goodput);

    ck_assert_msg(goodput >= (wild ? 0.9 : 0.97), "%g of capacity", goodput);
    /* The wait for the next slot of twenty that is free, and no more. */
    ck_assert_msg(busy <= idle + (wild ? 10 : 3) * RS_MS, "%lld against %lld", (long long)busy,
                  (long long)idle);
    for (int i = 0; i < REQUESTS; i++) {
        if (all[i].w.priority == 9)
            ck_assert(all[i].with >= 0 && (wild || !all[i].late)); /* none of them was dropped */
    }
    ck_assert_uint_gt(q.dropped[RS_DROP_SHED] + q.dropped[RS_DROP_EXPIRED], REQUESTS / 50);
}
END_TEST

/* A queue that is long for a moment, or always short, is let alone. */
START_TEST(bursts_are_not_shed)
{
    begin(4, 5, 10 * RS_MS);
    rs_queue_configure(&q, &(struct rs_queue_conf){.max_queued = -1,
                                                   .shed_target = 100 * RS_MS,
                                                   .shed_interval = RS_SEC});
    for (int burst = 0; burst < REQUESTS / 1000; burst++) { /* half a second's work at once */
        for (int i = 0; i < 1000; i++) {
            struct rs_waiter *displaced;

            ck_assert_int_eq(rs_queue_put(&q, &all[burst * 1000 + i].w, now, &displaced), 0);
            pump();
        }
        while (n_running)
            finish(heap_pop());
    }
    ck_assert_uint_eq(q.dropped[RS_DROP_SHED], 0);
}
END_TEST

/* The urgent alone are as many as can be done: the others go all the same, when they have aged. */
START_TEST(none_starves)
{
    int64_t service = 10 * RS_MS, longest = 0;
    unsigned low = 0;

    begin(1, 1, service);
    q.ageing = 100 * RS_MS;
    for (int i = 0; i < REQUESTS; i++)
        all[i].w.priority = i % 20 == 0 ? 0 : 9;
    run(service * 100 / 104, 0); /* so the queue grows, all in all */
    for (int i = 0; i < REQUESTS / 2; i++) {
        const struct request *r = &all[i];
        int64_t wait = r->ends - r->came;

        if (r->w.priority == 9 || i < REQUESTS / 100)
            continue;
        low++;
        /* As long as one of class 9 that came nine ageings later: it goes right before that one. */
        longest = wait > longest ? wait : longest;
        for (int j = i; j < REQUESTS && all[j].came < r->came + 9 * q.ageing + service; j++) {
            if (all[j].w.priority == 9 && all[j].came > r->came + 9 * q.ageing)
                ck_assert_int_ge(all[j].ends, r->ends);
        }
    }
    ck_assert_uint_gt(low, 100);
    ck_assert_int_gt(longest, 9 * q.ageing); /* they did wait */
}
END_TEST

RS_CHECK_MAIN("queue_world",
              tcase_add_loop_test(tc, a_slow_replica_slows_nobody, 0, RS_COUNT(slow_worlds));
              tcase_add_loop_test(tc, goodput_stays_and_the_urgent_do_not_notice, 0,
                                  RS_COUNT(overloads));
              tcase_add_test(tc, bursts_are_not_shed); tcase_add_test(tc, none_starves);)
