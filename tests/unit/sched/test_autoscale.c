/* The formula, the delays, the window, and shapes of load over minutes: no clock, no sleep. */
#include "sched/autoscale.h"

#include "core/base/clock.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <string.h>

#define START (100 * RS_SEC)

static struct rs_autoscale a;
static struct rs_autoscaling_conf conf;
static struct rs_autoscale_facts facts;
static int64_t now;

static void reset(void)
{
    rs_autoscale_fini(&a);
    now = START;
    conf = (struct rs_autoscaling_conf){
        .min_replicas = 1,
        .max_replicas = 10,
        .initial_replicas = -1,
        .target_ongoing_requests = 2,
        .look_back_period = 30 * RS_SEC,
        .upscaling_factor = 1,
        .downscaling_factor = 1,
        .upscale_delay = 30 * RS_SEC,
        .downscale_delay = 600 * RS_SEC,
        .downscale_to_zero_delay = 600 * RS_SEC,
        .aggregation_function = "mean",
    };
    facts = (struct rs_autoscale_facts){.lower = 1, .upper = 10, .policy_wants = -1};
}

static void teardown(void)
{
    rs_autoscale_fini(&a);
}

/* --- the formula: without delays, at once ------------------------------------------------------- */

static const struct {
    unsigned target, running;
    double load, per_replica, up, down;
    int lower, upper;
    unsigned want;
} formulas[] = {
    /* desired = total / target */
    {1, 1, 12, 2, 1, 1, 1, 10, 6},
    {1, 1, 12, 1, 1, 1, 1, 3, 3},
    {3, 3, 6, 2, 1, 1, 1, 10, 3},
    {3, 3, 6.1, 2, 1, 1, 1, 10, 4},
    {3, 3, 5.9, 2, 1, 1, 1, 10, 3}, /* ceil */
    {3, 3, 4, 2, 1, 1, 1, 10, 2},
    {3, 3, 0, 2, 1, 1, 1, 10, 1},
    {1, 1, 0.3, 0.1, 1, 1, 1, 10, 3}, /* 0.3 / 0.1 is not a hair above 3 */
    /* by what runs, not by what should run */
    {4, 2, 12, 2, 1, 1, 1, 10, 6},
    {4, 2, 8, 2, 1, 1, 1, 10, 4},
    /* factors */
    {1, 1, 12, 2, 0.5, 1, 1, 10, 4}, /* ceil(1 + 0.5 * 5) */
    {1, 1, 12, 2, 2, 1, 1, 20, 11},
    {10, 10, 0, 2, 1, 0.5, 1, 10, 5},
    {10, 10, 0, 2, 1, 0.1, 1, 10, 9},
    {10, 10, 0, 2, 1, 0.01, 1, 10, 9},  /* small factors must still move */
    {10, 10, 19, 2, 1, 0.1, 1, 10, 10}, /* 9.5 needs 10 */
    /* bounds */
    {1, 1, 1000, 1, 1, 1, 1, 7, 7},
    {5, 5, 0, 1, 1, 1, 4, 7, 4},
    {9, 9, 9, 1, 1, 1, 1, 7, 7}, /* the bounds changed */
    {0, 0, 0, 1, 1, 1, 2, 7, 2},
    {3, 3, 30, 1, 1, 1, 0, 0, 0}, /* target_capacity: 0 */
    /* nothing runs */
    {0, 0, 1, 2, 1, 1, 0, 10, 1},
    {0, 0, 50, 2, 1, 1, 0, 10, 1}, /* one, and then by its load */
    {0, 0, 1, 2, 2.5, 1, 0, 10, 3},
    {0, 0, 1, 2, 2.5, 1, 0, 2, 2},
    {4, 0, 1, 2, 1, 1, 0, 10, 4},
    {4, 0, 0, 2, 1, 1, 0, 10, 4},
    {1, 0, 0, 2, 3, 1, 1, 10, 1}, /* a factor alone makes no replicas */
    /* zero is reached from one */
    {2, 2, 0, 2, 1, 1, 0, 10, 1},
    {1, 1, 0, 2, 1, 1, 0, 10, 0},
};

START_TEST(formula)
{
    reset();
    conf.target_ongoing_requests = formulas[_i].per_replica;
    conf.upscaling_factor = formulas[_i].up;
    conf.downscaling_factor = formulas[_i].down;
    conf.upscale_delay = conf.downscale_delay = conf.downscale_to_zero_delay = 0;
    facts.lower = formulas[_i].lower;
    facts.upper = formulas[_i].upper;
    facts.running = formulas[_i].running;
    rs_autoscale_start(&a, formulas[_i].target, now);
    rs_autoscale_load(&a, 0, formulas[_i].load, now);
    ck_assert_int_eq(rs_autoscale_decide(&a, &conf, &facts, now),
                     formulas[_i].want != formulas[_i].target);
    ck_assert_uint_eq(a.target, formulas[_i].want);
    ck_assert_uint_eq(a.n_decisions, formulas[_i].want != formulas[_i].target);
}
END_TEST

/* --- the user's own policy: its number, then factors, bounds and delays ------------------------- */

static const struct {
    unsigned target, running;
    double load, wants, up;
    int lower, gang;
    unsigned want;
} policies[] = {
    {1, 1, 0, 2, 1, 1, 0, 2},
    {1, 1, 0, 2.1, 1, 1, 0, 3},
    {1, 1, 99, -1, 1, 1, 0, 1}, /* no answer yet */
    {1, 1, 99, 1, 1, 1, 0, 1},
    {1, 1, 0, 99, 1, 1, 0, 10},
    {1, 1, 0, 9, 0.5, 1, 0, 5},
    {4, 4, 50, 0, 1, 0, 0, 1},
    {0, 0, 0, 3, 1, 0, 0, 3},   /* ahead of the load */
    {0, 0, 0, 3, 2.5, 0, 0, 3}, /* no factor from zero */
    {0, 0, 1, -1, 1, 0, 0, 1},
    {0, 0, 1, 5, 1, 0, 0, 1},     /* one at once, the rest after the delay */
    {1, 1, 0, 3.5, 0.4, 1, 0, 2}, /* the factor goes by the number itself: 1 + 0.4 * 2.5 */
    {2, 2, 0, 3, 1, 1, 2, 4},
    {2, 2, 0, 0, 1, 0, 2, 0}, /* the last gang */
};

START_TEST(policy)
{
    reset();
    conf.upscaling_factor = policies[_i].up;
    conf.upscale_delay = conf.downscale_delay = conf.downscale_to_zero_delay = 0;
    facts.has_policy = true;
    facts.policy_wants = policies[_i].wants;
    facts.lower = policies[_i].lower;
    facts.gang = policies[_i].gang;
    facts.running = policies[_i].running;
    rs_autoscale_start(&a, policies[_i].target, now);
    rs_autoscale_load(&a, 0, policies[_i].load, now);
    (void)rs_autoscale_decide(&a, &conf, &facts, now);
    ck_assert_uint_eq(a.target, policies[_i].want);
}
END_TEST

/* --- the window --------------------------------------------------------------------------------- */

START_TEST(window)
{
    reset();
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 10 * RS_SEC, now), 0);
    rs_autoscale_load(&a, 1, 4, now);
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 10 * RS_SEC, now), 4);
    now += 2 * RS_SEC;
    rs_autoscale_load(&a, 0, 8, now);
    now += 2 * RS_SEC;
    /* 2 s of 4, 2 s of 8: so far that is all there is */
    ck_assert_double_eq_tol(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 10 * RS_SEC, now), 6, 1e-9);
    ck_assert_double_eq_tol(rs_autoscale_queued(&a, RS_AUTOSCALE_MEAN, 10 * RS_SEC, now), 0.5,
                            1e-9);
    ck_assert_double_eq(rs_autoscale_queued(&a, RS_AUTOSCALE_MAX, 10 * RS_SEC, now), 1);
    ck_assert_double_eq(rs_autoscale_queued(&a, RS_AUTOSCALE_MIN, 10 * RS_SEC, now), 0);
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MAX, 10 * RS_SEC, now), 8);
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MIN, 10 * RS_SEC, now), 4);
    /* a window that cuts the first span: 1 s of 4, 2 s of 8 */
    ck_assert_double_eq_tol(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 3 * RS_SEC, now), 20.0 / 3,
                            1e-9);
    now += 100 * RS_SEC;
    ck_assert_double_eq_tol(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 10 * RS_SEC, now), 8, 1e-9);
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MIN, 10 * RS_SEC, now), 8);
    ck_assert_uint_eq(a.n_spans, 1);
}
END_TEST

/* Requests of 1 ms that no report ever saw, known by the integral alone. */
START_TEST(correction)
{
    reset();
    rs_autoscale_load(&a, 0, 0, now);
    for (int i = 0; i < 50; i++) {
        now += 200 * RS_MS;
        rs_autoscale_correct(&a, 0.7, now); /* 3.5 on average */
        rs_autoscale_load(&a, 0, 0, now);
    }
    ck_assert_double_eq_tol(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 5 * RS_SEC, now), 3.5, 1e-6);
    rs_autoscale_correct(&a, -1000, now); /* no time passed: cannot have been */
    now += RS_SEC;
    rs_autoscale_correct(&a, -1000, now); /* a node that talks nonsense */
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 5 * RS_SEC, now), 0);
}
END_TEST

/* Reports of several nodes at the same moment: each of them counts. */
START_TEST(corrections_at_once)
{
    reset();
    rs_autoscale_load(&a, 0, 0, now);
    for (int i = 0; i < 50; i++) {
        now += 200 * RS_MS;
        for (int node = 0; node < 3; node++) {
            rs_autoscale_correct(&a, 0.2, now); /* 1 on average, of each */
            rs_autoscale_load(&a, 0, 0, now);
        }
    }
    ck_assert_double_eq_tol(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 5 * RS_SEC, now), 3, 1e-6);
}
END_TEST

/* However often the load changes, memory is bounded and the mean stays right. */
START_TEST(many_changes)
{
    reset();
    for (int i = 0; i < 100000; i++) {
        rs_autoscale_load(&a, 0, i % 2 ? 10 : 2, now);
        now += RS_MS / 10;
    }
    ck_assert_uint_le(a.n_spans, RS_AUTOSCALE_SPANS);
    ck_assert_double_eq_tol(rs_autoscale_total(&a, RS_AUTOSCALE_MEAN, 5 * RS_SEC, now), 6, 0.01);
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MAX, 5 * RS_SEC, now), 10);
    ck_assert_double_eq(rs_autoscale_total(&a, RS_AUTOSCALE_MIN, 5 * RS_SEC, now), 2);
}
END_TEST

/* --- delays -------------------------------------------------------------------------------------- */

static bool decide(void)
{
    return rs_autoscale_decide(&a, &conf, &facts, now);
}

START_TEST(upscale_delay)
{
    reset();
    facts.running = 1;
    rs_autoscale_start(&a, 1, now);
    rs_autoscale_load(&a, 0, 6, now);
    ck_assert(!decide());
    ck_assert_int_eq(rs_autoscale_deadline(&a, &conf, now), START + 30 * RS_SEC);
    now += 30 * RS_SEC - 1;
    ck_assert(!decide());
    now++;
    ck_assert(decide());
    ck_assert_uint_eq(a.target, 3);
    ck_assert_ptr_nonnull(strstr(a.decisions[0].reason, "6.00 ongoing requests, 1 running"));
    ck_assert_int_eq(a.decisions[0].from * 10 + a.decisions[0].to, 13);
    /* the new ones start: nothing to do meanwhile, then it fits */
    ck_assert(!decide());
    facts.running = 3;
    ck_assert(!decide());
    ck_assert_int_eq(rs_autoscale_deadline(&a, &conf, now), INT64_MAX);
}
END_TEST

/* A turn to the other side, or to none, begins the delay anew. */
START_TEST(reversal)
{
    reset();
    conf.look_back_period = RS_MS;
    conf.downscale_delay = 40 * RS_SEC;
    facts.running = 2;
    rs_autoscale_start(&a, 2, now);
    for (int i = 0; i < 20; i++) { /* over for 29 s, on target for 1 s */
        rs_autoscale_load(&a, 0, i % 2 ? 4 : 9, now);
        now += i % 2 ? RS_SEC : 29 * RS_SEC;
        ck_assert(!decide());
    }
    for (int i = 0; i < 20; i++) { /* over, then under: neither long enough */
        rs_autoscale_load(&a, 0, i % 2 ? 1 : 9, now);
        now += RS_SEC;
        ck_assert(!decide());
        now += 28 * RS_SEC;
        ck_assert(!decide());
    }
    ck_assert_uint_eq(a.target, 2);
}
END_TEST

/* With nothing running a policy is followed at once, and what was waited for goes on. */
START_TEST(policy_at_zero)
{
    reset();
    facts.has_policy = true;
    facts.policy_wants = 1;
    facts.lower = 0;
    facts.running = 4;
    conf.downscale_delay = 10 * RS_SEC;
    rs_autoscale_start(&a, 4, now);
    ck_assert(!decide());
    now += 9 * RS_SEC;
    facts.policy_wants = -1; /* it was asked and has not answered */
    ck_assert(!decide());
    ck_assert_int_eq(a.basis, RS_SCALE_NO_ANSWER);
    facts.running = 0; /* all died */
    facts.policy_wants = 4;
    ck_assert(!decide());
    facts.running = 4;
    facts.policy_wants = 1;
    now += RS_SEC;
    ck_assert(decide());
    ck_assert_uint_eq(a.target, 1);
    facts.running = 0;
    facts.policy_wants = 5;
    ck_assert(decide());
    ck_assert_uint_eq(a.target, 5);
    ck_assert_int_eq(a.basis, RS_SCALE_BY_POLICY);
}
END_TEST

START_TEST(to_zero_delay)
{
    reset();
    conf.look_back_period = RS_MS;
    conf.downscale_delay = 10 * RS_SEC;
    conf.downscale_to_zero_delay = 100 * RS_SEC;
    facts.lower = 0;
    facts.running = 3;
    rs_autoscale_start(&a, 3, now);
    rs_autoscale_load(&a, 0, 0, now);
    ck_assert(!decide());
    now += 10 * RS_SEC;
    ck_assert(decide());
    ck_assert_uint_eq(a.target, 1);
    facts.running = 1;
    now += 10 * RS_SEC;
    ck_assert(!decide());
    ck_assert_int_eq(rs_autoscale_deadline(&a, &conf, now), now + 100 * RS_SEC);
    now += 100 * RS_SEC;
    ck_assert(decide());
    ck_assert_uint_eq(a.target, 0);
    facts.running = 0;
    ck_assert(!decide());
    /* a request comes: no delay, and it stays while there is work */
    rs_autoscale_load(&a, 1, 1, now);
    ck_assert(decide());
    ck_assert_uint_eq(a.target, 1);
    ck_assert(!decide());
    facts.running = 1;
    rs_autoscale_load(&a, 0, 1, now);
    now += 1000 * RS_SEC;
    ck_assert(!decide());
}
END_TEST

/* --- shapes of load: replicas come 2 s after they are asked for ---------------------------------- */

struct shape {
    const char *name;
    double (*load)(double t); /* requests at t seconds */
    double length;
    unsigned most, last, moves; /* highest target, target at the end, changes at most */
};

static double step(double t)
{
    return t < 60 ? 1 : 12;
}

static double ramp(double t)
{
    return t < 600 ? t / 30 : 20;
}

static double burst(double t)
{
    return fmod(t, 120) < 5 ? 30 : 1;
}

static double noise(double t)
{
    return 6 + 3 * sin(t) + 2 * sin(t * 7.3);
}

static double night(double t)
{
    return t < 300 ? 14 : 0;
}

static const struct shape shapes[] = {
    {"step", step, 400, 6, 6, 4},    {"ramp", ramp, 900, 10, 10, 10},
    {"burst", burst, 1200, 3, 3, 2}, /* 5 s in 30: more than one has, less than it seems */
    {"noise", noise, 1800, 4, 4, 3}, {"night", night, 1800, 7, 1, 4},
};

START_TEST(shape)
{
    const struct shape *s = &shapes[_i];
    unsigned moves = 0, most = 0, turns = 0;
    int direction = 0;
    int64_t ready_at = 0;

    reset();
    facts.running = 1;
    rs_autoscale_start(&a, 1, now);
    for (double t = 0; t < s->length; t += 0.1, now += 100 * RS_MS) {
        unsigned before = a.target;

        rs_autoscale_load(&a, 0, s->load(t), now);
        if (ready_at && now >= ready_at) {
            facts.running = a.target;
            ready_at = 0;
        }
        if (decide()) {
            int d = a.target > before ? 1 : -1;

            moves++;
            turns += direction && d != direction;
            direction = d;
            if (d < 0)
                facts.running = a.target;
            else
                ready_at = now + 2 * RS_SEC;
        }
        most = a.target > most ? a.target : most;
    }
    ck_assert_msg(most == s->most && a.target == s->last, "%s: %u at most, %u in the end", s->name,
                  most, a.target);
    ck_assert_msg(moves <= s->moves, "%s: %u moves", s->name, moves);
    ck_assert_msg(turns <= 1, "%s: flaps, %u turns", s->name, turns);
}
END_TEST

START_TEST(why)
{
    char text[300];

    reset();
    facts.running = 1;
    rs_autoscale_start(&a, 1, now);
    rs_autoscale_load(&a, 0, 6, now);
    (void)decide();
    now += 10 * RS_SEC;
    (void)decide();
    rs_autoscale_why(&a, &conf, now, text, sizeof(text));
    ck_assert_str_eq(text, "6.00 ongoing requests in the last 30 s, 2 wanted per replica: goes up "
                           "from 1 to 3 replicas in 20.0 s (upscale_delay_s 30 s)");
    facts.upper = 1;
    (void)decide();
    rs_autoscale_why(&a, &conf, now, text, sizeof(text));
    ck_assert_str_eq(text, "6.00 ongoing requests in the last 30 s, 2 wanted per replica: stays at "
                           "1 of 1 to 1 replicas");
    rs_autoscale_why(&a, &conf, now, text, 10);
    ck_assert_uint_lt(strlen(text), 10);
}
END_TEST

RS_CHECK_MAIN("autoscale", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_loop_test(tc, formula, 0, RS_COUNT(formulas));
              tcase_add_loop_test(tc, policy, 0, RS_COUNT(policies)); tcase_add_test(tc, window);
              tcase_add_test(tc, correction); tcase_add_test(tc, corrections_at_once);
              tcase_add_test(tc, many_changes); tcase_add_test(tc, upscale_delay);
              tcase_add_test(tc, policy_at_zero); tcase_add_test(tc, reversal);
              tcase_add_test(tc, to_zero_delay);
              tcase_add_loop_test(tc, shape, 0, RS_COUNT(shapes)); tcase_add_test(tc, why);)
