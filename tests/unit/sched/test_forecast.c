/* What is expected, by what was there a period ago. */
#include "sched/forecast.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <math.h>

#define DAY 86400.0
#define SLOT (DAY / RS_FORECAST_SLOTS) /* 5 minutes */
#define START (20000 * DAY)

static struct rs_forecast f;

static void teardown(void)
{
    rs_forecast_fini(&f);
}

static double by_hour(double t)
{
    double hour = fmod(t, DAY) / 3600;

    return hour >= 9 && hour < 17 ? 20 : 2;
}

/* `n` days of it, times `factor`. */
static double live(double t, unsigned n, double factor)
{
    for (double end = t + n * DAY; t < end; t += 60)
        rs_forecast_tell(&f, factor * by_hour(t), t);
    return t;
}

START_TEST(knows_nothing)
{
    struct rs_forecast_now now;

    ck_assert_double_lt(rs_forecast_at(&f, 60, START).load, 0); /* off */
    rs_forecast_tell(&f, 3, START);
    rs_forecast_set(&f, DAY, 3);
    now = rs_forecast_at(&f, 60, START);
    ck_assert_double_lt(now.load, 0);
    ck_assert_double_eq(now.until, START + SLOT - 60); /* then the next part comes into view */
    live(START, 1, 1);
    ck_assert_double_lt(rs_forecast_at(&f, 0, START + DAY - 1).load, 0); /* its own day */
}
END_TEST

START_TEST(a_day_later)
{
    double t;

    rs_forecast_set(&f, DAY, 3);
    t = live(START, 1, 1);
    ck_assert_double_eq(rs_forecast_at(&f, 60, t).load, 2);
    ck_assert_uint_eq(rs_forecast_at(&f, 60, t).of, 1);
    ck_assert_double_eq(rs_forecast_at(&f, 60, t + 9 * 3600 - 61).load, 2);
    ck_assert_double_eq(rs_forecast_at(&f, 60, t + 9 * 3600 - 60).load, 20); /* ahead of it */
    ck_assert_double_eq(rs_forecast_at(&f, 60, t + 9 * 3600 - 60).at, t + 9 * 3600);
    ck_assert_double_eq(rs_forecast_at(&f, 0, t + 17 * 3600 - 1).load, 20);
    ck_assert_double_eq(rs_forecast_at(&f, 0, t + 17 * 3600).load, 2);
    /* a view of more than a period is the whole of it */
    ck_assert_double_eq(rs_forecast_at(&f, 9 * DAY, t).load, 20);
}
END_TEST

/* The mean of the last three; one that is too old counts no more. */
START_TEST(some_days)
{
    double t = START;

    rs_forecast_set(&f, DAY, 3);
    for (int i = 1; i <= 5; i++)
        t = live(t, 1, i);
    ck_assert_double_eq_tol(rs_forecast_at(&f, 0, t + 10 * 3600).load, 20 * (3 + 4 + 5) / 3.0,
                            1e-3);
    ck_assert_uint_eq(rs_forecast_at(&f, 0, t + 10 * 3600).of, 3);
    /* in the course of the day it is still three */
    live(t, 1, 6);
    ck_assert_uint_eq(rs_forecast_at(&f, 0, t + DAY - 1).of, 3);
    /* nobody was there for a week */
    ck_assert_double_lt(rs_forecast_at(&f, 0, t + 7 * DAY).load, 0);
    ck_assert_uint_eq(rs_forecast_at(&f, 0, t + 3 * DAY).of, 1);
}
END_TEST

START_TEST(is_kept)
{
    rs_auto(rs_json_decrefp) json_t *kept = NULL, *other = NULL;
    struct rs_forecast g = {0};
    double t;

    rs_forecast_set(&f, DAY, 3);
    t = live(START, 2, 1);
    kept = rs_forecast_json(&f);
    rs_forecast_restore(&g, kept); /* off */
    rs_forecast_set(&g, 2 * DAY, 3);
    rs_forecast_restore(&g, kept); /* of another period */
    ck_assert_double_lt(rs_forecast_at(&g, 0, t).load, 0);
    rs_forecast_set(&g, DAY, 3);
    rs_forecast_restore(&g, kept);
    for (double u = t; u < t + DAY; u += SLOT)
        ck_assert_double_eq(rs_forecast_at(&g, 0, u).load, rs_forecast_at(&f, 0, u).load);
    other = rs_forecast_json(&g);
    ck_assert_int_eq(json_equal(kept, other), 1);
    rs_forecast_fini(&g);
}
END_TEST

START_TEST(strange_input)
{
    static const char *const odd[] = {"null", "[]", "{\"period_s\": 86400}",
                                      "{\"period_s\": 86400, \"peaks\": 7}",
                                      "{\"period_s\": 86400, \"peaks\": {\"x\": [1], \"\": [], "
                                      "\"19999\": 3, \"20000\": [\"a\", -1, "
                                      "1e300, null], \"99999999999999999999\": [1], \"-5\": [1]}}"};

    rs_forecast_set(&f, DAY, 3);
    for (size_t i = 0; i < RS_COUNT(odd); i++) {
        rs_auto(rs_json_decrefp) json_t *j = json_loads(odd[i], JSON_DECODE_ANY, NULL);

        rs_forecast_restore(&f, j);
    }
    rs_forecast_tell(&f, NAN, START);
    rs_forecast_tell(&f, -1, START);
    rs_forecast_tell(&f, INFINITY, START);
    rs_forecast_tell(&f, 1, START - 5 * DAY); /* the clock was put back */
    rs_forecast_tell(&f, 1, 0);
    ck_assert_double_le(rs_forecast_at(&f, 60, START).load, 1e9);
    rs_forecast_set(&f, 0, 3);
    ck_assert_ptr_null(f.peaks);
    rs_forecast_set(&f, DAY, 1000);
    ck_assert_uint_le(f.periods, 14);
}
END_TEST

RS_CHECK_MAIN("forecast", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, knows_nothing); tcase_add_test(tc, a_day_later);
              tcase_add_test(tc, some_days); tcase_add_test(tc, is_kept);
              tcase_add_test(tc, strange_input);)
