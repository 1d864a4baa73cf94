/* Buckets, sums, differences, quantiles, and the way over the wire. */
#include "core/model/tally.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <string.h>

static const struct {
    int64_t us;
    unsigned bucket;
} places[] = {
    {-5, 0},
    {0, 0},
    {1, 1},
    {7, 7},
    {8, 8},
    {15, 15},
    {16, 16},
    {17, 16},
    {18, 17},
    {1000, 63},
    {1023, 63},
    {1024, 64},
    {1 << 20, 144},
    {INT64_C(1) << 31, 232},
    {UINT32_MAX, 239},
    {INT64_C(1) << 40, 239},
};

START_TEST(place)
{
    ck_assert_uint_eq(rs_tally_bucket(places[_i].us * RS_US), places[_i].bucket);
}
END_TEST

/* Each bucket begins where the one before ends, and is at most an eighth wider. */
START_TEST(buckets_meet)
{
    for (unsigned i = 0; i < RS_TALLY_BUCKETS - 1; i++) {
        int64_t end = rs_tally_upper(i), next = rs_tally_upper(i + 1);

        ck_assert_uint_eq(rs_tally_bucket(end - 1), i);
        ck_assert_uint_eq(rs_tally_bucket(end), i + 1);
        ck_assert(i < 8 || (double)next <= (double)end * 1.125 + 1);
    }
}
END_TEST

static struct rs_tally made(uint64_t requests, unsigned bucket, uint64_t n)
{
    struct rs_tally t = {.requests = requests, .errors = requests / 2, .deaths = 1};

    t.bucket[bucket] = n;
    return t;
}

START_TEST(sums_and_differences)
{
    struct rs_tally a = made(10, 5, 9), b = made(4, 6, 1), sum = a, diff = {.requests = 77};

    rs_tally_add(&sum, &b);
    ck_assert_uint_eq(sum.requests, 14);
    ck_assert_uint_eq(rs_tally_timed(&sum), 10);
    ck_assert_uint_eq(rs_tally_above(&sum, 5), 1);
    ck_assert(rs_tally_since(&sum, &a, &diff));
    ck_assert_mem_eq(&diff, &b, sizeof(b));
    diff.requests = 77;
    ck_assert(!rs_tally_since(&a, &sum, &diff)); /* it went back */
    ck_assert_uint_eq(diff.requests, 77);
}
END_TEST

START_TEST(quantiles)
{
    struct rs_tally t = {0};

    ck_assert_int_eq(rs_tally_quantile(&t, 0.99), -1);
    t.bucket[10] = 99;
    t.bucket[20] = 1;
    ck_assert_int_eq(rs_tally_quantile(&t, 0.5), 10);
    ck_assert_int_eq(rs_tally_quantile(&t, 0.99), 10);
    ck_assert_int_eq(rs_tally_quantile(&t, 0.991), 20);
    ck_assert_int_eq(rs_tally_quantile(&t, 1), 20);
}
END_TEST

START_TEST(there_and_back)
{
    struct rs_tally t = made(1000, 0, 3), back = {0};
    struct rs_error err = {0};

    t.bucket[RS_TALLY_BUCKETS - 1] = 7;
    rs_auto(rs_json_decrefp) json_t *j = rs_tally_to_json(&t);
    ck_assert_int_eq(rs_tally_from_json(&back, j, &err), 0);
    ck_assert_mem_eq(&t, &back, sizeof(t));
}
END_TEST

static const char *const bad[] = {
    "[]",
    "{}",
    "{\"requests\": -1, \"errors\": 0, \"deaths\": 0, \"latency\": []}",
    "{\"requests\": 1.5, \"errors\": 0, \"deaths\": 0, \"latency\": []}",
    "{\"requests\": 1, \"errors\": 0, \"deaths\": 0}",
    "{\"requests\": 1, \"errors\": 0, \"deaths\": 0, \"latency\": [[240, 1]]}",
    "{\"requests\": 1, \"errors\": 0, \"deaths\": 0, \"latency\": [[1, -1]]}",
    "{\"requests\": 1, \"errors\": 0, \"deaths\": 0, \"latency\": [7]}",
    "{\"requests\": 1, \"errors\": 0, \"deaths\": 0, \"latency\": {\"1\": 2}}",
};

START_TEST(garbage)
{
    struct rs_tally t = {.requests = 77};
    struct rs_error err = {0};
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    ck_assert_int_eq(rs_json_parse(&j, bad[_i], strlen(bad[_i]), "test", &err), 0);
    ck_assert_int_eq(rs_tally_from_json(&t, j, &err), -1);
    ck_assert_str_ne(err.msg, "");
    ck_assert_uint_eq(t.requests, 77);
}
END_TEST

RS_CHECK_MAIN("tally", tcase_add_loop_test(tc, place, 0, RS_COUNT(places));
              tcase_add_test(tc, buckets_meet); tcase_add_test(tc, sums_and_differences);
              tcase_add_test(tc, quantiles); tcase_add_test(tc, there_and_back);
              tcase_add_loop_test(tc, garbage, 0, RS_COUNT(bad));)
