#include "core/base/quantity.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"

static const struct {
    const char *text;
    const struct rs_unit *units;
    bool exact;
    int64_t want; /* -1: refused */
} cases[] = {
    {"0", rs_units_size, false, 0},
    {"64K", rs_units_size, false, 65536},
    {"1.5GiB", rs_units_size, false, 1610612736},
    {"10MB", rs_units_size, false, 10000000},
    {"8388607TiB", rs_units_size, false, INT64_C(9223370937343148032)},
    {"8388608TiB", rs_units_size, false, -1},
    {"9223372036854775807", rs_units_size, false, INT64_MAX},
    {"9223372036854775808", rs_units_size, false, -1},
    {"10 MiB", rs_units_size, false, -1},
    {"10mib", rs_units_size, false, -1},
    {"MiB", rs_units_size, false, -1},
    {"", rs_units_size, false, -1},
    {"1.", rs_units_size, false, -1},
    {"1.0000000001K", rs_units_size, false, -1},
    {"2", rs_units_duration, false, 2000000000},
    {"500ms", rs_units_duration, false, 500000000},
    {"0.5ns", rs_units_duration, false, 0},
    {"0.5ns", rs_units_duration, true, -1},
    {"12", rs_units_one, true, 12},
    {"12.0", rs_units_one, true, 12},
    {"12.5", rs_units_one, true, -1},
    {"12s", rs_units_one, true, -1},
};

START_TEST(reads)
{
    int64_t got = -1;
    bool ok = rs_quantity_read(cases[_i].text, cases[_i].units, cases[_i].exact, &got);

    ck_assert_msg(got == cases[_i].want, "%s: %lld", cases[_i].text, (long long)got);
    ck_assert_msg(ok == (cases[_i].want >= 0), "%s", cases[_i].text);
}
END_TEST

START_TEST(reads_negative_ones)
{
    int64_t got = 0;

    ck_assert(rs_quantity_read("-1.5K", rs_units_size, false, &got));
    ck_assert_int_eq(got, -1536);
}
END_TEST

RS_CHECK_MAIN("quantity", tcase_add_loop_test(tc, reads, 0, RS_COUNT(cases));
              tcase_add_test(tc, reads_negative_ones);)
