/* Counts by name and minute. */
#include "core/events/minutes.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static struct rs_minutes m;

static void teardown(void)
{
    rs_minutes_fini(&m);
}

static void expect(double wall_s, const char *want)
{
    rs_auto(rs_json_decrefp) json_t *j = rs_minutes_json(&m, wall_s);
    rs_auto(rs_freep) char *got = rs_json_dump(j);

    ck_assert_str_eq(got, want);
}

START_TEST(minutes_pass)
{
    expect(0, "{}");
    rs_minutes_add(&m, "timeout", 2, 60000);
    rs_minutes_add(&m, "timeout", 1, 60059);
    rs_minutes_add(&m, "memory", 5, 60120);
    rs_minutes_add(&m, "none", 0, 60120);
    expect(60121, "{\"timeout\":{\"total\":3,\"minutes\":[0,0,0,0,0,0,0,3,0,0]},"
                  "\"memory\":{\"total\":5,\"minutes\":[0,0,0,0,0,0,0,0,0,5]}}");
    expect(60600, "{\"memory\":{\"total\":5,\"minutes\":[0,5,0,0,0,0,0,0,0,0]}}");
    expect(61000, "{}");
    rs_minutes_add(&m, "timeout", 1, 60660); /* ten minutes later: the first is forgotten */
    expect(60660, "{\"timeout\":{\"total\":1,\"minutes\":[0,0,0,0,0,0,0,0,0,1]},"
                  "\"memory\":{\"total\":5,\"minutes\":[5,0,0,0,0,0,0,0,0,0]}}");
    rs_minutes_add(&m, "timeout", 1, 600000); /* long after */
    expect(600000, "{\"timeout\":{\"total\":1,\"minutes\":[0,0,0,0,0,0,0,0,0,1]}}");
}
END_TEST

START_TEST(a_clock_that_goes_back)
{
    rs_minutes_add(&m, "a", 1, 6000);
    rs_minutes_add(&m, "a", 1, 600);
    rs_minutes_add(&m, "a", 1, -5);
    expect(600, "{\"a\":{\"total\":3,\"minutes\":[0,0,0,0,0,0,0,0,0,3]}}");
}
END_TEST

START_TEST(names_are_bounded)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;

    for (int i = 0; i < 1000; i++) {
        char name[80];

        snprintf(name, sizeof(name), "a_name_that_is_longer_than_any_cause_%d", i);
        rs_minutes_add(&m, i % 2 ? name : name + 30, 1, 60);
    }
    j = rs_minutes_json(&m, 60);
    ck_assert_uint_eq(json_object_size(j), RS_MINUTES_NAMES);
    ck_assert_int_eq(rs_json_int(json_object_get(j, "other"), "total", 0), 500 - 22);
}
END_TEST

RS_CHECK_MAIN("minutes", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, minutes_pass); tcase_add_test(tc, a_clock_that_goes_back);
              tcase_add_test(tc, names_are_bounded);)
