/* Steps, verdicts, and how often they are wrong: seeded streams of requests, a virtual clock. */
#include "sched/canary.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct rs_canary c;
static struct rs_canary_conf conf;
static struct rs_tally old, fresh;
static int64_t now;
static uint64_t seed, sent; /* to the new version */

static double uniform(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(seed >> 11) / (double)(UINT64_C(1) << 53);
}

static void setup(void)
{
    now = 100 * RS_SEC;
    seed = 1;
    old = fresh = (struct rs_tally){0};
    sent = 0;
    conf = (struct rs_canary_conf){.steps = {0.01, 0.1, 0.5},
                                   .n_steps = 3,
                                   .each = 60 * RS_SEC,
                                   .max_p99_ratio = 2,
                                   .min_requests = 50};
}

static void begin(void)
{
    rs_canary_start(&c, &conf, now);
}

static enum rs_canary_did look(void)
{
    rs_canary_feed(&c, &old, &fresh);
    sent += fresh.requests;
    old = fresh = (struct rs_tally){0};
    return rs_canary_tick(&c, now);
}

static void add(struct rs_tally *t, uint64_t n, uint64_t errors, int64_t took)
{
    t->requests += n;
    t->errors += errors;
    t->bucket[rs_tally_bucket(took)] += n;
}

/* --- steps ------------------------------------------------------------------------------------- */

START_TEST(goes_through_its_steps)
{
    static const double shares[] = {0.01, 0.1, 0.5};

    begin();
    for (size_t i = 0; i < 3; i++) {
        ck_assert_double_eq(rs_canary_share(&c), shares[i]);
        ck_assert_int_eq(rs_canary_deadline(&c), now + 60 * RS_SEC);
        add(&old, 1000, 2, 5 * RS_MS);
        add(&fresh, 100, 0, 5 * RS_MS);
        now += 60 * RS_SEC - 1;
        ck_assert_int_eq(look(), RS_CANARY_NOTHING);
        ck_assert_int_eq(c.why, RS_CANARY_TIME);
        now++;
        ck_assert_int_eq(look(), i < 2 ? RS_CANARY_STEPPED : RS_CANARY_ENDED);
    }
    ck_assert_int_eq(c.state, RS_CANARY_PASSED);
    ck_assert_double_eq(rs_canary_share(&c), 1);
    ck_assert_int_eq(rs_canary_deadline(&c), INT64_MAX);
    add(&fresh, 100, 100, 5 * RS_MS); /* it is over */
    ck_assert_int_eq(look(), RS_CANARY_NOTHING);
    ck_assert_int_eq(c.state, RS_CANARY_PASSED);
}
END_TEST

static const struct {
    enum rs_canary_too_few what;
    uint64_t old, fresh;
    unsigned min;
    enum rs_canary_did did;
    enum rs_canary_state state;
} few[] = {
    {RS_CANARY_WAIT, 1000, 49, 50, RS_CANARY_NOTHING, RS_CANARY_RUNNING},
    {RS_CANARY_WAIT, 1000, 50, 50, RS_CANARY_STEPPED, RS_CANARY_RUNNING},
    {RS_CANARY_WAIT, 0, 50, 50, RS_CANARY_STEPPED, RS_CANARY_RUNNING}, /* the old one is down */
    {RS_CANARY_WAIT, 0, 0, 0, RS_CANARY_STEPPED, RS_CANARY_RUNNING},
    {RS_CANARY_PROMOTE, 0, 0, 50, RS_CANARY_STEPPED, RS_CANARY_RUNNING},
    {RS_CANARY_ROLLBACK, 1000, 49, 50, RS_CANARY_ENDED, RS_CANARY_HARMFUL},
    {RS_CANARY_ROLLBACK, 1000, 50, 50, RS_CANARY_STEPPED, RS_CANARY_RUNNING},
};

START_TEST(too_few_requests)
{
    conf.too_few = few[_i].what;
    conf.min_requests = few[_i].min;
    begin();
    add(&old, few[_i].old, 0, RS_MS);
    add(&fresh, few[_i].fresh, 0, RS_MS);
    now += 60 * RS_SEC;
    ck_assert_int_eq(look(), few[_i].did);
    ck_assert_int_eq(c.state, few[_i].state);
    if (few[_i].did == RS_CANARY_STEPPED)
        return;
    ck_assert_str_eq(rs_canary_why_name(c.why), "too_few_requests");
    ck_assert_int_eq(rs_canary_deadline(&c), INT64_MAX); /* time alone changes nothing */
    if (c.state == RS_CANARY_RUNNING) {                  /* they come later: on it goes */
        add(&old, 50, 0, RS_MS);
        add(&fresh, 50, 0, RS_MS);
        ck_assert_int_eq(look(), RS_CANARY_STEPPED);
    }
}
END_TEST

/* --- harm -------------------------------------------------------------------------------------- */

static const struct {
    uint64_t old_n, old_bad, new_n, new_bad, deaths;
    double max_error_rate;
    bool harm;
} errors[] = {
    {990, 0, 10, 4, 0, 0, true},           {990, 0, 10, 0, 4, 0, true}, /* replicas that die */
    {990, 0, 10, 2, 0, 0, false},                                       /* two are never proof */
    {990, 0, 10, 0, 1, 0, false},                                       /* nor is one kill -9 */
    {990, 400, 10, 4, 0, 0, false},                                     /* both fail */
    {1000, 100, 1000, 100, 0, 0, false},   {1000, 100, 1000, 300, 0, 0, true},
    {1000, 100, 1000, 300, 0, 0.5, false}, /* as many are allowed */
    {1000, 0, 1000, 30, 0, 0.01, true},    {1000, 0, 1000, 9, 0, 0.01, false},
    {1000, 50, 1000, 50, 0, 0.01, false}, /* more than allowed, but so does the old one */
    {1000, 0, 1000, 1000, 0, 1, false},   /* anything is */
    {1000, 50, 1000, 0, 0, 0, false},
};

START_TEST(by_errors)
{
    conf.max_error_rate = errors[_i].max_error_rate;
    begin();
    add(&old, errors[_i].old_n, errors[_i].old_bad, RS_MS);
    add(&fresh, errors[_i].new_n, errors[_i].new_bad, RS_MS);
    fresh.deaths += errors[_i].deaths;
    ck_assert_int_eq(look(), errors[_i].harm ? RS_CANARY_ENDED : RS_CANARY_NOTHING);
    ck_assert_int_eq(c.state, errors[_i].harm ? RS_CANARY_HARMFUL : RS_CANARY_RUNNING);
    if (!errors[_i].harm)
        return;
    ck_assert_int_eq(c.why, RS_CANARY_ERRORS);
    ck_assert_double_eq(rs_canary_share(&c), 0);
    ck_assert_int_eq(rs_canary_deadline(&c), INT64_MAX);
    rs_auto(rs_freep) char *text = rs_canary_text(&c);
    ck_assert_ptr_nonnull(strstr(text, "new version: "));
    ck_assert_ptr_nonnull(strstr(text, "false alarm at most 1 in "));
}
END_TEST

static const struct {
    double ratio;
    int64_t took; /* by the new version; the old one takes 10 ms */
    unsigned of_100;
    bool harm;
} times[] = {
    {2, 10 * RS_MS, 100, false}, {2, 19 * RS_MS, 100, false}, {2, 30 * RS_MS, 100, true},
    {2, 100 * RS_MS, 100, true}, {2, 100 * RS_MS, 10, true},  {4, 30 * RS_MS, 100, false},
    {0, RS_SEC, 100, false},     {2, 100 * RS_MS, 0, false},
};

START_TEST(by_time)
{
    conf.max_p99_ratio = times[_i].ratio;
    begin();
    for (int batch = 0; batch < 6; batch++) {
        add(&old, 990, 0, 10 * RS_MS);
        add(&fresh, times[_i].of_100, 0, times[_i].took);
        add(&fresh, 100 - times[_i].of_100, 0, 10 * RS_MS);
        look();
    }
    ck_assert_int_eq(c.state, times[_i].harm ? RS_CANARY_HARMFUL : RS_CANARY_RUNNING);
    if (times[_i].harm)
        ck_assert_str_eq(rs_canary_why_name(c.why), "slow");
}
END_TEST

/* What is far below a millisecond is nobody's harm; nor are the first requests of a cold process. */
START_TEST(small_and_cold)
{
    begin();
    add(&old, 1000, 0, 100 * RS_US);
    add(&fresh, RS_CANARY_WARM, 0, RS_SEC);
    look();
    for (int batch = 0; batch < 10; batch++) {
        add(&old, 990, 0, 100 * RS_US);
        add(&fresh, 100, 0, 900 * RS_US);
        ck_assert_int_eq(look(), RS_CANARY_NOTHING);
    }
    ck_assert_uint_eq(c.slow_fresh, 0);
}
END_TEST

/* Evidence that is no proof yet holds the step, and goes when what comes is sound. */
START_TEST(doubt_holds_the_step)
{
    begin();
    add(&old, 990, 0, RS_MS);
    add(&fresh, 60, 2, RS_MS);
    now += 60 * RS_SEC;
    ck_assert_int_eq(look(), RS_CANARY_NOTHING);
    ck_assert_int_eq(c.why, RS_CANARY_DOUBT);
    for (int i = 0; i < 100 && c.step == 0; i++) {
        add(&old, 9900, 4, RS_MS);
        add(&fresh, 1000, 0, RS_MS);
        look();
    }
    ck_assert_uint_eq(c.step, 1);
}
END_TEST

/* What came before the share is reached is judged, but is no part of the time. */
START_TEST(held)
{
    begin();
    now += 50 * RS_SEC;
    rs_canary_hold(&c, now);
    add(&old, 100, 0, RS_MS);
    add(&fresh, 100, 0, RS_MS);
    now += 59 * RS_SEC;
    ck_assert_int_eq(look(), RS_CANARY_NOTHING);
    now += RS_SEC;
    ck_assert_int_eq(look(), RS_CANARY_STEPPED);
}
END_TEST

/* The judgement of an ordinary roll: no share, no end but harm. */
START_TEST(without_steps)
{
    conf.n_steps = 0;
    begin();
    ck_assert_double_lt(rs_canary_share(&c), 0);
    ck_assert_int_eq(rs_canary_deadline(&c), INT64_MAX);
    now += 3600 * RS_SEC;
    add(&old, 100, 0, RS_MS);
    add(&fresh, 100, 0, RS_MS);
    ck_assert_int_eq(look(), RS_CANARY_NOTHING);
    add(&old, 100, 0, RS_MS);
    add(&fresh, 100, 30, RS_MS);
    ck_assert_int_eq(look(), RS_CANARY_ENDED);
    ck_assert_double_eq(rs_canary_share(&c), 0);
}
END_TEST

START_TEST(tells_what_it_knows)
{
    begin();
    add(&old, 990, 1, 5 * RS_MS);
    add(&fresh, 10, 0, 9 * RS_MS);
    look();
    rs_auto(rs_json_decrefp) json_t *j = rs_canary_json(&c, now + 30 * RS_SEC);
    ck_assert_ptr_nonnull(j);
    ck_assert_str_eq(rs_json_str(j, "state", ""), "running");
    ck_assert_str_eq(rs_json_str(j, "why", ""), "time");
    ck_assert_double_eq(rs_json_num(j, "weight", 0), 0.01);
    ck_assert_double_eq(rs_json_num(j, "step_age_s", 0), 30);
    ck_assert_int_eq(rs_json_int(json_object_get(j, "old"), "errors", 0), 1);
    ck_assert_int_eq(rs_json_int(json_object_get(j, "new"), "requests", 0), 10);
}
END_TEST

/* --- how often it is wrong, and how soon it is right --------------------------------------------- */

struct stream {
    double old_rate, new_rate; /* of errors */
    double old_slow,
        new_factor; /* old: log-normal of this sigma around 10 ms; new: so many times that */
};

static double normal(void)
{
    return sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform());
}

static void request(const struct stream *s)
{
    bool is_new = uniform() < rs_canary_share(&c);
    struct rs_tally *t = is_new ? &fresh : &old;
    double ms = 10 * exp(s->old_slow * normal()) * (is_new ? s->new_factor : 1);

    add(t, 1, uniform() < (is_new ? s->new_rate : s->old_rate), (int64_t)(ms * (double)RS_MS));
}

/* A second at a time until it ends. */
static void live(const struct stream *s, unsigned rate, int seconds)
{
    for (int i = 0; i < seconds && c.state == RS_CANARY_RUNNING; i++) {
        for (unsigned k = 0; k < rate; k++)
            request(s);
        now += RS_SEC;
        look();
    }
}

/* A version that is no worse is rolled back no more often than was said; here the bound is 10 %, so
 * that it can be seen. Runs of which most are right at the bound: equal rates, and p99s at the ratio. */
START_TEST(false_alarms)
{
    static const struct stream same[] = {{0.02, 0.02, 0.3, 1}, {0.3, 0.3, 0.3, 1.99}};
    unsigned harmed = 0, passed = 0;
    enum { RUNS = 150 };

    for (unsigned run = 0; run < RUNS; run++) {
        setup();
        seed = run + 1;
        conf.false_alarm = 0.1;
        conf.each = 20 * RS_SEC;
        begin();
        live(&same[run % 2], 60, 400);
        harmed += c.state == RS_CANARY_HARMFUL;
        passed += c.state == RS_CANARY_PASSED;
    }
    /* 10 % of 150 is 15; 26 and more would come about once in 300 at 10 %. */
    ck_assert_uint_le(harmed, 26);
    ck_assert_uint_ge(passed, RUNS / 2);
}
END_TEST

static const struct {
    struct stream s;
    enum rs_canary_why why;
    uint64_t within; /* requests of the new version, nearly always */
} harms[] = {
    {{0.0, 0.3, 0.3, 1}, RS_CANARY_ERRORS, 60},   {{0.001, 1, 0.3, 1}, RS_CANARY_ERRORS, 20},
    {{0.02, 0.1, 0.3, 1}, RS_CANARY_ERRORS, 700}, /* five times as many */
    {{0.01, 0.01, 0.3, 10}, RS_CANARY_SLOW, 60},  {{0, 0, 1.0, 10}, RS_CANARY_SLOW, 1500},
};

/* Found in nearly every run, by the right test, and soon. */
START_TEST(power)
{
    unsigned found = 0, soon = 0;
    enum { RUNS = 40 };

    for (unsigned run = 0; run < RUNS; run++) {
        setup();
        seed = run * 7919 + 1;
        begin();
        live(&harms[_i].s, 100, 3600);
        found += c.state == RS_CANARY_HARMFUL && c.why == harms[_i].why;
        soon += sent <= harms[_i].within;
    }
    ck_assert_uint_ge(found, RUNS - 1);
    ck_assert_uint_ge(soon, RUNS * 9 / 10);
}
END_TEST

/* Whatever comes, in whatever order: nothing breaks, a verdict stays, the share never falls but to 0. */
START_TEST(anything)
{
    for (unsigned run = 0; run < 300; run++) {
        double share;

        setup();
        seed = run + 1;
        conf.n_steps = (size_t)(uniform() * 4);
        conf.max_error_rate = uniform() < 0.5 ? 0 : uniform();
        conf.too_few = (enum rs_canary_too_few)(uniform() * 3);
        begin();
        share = rs_canary_share(&c);
        for (int i = 0; i < 60; i++) {
            enum rs_canary_state before = c.state;
            uint64_t n = (uint64_t)(uniform() * 200);

            add(&old, n, (uint64_t)(uniform() * (double)n), (int64_t)(uniform() * 1e10));
            n = (uint64_t)(uniform() * 50);
            add(&fresh, n, (uint64_t)(uniform() * (double)n), (int64_t)(uniform() * 1e10));
            fresh.deaths += uniform() < 0.05;
            if (uniform() < 0.05)
                rs_canary_hold(&c, now);
            now += (int64_t)(uniform() * 40e9);
            look();
            ck_assert(before == RS_CANARY_RUNNING || c.state == before);
            ck_assert(rs_canary_share(&c) >= share || c.state == RS_CANARY_HARMFUL);
            ck_assert(isfinite(rs_canary_sure(&c, RS_CANARY_SLOW)));
            share = rs_canary_share(&c);
        }
    }
}
END_TEST

RS_CHECK_MAIN("canary", tcase_set_timeout(tc, 120); tcase_add_checked_fixture(tc, setup, NULL);
              tcase_add_test(tc, goes_through_its_steps);
              tcase_add_loop_test(tc, too_few_requests, 0, RS_COUNT(few));
              tcase_add_loop_test(tc, by_errors, 0, RS_COUNT(errors));
              tcase_add_loop_test(tc, by_time, 0, RS_COUNT(times));
              tcase_add_test(tc, small_and_cold); tcase_add_test(tc, doubt_holds_the_step);
              tcase_add_test(tc, held); tcase_add_test(tc, without_steps);
              tcase_add_test(tc, tells_what_it_knows); tcase_add_test(tc, false_alarms);
              tcase_add_loop_test(tc, power, 0, RS_COUNT(harms)); tcase_add_test(tc, anything);)
