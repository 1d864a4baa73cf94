/* What figures say of a replica: tables, and properties under random figures. */
#include "sched/health.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <string.h>

static const struct rs_health_conf conf = {
    .not_answering = -1,
    .stuck_factor = 10,
    .stuck_after = 60 * RS_SEC,
    .stuck_min_requests = 20,
    .slow_factor = 3,
    .slow_window = 10 * RS_SEC,
    .slow_min_requests = 20,
    .slow_replace_after = 300 * RS_SEC,
    .max_ejected_percent = 20,
};

static struct rs_tally tally(unsigned n, int64_t took)
{
    struct rs_tally t = {0};

    t.bucket[rs_tally_bucket(took)] = n;
    return t;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 0.13 * b + 1e-9; /* a bucket's width */
}

/* --- not answering --- */

static const struct {
    int64_t limit, since, now; /* s; limit -1: three times a check of 40 s */
    int action;                /* -1: it is well */
} silences[] = {
    {-1, 0, 1000, -1},
    {-1, 10, 21, -1},
    {-1, 10, 22, RS_HEALTH_SPARE},
    {-1, 10, 129, RS_HEALTH_SPARE},
    {-1, 10, 130, RS_HEALTH_KILL},
    {5, 10, 10, -1},
    {5, 10, 11, RS_HEALTH_SPARE},
    {5, 10, 15, RS_HEALTH_KILL},
};

START_TEST(silence)
{
    struct rs_health_conf c = conf;
    struct rs_health_finding f = {0};
    int64_t since = silences[_i].since * RS_SEC, now = silences[_i].now * RS_SEC;
    bool found;

    if (silences[_i].limit > 0)
        c.not_answering = silences[_i].limit * RS_SEC;
    found = rs_silent_judge(&c, 40 * RS_SEC, since, now, &f);
    ck_assert_int_eq(found ? (int)f.action : -1, silences[_i].action);
    if (!found)
        return;
    ck_assert_int_eq(f.what, RS_HEALTH_SILENT);
    ck_assert_int_eq(f.since, since);
    ck_assert(near(f.value, (double)(now - since) / 1e9));
    ck_assert(near(f.limit, silences[_i].limit > 0 ? (double)silences[_i].limit : 120));
}
END_TEST

/* Looking when it is due, and not before, finds each change at once. */
START_TEST(silence_is_looked_at_in_time)
{
    struct rs_health_finding f;
    int64_t since = 7 * RS_SEC, now = since, at;

    at = rs_silent_deadline(&conf, 40 * RS_SEC, since, now);
    ck_assert(!rs_silent_judge(&conf, 40 * RS_SEC, since, at - 1, &f));
    ck_assert(rs_silent_judge(&conf, 40 * RS_SEC, since, at, &f));
    ck_assert_int_eq(f.action, RS_HEALTH_SPARE);
    now = at;
    at = rs_silent_deadline(&conf, 40 * RS_SEC, since, now);
    ck_assert_int_gt(at, now);
    ck_assert(rs_silent_judge(&conf, 40 * RS_SEC, since, at - 1, &f));
    ck_assert_int_eq(f.action, RS_HEALTH_SPARE);
    ck_assert(rs_silent_judge(&conf, 40 * RS_SEC, since, at, &f));
    ck_assert_int_eq(f.action, RS_HEALTH_KILL);
}
END_TEST

/* --- stuck --- */

static const struct {
    double factor, after, p99; /* s */
    unsigned own, all;         /* requests that took p99 */
    double at_least, limit;    /* s; limit 0: none */
} limits[] = {
    {10, 60, 0.03, 100, 100, 0, 60},    /* the floor */
    {10, 60, 10, 100, 100, 0, 100},     /* ten times its own p99 */
    {10, 60, 10, 5, 100, 0, 100},       /* of all, where it has too few */
    {10, 60, 0.03, 0, 19, 0, 0},        /* nobody knows yet */
    {10, 60, 0.03, 0, 20, 0, 60},       /* now one does */
    {0, 60, 0.03, 100, 100, 0, 0},      /* off */
    {10, 60, 0.03, 100, 100, 300, 300}, /* a request may take as long as that */
    {0.5, 1, 10, 100, 100, 0, 30},      /* three times the longest */
};

START_TEST(stall_limits)
{
    struct rs_health_conf c = conf;
    struct rs_tally own = tally(limits[_i].own, (int64_t)(limits[_i].p99 * 1e9));
    struct rs_tally all = tally(limits[_i].all, (int64_t)(limits[_i].p99 * 1e9));
    int64_t usual = 0, limit;

    c.stuck_factor = limits[_i].factor;
    c.stuck_after = (int64_t)(limits[_i].after * 1e9);
    limit = rs_stall_limit(&c, &own, &all, (int64_t)(limits[_i].at_least * 1e9), &usual);
    ck_assert_msg(near((double)limit / 1e9, limits[_i].limit), "%g", (double)limit / 1e9);
    if (limit)
        ck_assert(near((double)usual / 1e9, limits[_i].p99));
}
END_TEST

/* A deployment of which one request in a thousand takes ten minutes. */
START_TEST(long_ones_among_short_ones)
{
    struct rs_tally all = tally(1000, 20 * RS_MS), own = {0};
    int64_t usual, limit;

    all.bucket[rs_tally_bucket(600 * RS_SEC)]++;
    limit = rs_stall_limit(&conf, &own, &all, 0, &usual);
    ck_assert_int_ge(limit, 1800 * RS_SEC);
    ck_assert(near((double)usual / 1e9, 0.02));
}
END_TEST

static int64_t feed(struct rs_stall *s, unsigned in_flight, unsigned open, unsigned calls,
                    uint64_t moved, uint64_t given_up, int64_t now)
{
    const struct rs_health_sample x = {
        .in_flight = in_flight, .open = open, .calls = calls, .moved = moved, .given_up = given_up};

    rs_stall_feed(s, &x, now);
    return s->time;
}

START_TEST(stalls)
{
    struct rs_stall s = {0};
    struct rs_health_finding f;
    int64_t now = 100 * RS_SEC;

    ck_assert_int_eq(feed(&s, 3, 0, 0, 7, 0, now), 0);
    ck_assert_int_eq(feed(&s, 3, 0, 0, 7, 0, now + RS_SEC), RS_SEC);
    ck_assert_int_eq(feed(&s, 3, 0, 0, 8, 0, now + 2 * RS_SEC), 0); /* something came of it */
    for (int i = 3; i <= 32; i++)
        feed(&s, 3, 0, 0, 8, 0, now + i * RS_SEC);
    ck_assert_int_eq(s.time, 30 * RS_SEC);
    ck_assert(!rs_stall_judge(&s, 61 * RS_SEC, RS_MS, 3, &f));
    ck_assert(rs_stall_judge(&s, 60 * RS_SEC, RS_MS, 3, &f)); /* half of the limit */
    ck_assert_int_eq(f.action, RS_HEALTH_SPARE);
    ck_assert(rs_stall_judge(&s, 30 * RS_SEC, RS_MS, 3, &f));
    ck_assert_int_eq(f.action, RS_HEALTH_END);
    ck_assert_int_eq(f.since, now + 2 * RS_SEC);
    ck_assert_uint_eq(f.waiting, 3);
    ck_assert(!rs_stall_judge(&s, 0, RS_MS, 3, &f)); /* no limit is known */
}
END_TEST

/* None of these is stuck, however long. */
static const struct {
    unsigned in_flight, open, calls;
} idle[] = {
    {0, 0, 0}, /* it has nothing to do */
    {5, 5, 0}, /* WebSockets, streams: it has begun to answer all of them */
    {5, 0, 1}, /* it waits for another deployment */
};

START_TEST(not_stalls)
{
    struct rs_stall s = {0};

    for (int i = 0; i < 10000; i++)
        ck_assert_int_eq(
            feed(&s, idle[_i].in_flight, idle[_i].open, idle[_i].calls, 3, 0, (100 + i) * RS_SEC),
            0);
}
END_TEST

/* Each request is given up when its time is over, and between them nothing is there. */
START_TEST(given_up_requests_are_no_answers)
{
    struct rs_stall s = {0};
    int64_t now = 100 * RS_SEC;

    for (int i = 0; i < 60; i++)
        feed(&s, i % 2, 0, 0, 3, (uint64_t)i / 2, now + i * RS_SEC);
    ck_assert_int_eq(s.time, 29 * RS_SEC); /* that in which one was there */
}
END_TEST

/* This process was not run for a while: what happened meanwhile is not known. */
START_TEST(gaps_count_little)
{
    struct rs_stall s = {0};

    feed(&s, 1, 0, 0, 3, 0, 100 * RS_SEC);
    ck_assert_int_eq(feed(&s, 1, 0, 0, 3, 0, 10000 * RS_SEC), RS_STALL_GAP);
}
END_TEST

/* --- slow --- */

enum { MOST = 12 };

struct fleet {
    size_t n;
    double median[MOST]; /* ms */
    uint64_t count[MOST];
    struct rs_slow state[MOST];
    struct rs_slow_one one[MOST];
};

static unsigned window(struct fleet *f, const struct rs_health_conf *c, unsigned spare, int64_t now)
{
    unsigned spared = 0;

    for (size_t i = 0; i < f->n; i++)
        f->one[i] = (struct rs_slow_one){
            .state = &f->state[i], .median = f->median[i] / 1e3, .count = f->count[i]};
    rs_slow_judge(c, f->one, f->n, spare, now);
    for (size_t i = 0; i < f->n; i++)
        spared += f->state[i].spared;
    return spared;
}

static struct fleet fleet_of(size_t n, double usual)
{
    struct fleet f = {.n = n};

    for (size_t i = 0; i < n; i++) {
        f.median[i] = usual + (double)i * usual / 100;
        f.count[i] = 100;
    }
    return f;
}

START_TEST(slow_and_well_again)
{
    struct fleet f = fleet_of(5, 20);
    int64_t now = 100 * RS_SEC;

    f.median[4] = 200;
    for (int i = 1; i < RS_SLOW_STRIKES; i++) {
        ck_assert_uint_eq(window(&f, &conf, 1, now), 0);
        ck_assert(!f.one[4].finding);
    }
    ck_assert_uint_eq(window(&f, &conf, 1, now), 1);
    ck_assert(f.one[4].finding && f.state[4].spared);
    ck_assert_int_eq(f.one[4].found.action, RS_HEALTH_SPARE);
    ck_assert_uint_eq(f.one[4].found.siblings, 4);
    ck_assert(near(f.one[4].found.value, 0.2));
    ck_assert(near(f.one[4].found.usual, 0.0203));
    f.count[4] = 3; /* it gets a tenth now, and is still slow */
    ck_assert_uint_eq(window(&f, &conf, 0, now + 299 * RS_SEC), 1);
    ck_assert_int_eq(f.one[4].found.action, RS_HEALTH_SPARE);
    window(&f, &conf, 0, now + 300 * RS_SEC);
    ck_assert_int_eq(f.one[4].found.action, RS_HEALTH_REPLACE);
    f.count[4] = 1; /* too few to say anything: it stays so */
    f.median[4] = 20;
    ck_assert_uint_eq(window(&f, &conf, 0, now + 301 * RS_SEC), 1);
    f.count[4] = 5;
    ck_assert_uint_eq(window(&f, &conf, 0, now + 310 * RS_SEC), 1);
    ck_assert_uint_eq(window(&f, &conf, 0, now + 320 * RS_SEC), 0); /* calm twice */
    ck_assert(!f.one[4].finding);
}
END_TEST

static const struct {
    size_t n;
    double usual, slow; /* ms */
    uint64_t count;
    double factor;
    bool found;
} fleets[] = {
    {4, 20, 200, 100, 3, true},  {3, 20, 200, 100, 3, false}, /* two siblings are too few */
    {4, 20, 55, 100, 3, false},                               /* not that slow */
    {4, 0.2, 4, 100, 3, false},  /* twenty times as long, and nobody would notice */
    {4, 20, 200, 19, 3, false},  /* too few requests */
    {4, 20, 200, 100, 0, false}, /* off */
};

START_TEST(who_is_slow)
{
    struct fleet f = fleet_of(fleets[_i].n, fleets[_i].usual);
    struct rs_health_conf c = conf;
    unsigned spared = 0;

    c.slow_factor = fleets[_i].factor;
    f.median[0] = fleets[_i].slow;
    for (size_t i = 0; i < f.n; i++)
        f.count[i] = fleets[_i].count;
    for (int i = 0; i < 10; i++)
        spared = window(&f, &c, 1, (100 + 10 * i) * RS_SEC);
    ck_assert_uint_eq(spared, fleets[_i].found);
}
END_TEST

/* Some take long and some do not: nobody is out of such a range. */
START_TEST(a_wide_range)
{
    struct fleet f = {.n = 8, .median = {10, 20, 40, 60, 80, 100, 120, 160}};

    for (size_t i = 0; i < f.n; i++)
        f.count[i] = 100;
    for (int i = 0; i < 10; i++)
        ck_assert_uint_eq(window(&f, &conf, 8, (100 + 10 * i) * RS_SEC), 0);
}
END_TEST

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* Whatever the figures are: never more than may be, and most of them are never found slow. */
START_TEST(never_too_many)
{
    uint64_t x = 88172645463325252u + (uint64_t)_i * 77;
    struct fleet f = {.n = 4 + next(&x) % (MOST - 3)};
    unsigned most = rs_eject_most(&conf, (unsigned)f.n), before = 0;

    for (int w = 0; w < 200; w++) {
        unsigned spared;

        for (size_t i = 0; i < f.n; i++) {
            f.median[i] = (double)(1 + next(&x) % (w % 20 < 10 ? 1000 : 20));
            f.count[i] = next(&x) % 60;
        }
        spared = window(&f, &conf, most > before ? most - before : 0, (100 + 10 * w) * RS_SEC);
        ck_assert_uint_le(spared, most);
        for (size_t i = 0; i < f.n; i++)
            ck_assert(!f.state[i].spared || f.one[i].finding);
        before = spared;
    }
}
END_TEST

START_TEST(ejected)
{
    struct rs_health_conf c = conf;

    ck_assert_uint_eq(rs_eject_most(&c, 1), 1);
    ck_assert_uint_eq(rs_eject_most(&c, 9), 1);
    ck_assert_uint_eq(rs_eject_most(&c, 10), 2);
    ck_assert_uint_eq(rs_eject_most(&c, 100), 20);
    c.max_ejected_percent = 0;
    ck_assert_uint_eq(rs_eject_most(&c, 100), 0);
}
END_TEST

START_TEST(medians)
{
    double v[] = {5, 1, 9, 3};

    ck_assert(near(rs_median(v, 4), 4));
    ck_assert(near(rs_median(v, 3), 3)); /* sorted by now: 1 3 5 */
    ck_assert(rs_median(v, 0) <= 0);
}
END_TEST

/* --- replace --- */

static const struct {
    struct rs_replace_conf conf;
    struct rs_wear wear;
    int what; /* -1: it stays */
} worn[] = {
    {{.memory = -1, .memory_growth = -1, .age = -1, .requests = -1},
     {.memory = 1u << 30, .age = 1000 * RS_SEC, .requests = 1000000},
     -1},
    {{.memory = 1000}, {.memory = 999}, -1},
    {{.memory = 1000}, {.memory = 1000}, RS_HEALTH_MEMORY},
    {{.memory_growth = 100}, {.memory = 5000}, -1}, /* what it began with is not known */
    {{.memory_growth = 100}, {.memory = 5000, .memory_first = 4901}, -1},
    {{.memory_growth = 100}, {.memory = 5001, .memory_first = 4901}, RS_HEALTH_GROWTH},
    {{.age = 100 * RS_SEC}, {.age = 99 * RS_SEC}, -1},
    {{.age = 100 * RS_SEC}, {.age = 100 * RS_SEC}, RS_HEALTH_AGE},
    {{.age = 100 * RS_SEC, .jitter_percent = 10},
     {.age = 91 * RS_SEC, .hash = UINT32_MAX},
     RS_HEALTH_AGE},
    {{.requests = 50}, {.requests = 49}, -1},
    {{.requests = 50}, {.requests = 50}, RS_HEALTH_REQUESTS},
    {{.requests = 50, .jitter_percent = 90},
     {.requests = 5, .hash = UINT32_MAX},
     RS_HEALTH_REQUESTS},
};

START_TEST(wear)
{
    struct rs_health_finding f;
    bool found = rs_wear_judge(&worn[_i].conf, &worn[_i].wear, &f);

    ck_assert_int_eq(found ? (int)f.what : -1, worn[_i].what);
    ck_assert(!found || (f.action == RS_HEALTH_REPLACE && f.value >= f.limit && f.unit));
    ck_assert(_i == 0 || rs_wear_asked(&worn[_i].conf));
    ck_assert(_i != 0 || !rs_wear_asked(&worn[_i].conf));
}
END_TEST

/* --- what is said --- */

START_TEST(words)
{
    for (int what = 0; what < RS_HEALTH_CONDITION_COUNT; what++) {
        const struct rs_health_finding f = {.what = (enum rs_health_condition)what,
                                            .action = RS_HEALTH_REPLACE,
                                            .since = 5 * RS_SEC,
                                            .value = 7,
                                            .limit = 6,
                                            .unit = "s",
                                            .usual = 0.5,
                                            .siblings = 3,
                                            .waiting = 2};
        rs_auto(rs_json_decrefp) json_t *j = rs_health_json(&f, 1000);
        const char *name = rs_health_condition_name(f.what);

        ck_assert_int_eq(rs_health_condition_parse(name), what);
        ck_assert_str_eq(rs_json_str(j, "condition", ""), name);
        ck_assert_str_eq(rs_json_str(j, "action", ""), "replace");
        ck_assert(near(rs_json_num(j, "since_s", 0), 1005));
        ck_assert(near(rs_json_num(j, "value", 0), 7) && near(rs_json_num(j, "limit", 0), 6));
        ck_assert_ptr_null(strchr(rs_json_str(j, "text", "\n"), '\n'));
        ck_assert_uint_gt(strlen(rs_json_str(j, "text", "")), 2);
        ck_assert_uint_gt(strlen(rs_health_status_name(f.what)), 2);
        ck_assert_int_eq(rs_health_is_illness(f.what), what <= RS_HEALTH_DEAD);
    }
    ck_assert_int_eq(rs_health_condition_parse("happy"), -1);
    ck_assert_str_eq(rs_health_condition_name((enum rs_health_condition)99), "?");
}
END_TEST

RS_CHECK_MAIN("health", tcase_add_loop_test(tc, silence, 0, RS_COUNT(silences));
              tcase_add_test(tc, silence_is_looked_at_in_time);
              tcase_add_loop_test(tc, stall_limits, 0, RS_COUNT(limits));
              tcase_add_test(tc, long_ones_among_short_ones); tcase_add_test(tc, stalls);
              tcase_add_loop_test(tc, not_stalls, 0, RS_COUNT(idle));
              tcase_add_test(tc, given_up_requests_are_no_answers);
              tcase_add_test(tc, gaps_count_little); tcase_add_test(tc, slow_and_well_again);
              tcase_add_loop_test(tc, who_is_slow, 0, RS_COUNT(fleets));
              tcase_add_test(tc, a_wide_range); tcase_add_loop_test(tc, never_too_many, 0, 20);
              tcase_add_test(tc, ejected); tcase_add_test(tc, medians);
              tcase_add_loop_test(tc, wear, 0, RS_COUNT(worn)); tcase_add_test(tc, words);)
