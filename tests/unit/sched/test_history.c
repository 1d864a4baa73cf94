/* The configurations that ran: which of them are kept, and which one a rollback goes to. */
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "sched/history.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static struct rs_history h;

static void teardown(void)
{
    rs_history_fini(&h);
}

static json_t *config(int v)
{
    return json_pack("{s:s, s:n, s:{s:[{s:s, s:i}]}}", "dir", "/d", "app_dir", "document",
                     "applications", "name", "x", "v", v);
}

static bool ran(const char *app, int v)
{
    rs_auto(rs_json_decrefp) json_t *c = config(v);

    return rs_history_ran(&h, app, &(struct rs_history_entry){.config = c, .time_s = v});
}

/* The revision that a rollback of `app`, whose configuration is `now`, goes to; 0: none. */
static int64_t back(const char *app, int now)
{
    rs_auto(rs_json_decrefp) json_t *c = now >= 0 ? config(now) : NULL;
    const json_t *e = NULL;
    struct rs_error err = {0};

    if (rs_history_find(&h, app, 0, c, &e, &err) < 0) {
        ck_assert_ptr_nonnull(strstr(err.msg, "there is nothing to go back to"));
        return 0;
    }
    return rs_json_int(e, "revision", -1);
}

START_TEST(the_last_one_that_ran_before)
{
    ck_assert_int_eq(back("x", -1), 0);
    ck_assert(ran("x", 1));
    ck_assert_int_eq(back("x", 1), 0);
    ck_assert_int_eq(back("x", 9), 1); /* 9 was deployed, and never ran */
    ck_assert(ran("x", 2));
    ck_assert_int_eq(back("x", 2), 1);
    ck_assert_int_eq(back("x", 9), 2);
    ck_assert_int_eq(back("x", -1), 2); /* it was deleted */
    ck_assert(!ran("x", 2));            /* that is the same again */
    ck_assert(ran("x", 1));             /* rolled back: a revision of its own */
    ck_assert_int_eq(back("x", 1), 2);  /* and forth */
    ck_assert_int_eq(back("y", -1), 0);
}
END_TEST

START_TEST(one_by_its_number)
{
    const json_t *e = NULL;
    struct rs_error err = {0};
    rs_auto(rs_json_decrefp) json_t *want = config(3);

    ck_assert_int_eq(rs_history_find(&h, "x", 1, NULL, &e, &err), -1);
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
    for (int v = 1; v <= 13; v++)
        ck_assert(ran("x", v));
    ck_assert_int_eq(rs_history_find(&h, "x", 3, NULL, &e, &err), -1);
    ck_assert_str_eq(err.msg,
                     "application 'x' has no revision 3; the last 10 that ran are 4 to 13");
    ck_assert_int_eq(rs_history_find(&h, "x", 4, NULL, &e, &err), 0);
    ck_assert_int_eq(
        rs_json_int(json_array_get(
                        json_object_get(json_object_get(json_object_get(e, "config"), "document"),
                                        "applications"),
                        0),
                    "v", 0),
        4);
}
END_TEST

START_TEST(as_a_list)
{
    rs_auto(rs_json_decrefp) json_t *now = config(1), *list = NULL;
    const json_t *revisions;

    ck_assert_ptr_null(rs_history_list(&h, "x", NULL));
    ck_assert(ran("x", 1));
    ck_assert(ran("x", 2));
    ck_assert(ran("x", 1));
    list = rs_history_list(&h, "x", now);
    revisions = json_object_get(list, "revisions");
    ck_assert_int_eq(rs_json_int(list, "back_to", 0), 2);
    ck_assert_int_eq(rs_json_int(json_array_get(revisions, 0), "revision", 0), 3);
    ck_assert(rs_json_bool(json_array_get(revisions, 0), "current", false));
    ck_assert(!rs_json_bool(json_array_get(revisions, 2), "current", true)); /* one only */
    ck_assert_str_eq(
        rs_json_str(json_object_get(json_array_get(revisions, 0), "config"), "name", ""), "x");
}
END_TEST

START_TEST(over_a_restart)
{
    rs_auto(rs_json_decrefp) json_t *kept = NULL;
    rs_auto(rs_json_decrefp) json_t *odd =
        json_pack("{s:[{s:i}, i, {s:i, s:{}}, {s:i, s:{}}]}", "revisions", "revision", 1, 7,
                  "revision", 5, "config", "revision", 2, "config");
    const char *app;
    json_t *j;

    ck_assert_ptr_null(rs_history_json(&h));
    for (int v = 1; v <= 12; v++)
        ck_assert(ran("x", v));
    kept = json_deep_copy(rs_history_json(&h));
    rs_history_fini(&h);
    json_object_foreach (kept, app, j)
        rs_history_restore(&h, app, j);
    ck_assert(json_equal(rs_history_json(&h), kept));
    ck_assert(!ran("x", 12));
    ck_assert(ran("x", 13));
    ck_assert_int_eq(back("x", 13), 12);
    rs_history_restore(&h, "z", odd); /* one of them is whole, and in its place */
    ck_assert_int_eq(back("z", -1), 5);
    rs_history_restore(&h, "none", kept);
    ck_assert_int_eq(back("none", -1), 0);
}
END_TEST

static bool is_x(const char *app, void *arg)
{
    return strcmp(app, "x") == 0;
}

START_TEST(applications_that_are_gone)
{
    char name[16];

    ck_assert(ran("x", 1));
    for (int i = 0; i < RS_HISTORY_APPS + 50; i++) {
        snprintf(name, sizeof(name), "gone%d", i);
        ck_assert(ran(name, 1));
        rs_history_prune(&h, is_x, NULL);
    }
    ck_assert_uint_eq(json_object_size(rs_history_json(&h)), RS_HISTORY_APPS + 1);
    ck_assert_int_eq(back("x", -1), 1);
    ck_assert_int_eq(back("gone49", -1), 0); /* the oldest went */
    ck_assert_int_eq(back("gone50", -1), 1);
}
END_TEST

RS_CHECK_MAIN("history", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, the_last_one_that_ran_before);
              tcase_add_test(tc, one_by_its_number); tcase_add_test(tc, as_a_list);
              tcase_add_test(tc, over_a_restart); tcase_add_test(tc, applications_that_are_gone);)
