/* The tests behind a canary, by themselves: exact where that can be counted out, else with seeds. */
#include "sched/evidence.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <math.h>

static double choose(unsigned n, unsigned k)
{
    double c = 1;

    for (unsigned i = 0; i < k; i++)
        c = c * (n - i) / (i + 1);
    return k > n ? 0 : c;
}

static const struct {
    unsigned old_n, new_n, bad;
} batches[] = {{1, 1, 1}, {9, 1, 1}, {9, 1, 5}, {5, 5, 3}, {30, 3, 8}, {2, 40, 6}, {3, 40, 12}};

/* Over all ways in which so many failures may fall on the two groups, each as likely as it is where
 * both fail equally often, one unit of evidence stays one. */
START_TEST(is_fair)
{
    unsigned n = batches[_i].old_n + batches[_i].new_n, bad = batches[_i].bad;
    double mean = 0, all = 0;

    for (unsigned k = 0; k <= bad && k <= batches[_i].new_n; k++) {
        double p =
            choose(batches[_i].new_n, k) * choose(batches[_i].old_n, bad - k) / choose(n, bad);
        struct rs_evidence e = {0};

        if (bad - k > batches[_i].old_n)
            continue;
        rs_evidence_compare(&e, &(struct rs_evidence_batch){.old_n = batches[_i].old_n,
                                                            .old_bad = bad - k,
                                                            .new_n = batches[_i].new_n,
                                                            .new_bad = k});
        mean += p * exp(rs_evidence_log(&e));
        all += p;
    }
    ck_assert_double_eq_tol(all, 1, 1e-9);
    ck_assert_double_eq_tol(mean, 1, 1e-9);
}
END_TEST

static double of(uint64_t old_n, uint64_t old_bad, uint64_t new_n, uint64_t new_bad)
{
    struct rs_evidence e = {0};

    rs_evidence_compare(&e, &(struct rs_evidence_batch){old_n, old_bad, new_n, new_bad});
    return rs_evidence_log(&e);
}

START_TEST(says_nothing)
{
    static const struct rs_evidence_batch none[] = {
        {0, 0, 0, 0}, {100, 0, 100, 0}, {0, 0, 100, 50}, {100, 50, 0, 0}, {10, 10, 5, 5}};

    for (size_t i = 0; i < RS_COUNT(none); i++)
        ck_assert_double_eq(of(none[i].old_n, none[i].old_bad, none[i].new_n, none[i].new_bad), 0);
}
END_TEST

START_TEST(grows_with_what_it_saw)
{
    ck_assert_double_gt(of(99, 0, 1, 1), 0);
    ck_assert_double_gt(of(990, 0, 10, 3), log(1000));
    ck_assert_double_lt(of(990, 10, 10, 0), 0);
    ck_assert_double_lt(of(1000, 300, 1000, 300), 0); /* as often */
    ck_assert_double_gt(of(1000, 300, 1000, 500), log(1000));
    /* A storm of a million is judged like any other, and quickly. */
    ck_assert_double_gt(of(900000, 1000, 100000, 90000), 100);
    ck_assert_double_lt(of(900000, 810000, 100000, 90000), 0);
}
END_TEST

START_TEST(against_a_limit)
{
    struct rs_evidence below = {0}, above = {0}, most = {0};

    for (int i = 0; i < 100; i++) {
        rs_evidence_limit(&below, 100, 1, 0.01);
        rs_evidence_limit(&above, 100, 3, 0.01);
        rs_evidence_limit(&most, 100, 100, 0.99);
    }
    ck_assert_double_lt(rs_evidence_log(&below), 0);
    ck_assert_double_gt(rs_evidence_log(&above), log(1000));
    ck_assert(isfinite(rs_evidence_log(&most)));
}
END_TEST

RS_CHECK_MAIN("evidence", tcase_add_loop_test(tc, is_fair, 0, RS_COUNT(batches));
              tcase_add_test(tc, says_nothing); tcase_add_test(tc, grows_with_what_it_saw);
              tcase_add_test(tc, against_a_limit);)
