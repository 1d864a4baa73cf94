/* Who runs already when a node joins keeps running: no replica ends because another one could be started
 * elsewhere. */
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;
static struct behaviour a = {.deployment = "A", .start = 300 * RS_MS};

static const char app[] = "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"
                          "  deployments:\n  - {name: A, num_replicas: 2}\n";

static void open_with_two_on(unsigned node)
{
    a.inits = 0;
    world_open(&w, &a, 1);
    world_join(&w, node, "{\"CPU\": 4}");
    world_apply(&w, app);
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    w.watch = "A";
    w.lowest_up = 2;
}

static void teardown(void)
{
    world_close(&w);
}

/* A new head, and the node with room for all joins before the one that runs them. */
START_TEST(new_head)
{
    open_with_two_on(1);
    world_new_head(&w);
    world_apply(&w, app);
    world_join(&w, 0, "{\"CPU\": 8}");
    world_join(&w, 1, "{\"CPU\": 4}");
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_eq(w.lowest_up, 2);
    ck_assert_uint_eq(a.inits, 2); /* the same processes */
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

/* It joins so late that others were started already: they go, or they are ready. */
START_TEST(new_head_and_late)
{
    open_with_two_on(1);
    world_new_head(&w);
    world_apply(&w, app);
    world_join(&w, 0, "{\"CPU\": 8}");
    world_run(&w, (_i ? 900 : 200) * RS_MS);
    world_join(&w, 1, "{\"CPU\": 4}");
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_ge(w.lowest_up, 2);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

/* There is another version meanwhile: it rolls in where the old one runs. */
START_TEST(new_head_and_version)
{
    open_with_two_on(1);
    world_new_head(&w);
    world_apply(&w, "applications:\n- name: x\n  import_path: m:other\n  route_prefix: /x\n"
                    "  deployments:\n  - {name: A, num_replicas: 2}\n");
    world_join(&w, 0, "{\"CPU\": 8}");
    world_join(&w, 1, "{\"CPU\": 4}");
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_ge(w.lowest_up, 2);
    ck_assert_uint_eq(a.inits, 4);
}
END_TEST

RS_CHECK_MAIN("adopt", tcase_add_checked_fixture(tc, NULL, teardown); tcase_add_test(tc, new_head);
              tcase_add_loop_test(tc, new_head_and_late, 0, 2);
              tcase_add_test(tc, new_head_and_version);)
