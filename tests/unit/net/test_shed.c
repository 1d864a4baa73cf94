#include "net/router/shed.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "tests/unit/check_main.h"

/* With a target of 100 and an interval of 1000. */
static const struct {
    int64_t now, delay;
    bool on;
} looks[] = {
    {1, 0, false},      {500, 5000, false},                    /* a burst */
    {1400, 101, false}, {1450, 100, false},                    /* it is over */
    {1500, 101, false}, {2499, 101, false}, {2500, 101, true}, /* an interval, at no time at the target or below */
    {2510, 100, true},  {2520, 51, true},   {2530, 50, false}, /* half of it */
    {2540, 400, false}, {3539, 400, false}, {3540, 400, true}, {9000, 0, false},
};

START_TEST(a_standing_delay)
{
    struct rs_shed s = {.target = 100, .interval = 1000};
    struct rs_shed never = {.interval = 1000};

    for (size_t i = 0; i < RS_COUNT(looks); i++) {
        rs_shed_observe(&s, looks[i].delay, looks[i].now);
        ck_assert_msg(s.on == looks[i].on, "look %zu", i);
        rs_shed_observe(&never, looks[i].delay, looks[i].now);
        ck_assert(!never.on);
    }
}
END_TEST

/* `n` end, one every `pace`, while others wait. */
static int64_t drain(struct rs_drain *d, int64_t now, unsigned n, int64_t pace)
{
    while (n--)
        rs_drain_ended(d, true, now += pace);
    return now;
}

START_TEST(as_fast_as_it_was)
{
    struct rs_drain d = {0};
    int64_t now = RS_SEC;

    ck_assert_uint_eq(rs_drain_wait(&d, 1000, now), 1); /* not known */
    now = drain(&d, now, 100, 10 * RS_MS);              /* 100 a second */
    ck_assert_uint_eq(rs_drain_wait(&d, 0, now), 1);
    ck_assert_uint_eq(rs_drain_wait(&d, 99, now), 1);
    ck_assert_uint_eq(rs_drain_wait(&d, 250, now), 3);
    ck_assert_uint_eq(rs_drain_wait(&d, 100000, now), RS_DRAIN_WAIT_MAX);
    now = drain(&d, now, 2000, RS_MS); /* faster by now */
    ck_assert_uint_le(rs_drain_wait(&d, 2000, now), 3);
    now += 20 * RS_SEC; /* nothing more */
    ck_assert_uint_ge(rs_drain_wait(&d, 200, now), 10);
}
END_TEST

START_TEST(slow_work_has_slow_windows)
{
    struct rs_drain d = {0};
    int64_t now = drain(&d, RS_SEC, 4, 5 * RS_SEC);

    ck_assert_uint_eq(rs_drain_wait(&d, 2, now), 10);
}
END_TEST

START_TEST(what_nobody_waits_behind_tells_nothing)
{
    struct rs_drain d = {0};
    int64_t now = drain(&d, RS_SEC, 100, 10 * RS_MS);

    for (int i = 0; i < 100; i++)
        rs_drain_ended(&d, false, now += RS_SEC);
    ck_assert_uint_eq(rs_drain_wait(&d, 200, now), 2);
}
END_TEST

RS_CHECK_MAIN("shed", tcase_add_test(tc, a_standing_delay); tcase_add_test(tc, as_fast_as_it_was);
              tcase_add_test(tc, slow_work_has_slow_windows);
              tcase_add_test(tc, what_nobody_waits_behind_tells_nothing);)
