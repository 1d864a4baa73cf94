#include "net/http/wishes.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <string.h>

static const struct {
    const char *text;
    int64_t ms, grpc; /* what it is as x-request-timeout-ms and as grpc-timeout; ns */
} times[] = {
    {"250", 250 * RS_MS, 0},
    {"1", RS_MS, 0},
    {"0", 0, 0},
    {"", 0, 0},
    {"-5", 0, 0},
    {"1.5", 0, 0},
    {" 5", 0, 0},
    {"5 ", 0, 0},
    {"999999999999", INT64_C(999999999999) * RS_MS, 0},
    {"9999999999999", 0, 0},
    {"99999999999999999999999999", 0, 0},
    {"10S", 0, 10 * RS_SEC},
    {"2M", 0, 120 * RS_SEC},
    {"3H", 0, 3 * 3600 * RS_SEC},
    {"99999999H", 0, 0}, /* longer than a clock runs: no limit */
    {"99999999M", 0, INT64_C(99999999) * 60 * RS_SEC},
    {"15m", 0, 15 * RS_MS},
    {"7u", 0, 7 * RS_US},
    {"9n", 0, 9},
    {"0S", 0, 0},
    {"123456789S", 0, 0}, /* more than 8 digits */
    {"S", 0, 0},
    {"1s", 0, 0},
    {"1Sx", 0, 0},
    {"1 S", 0, 0},
};

START_TEST(times_are_read)
{
    size_t len = strlen(times[_i].text);

    ck_assert_int_eq(rs_http_timeout_ms(times[_i].text, len), times[_i].ms);
    ck_assert_int_eq(rs_http_timeout_grpc(times[_i].text, len), times[_i].grpc);
}
END_TEST

static const struct {
    const char *text;
    int priority;
} priorities[] = {{"0", 0}, {"5", 5}, {"9", 9}, {"10", -1}, {"", -1}, {"a", -1}, {"-1", -1}};

START_TEST(priorities_are_one_digit)
{
    ck_assert_int_eq(rs_http_priority(priorities[_i].text, strlen(priorities[_i].text)),
                     priorities[_i].priority);
}
END_TEST

START_TEST(the_sooner_counts)
{
    ck_assert_int_eq(rs_http_sooner(0, 0), 0);
    ck_assert_int_eq(rs_http_sooner(0, 4), 4);
    ck_assert_int_eq(rs_http_sooner(4, 0), 4);
    ck_assert_int_eq(rs_http_sooner(3, 4), 3);
    ck_assert_int_eq(rs_http_sooner(4, 3), 3);
}
END_TEST

RS_CHECK_MAIN("wishes", tcase_add_loop_test(tc, times_are_read, 0, RS_COUNT(times));
              tcase_add_loop_test(tc, priorities_are_one_digit, 0, RS_COUNT(priorities));
              tcase_add_test(tc, the_sooner_counts);)
