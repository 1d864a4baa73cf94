/* Which entry is in force: the one that began last. */
#include "sched/schedule.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#define DAY 86400
#define MONDAY INT64_C(1774828800) /* 2026-03-30 00:00 UTC */

static struct rs_schedule *schedule(const char *text)
{
    rs_auto(rs_json_decrefp) json_t *list = json_loads(text, 0, NULL);
    struct rs_schedule *s = NULL;
    struct rs_error err = {0};

    ck_assert_ptr_nonnull(list);
    ck_assert_msg(rs_schedule_new(&s, list, &err) == 0, "%s", err.msg);
    return s;
}

static const struct {
    const char *list;
    int64_t t;
    int entry, min;
    int64_t since, until;
} cases[] = {
    {"[]", MONDAY, -1, 0, 0, INT64_MAX},
    {"[{\"cron\": \"0 8 * * *\", \"min_replicas\": 4}]", MONDAY, 0, 4, MONDAY - 16 * 3600,
     MONDAY + 8 * 3600},
#define OFFICE                                                                                     \
    "[{\"cron\": \"0 8 * * MON-FRI\", \"min_replicas\": 4},"                                       \
    " {\"cron\": \"0 20 * * *\", \"min_replicas\": 1}]"
    {OFFICE, MONDAY, 1, 1, MONDAY - 4 * 3600, MONDAY + 8 * 3600},
    {OFFICE, MONDAY + 8 * 3600 - 1, 1, 1, MONDAY - 4 * 3600, MONDAY + 8 * 3600},
    {OFFICE, MONDAY + 8 * 3600, 0, 4, MONDAY + 8 * 3600, MONDAY + 20 * 3600},
    {OFFICE, MONDAY + 20 * 3600, 1, 1, MONDAY + 20 * 3600, MONDAY + 32 * 3600},
    {OFFICE, MONDAY + 5 * DAY + 9 * 3600, 1, 1, MONDAY + 5 * DAY - 4 * 3600,
     MONDAY + 5 * DAY + 20 * 3600},
#define NOON                                                                                       \
    "[{\"cron\": \"0 8 * * *\", \"min_replicas\": 4},"                                             \
    " {\"cron\": \"0 12 * * *\", \"min_replicas\": 9, \"duration_s\": 1800}]"
    /* one that ends gives way to the one before it */
    {NOON, MONDAY + 12 * 3600, 1, 9, MONDAY + 12 * 3600, MONDAY + 12 * 3600 + 1800},
    {NOON, MONDAY + 12 * 3600 + 1799, 1, 9, MONDAY + 12 * 3600, MONDAY + 12 * 3600 + 1800},
    {NOON, MONDAY + 12 * 3600 + 1800, 0, 4, MONDAY + 8 * 3600, MONDAY + 32 * 3600},
    /* alone, and over: none */
    {"[{\"cron\": \"0 12 * * *\", \"min_replicas\": 9, \"duration_s\": 60}]", MONDAY, -1, 0, 0,
     MONDAY + 12 * 3600},
    /* at the same instant: the last in the list */
    {"[{\"cron\": \"@daily\", \"min_replicas\": 2}, {\"cron\": \"0 0 * * *\", \"min_replicas\": "
     "3}]",
     MONDAY, 1, 3, MONDAY, MONDAY + DAY},
    {"[{\"cron\": \"0 0 29 2 *\", \"min_replicas\": 0}]", MONDAY, 0, 0, 1709164800, 1835395200},
};

START_TEST(in_force)
{
    rs_auto(rs_schedule_freep) struct rs_schedule *s = schedule(cases[_i].list);
    struct rs_schedule_now now = rs_schedule_at(s, cases[_i].t);

    ck_assert_int_eq(now.entry, cases[_i].entry);
    ck_assert_int_eq(now.until, cases[_i].until);
    if (now.entry < 0)
        return;
    ck_assert_int_eq(now.min_replicas, cases[_i].min);
    ck_assert_int_eq(now.since, cases[_i].since);
}
END_TEST

/* Nothing changes before `until`, whenever it is asked. */
START_TEST(until_is_true)
{
    static const char *const lists[] = {OFFICE, NOON};

    for (size_t i = 0; i < RS_COUNT(lists); i++) {
        rs_auto(rs_schedule_freep) struct rs_schedule *s = schedule(lists[i]);
        struct rs_schedule_now was = rs_schedule_at(s, MONDAY);

        for (int64_t t = MONDAY; t < MONDAY + 8 * DAY; t += 600) {
            struct rs_schedule_now now = rs_schedule_at(s, t);

            ck_assert_int_gt(now.until, t);
            ck_assert(now.entry == was.entry || t >= was.until);
            ck_assert(t < was.until || now.until > was.until);
            was = now;
        }
    }
}
END_TEST

START_TEST(wrong)
{
    static const char *const lists[] = {
        "[{\"cron\": \"0 8 * *\", \"min_replicas\": 4}]",
        "[{\"cron\": \"@daily\", \"timezone\": \"No/Where\", \"min_replicas\": 4}]", "[7]"};

    for (size_t i = 0; i < RS_COUNT(lists); i++) {
        rs_auto(rs_json_decrefp) json_t *list = json_loads(lists[i], 0, NULL);
        struct rs_schedule *s = NULL;
        struct rs_error err = {0};

        ck_assert_int_eq(rs_schedule_new(&s, list, &err), -1);
        ck_assert_ptr_null(s);
        ck_assert_ptr_nonnull(strstr(err.msg, "schedule[0]"));
    }
    ck_assert_int_eq(rs_schedule_at(NULL, MONDAY).entry, -1);
}
END_TEST

RS_CHECK_MAIN("schedule", tcase_add_loop_test(tc, in_force, 0, RS_COUNT(cases));
              tcase_add_test(tc, until_is_true); tcase_add_test(tc, wrong);)
