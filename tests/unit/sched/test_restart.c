/* How soon a replica that ended is followed by another one. */
#include "sched/restart.h"

#include "core/base/error.h"

#include "tests/unit/check_main.h"

START_TEST(starts_that_fail)
{
    static const int64_t ms[] = {0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};
    struct rs_restarts r = {0};
    int64_t now = 5 * RS_SEC;

    for (size_t i = 0; i < RS_COUNT(ms); i++)
        ck_assert_int_eq(rs_restarts_failed(&r, now), now + ms[i] * RS_MS);
    rs_restarts_ready(&r);
    ck_assert_int_eq(rs_restarts_failed(&r, now), now);
}
END_TEST

/* Killed every 200 ms for a long time: each is followed at once. */
START_TEST(who_ran_is_followed_at_once)
{
    struct rs_restarts r = {0};
    int64_t now = 0;

    for (int i = 0; i < 100000; i++) {
        now += 200 * RS_MS;
        ck_assert_int_eq(rs_restarts_ended(&r, (i % 4 ? 150 : 50) * RS_MS, 4, now), now);
    }
}
END_TEST

START_TEST(a_circle_is_slowed_down)
{
    static const int64_t ms[] = {0, 0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};
    struct rs_restarts r = {0};
    int64_t now = RS_SEC;

    for (size_t i = 0; i < RS_COUNT(ms); i++) {
        int64_t at = rs_restarts_ended(&r, RS_MS, 1, now);

        ck_assert_int_eq(at, now + ms[i] * RS_MS);
        now = at + RS_MS;
    }
    ck_assert_int_eq(rs_restarts_ended(&r, RS_RESTART_QUICK, 1, now), now);
    ck_assert_int_eq(rs_restarts_ended(&r, RS_MS, 1, now), now);
}
END_TEST

/* All at once may be, but not that again and again. */
START_TEST(many_are_paced)
{
    struct rs_restarts r = {0};
    const unsigned replicas = _i ? 100 : 1, burst = _i ? 100 : RS_RESTART_BURST;
    int64_t now = 100 * RS_SEC, began = now;
    unsigned n = 0;

    for (unsigned i = 0; i < burst; i++)
        ck_assert_int_eq(rs_restarts_ended(&r, RS_SEC, replicas, now), now);
    while (now < began + 10 * RS_SEC) {
        int64_t at = rs_restarts_ended(&r, RS_SEC, replicas, now);

        ck_assert_int_gt(at, now);
        now = at;
        n++;
    }
    ck_assert_uint_ge(n, 10 * RS_RESTART_PER_S - 1);
    ck_assert_uint_le(n, 10 * RS_RESTART_PER_S + 1);
}
END_TEST

RS_CHECK_MAIN("restart", tcase_add_test(tc, starts_that_fail);
              tcase_add_test(tc, who_ran_is_followed_at_once);
              tcase_add_test(tc, a_circle_is_slowed_down);
              tcase_add_loop_test(tc, many_are_paced, 0, 2);)
