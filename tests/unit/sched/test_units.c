/* Replicas with placement groups of their own: bundles, and gangs. */
#include "core/base/json.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;

#define APP(options)                                                                               \
    "applications:\n- name: x\n  import_path: m:app\n  deployments:\n  - {name: A, "               \
    "graceful_shutdown_timeout_s: 1, ray_actor_options: {num_cpus: 1}, " options "}\n"
#define BUNDLES "placement_group_bundles: [{CPU: 1}, {CPU: 1}]"
#define GANG(size, more)                                                                           \
    "gang_scheduling_config: {gang_size: " #size ", gang_placement_strategy: " more "}"

static void teardown(void)
{
    world_close(&w);
}

static void open_with(struct behaviour *b, size_t n, const char *resources, const char *yaml)
{
    world_open(&w, b, n);
    world_join(&w, 0, resources);
    world_apply(&w, yaml);
    world_run(&w, 2 * RS_SEC);
}

static const char *app_status(void)
{
    return world_text(&w, "applications.x.status");
}

static const char *status(void)
{
    return world_text(&w, "applications.x.deployments.A.status");
}

static const char *notice(void)
{
    return world_text(&w, "applications.x.deployments.A.message");
}

static double free_cpus(void)
{
    world_ask(&w, 0, "p1", "{\"op\": \"resources\"}");
    return rs_json_num(json_object_get(w.answer, "available"), "CPU", 0);
}

static size_t groups(void)
{
    world_ask(&w, 0, "p1", "{\"op\": \"list\", \"what\": \"groups\"}");
    return json_array_size(json_object_get(w.answer, "rows"));
}

static unsigned on_node(unsigned i)
{
    unsigned n = 0;

    for (size_t k = 0; k < rs_map_slots(&w.nodes[i].procs); k++) {
        const struct proc *p = rs_map_at(&w.nodes[i].procs, k, NULL);

        n += p && p->admitted && strcmp(p->deployment, "A") == 0;
    }
    return n;
}

/* --- bundles --- */

START_TEST(bundles_are_reserved_and_given_back)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 5}", APP("num_replicas: 3, " BUNDLES));
    ck_assert_uint_eq(world_admitted(&w, "A"), 2); /* of 2 CPUs each */
    ck_assert(free_cpus() == 1);
    ck_assert_uint_eq(groups(), 2);
    ck_assert_str_eq(status(), "UPDATING");
    ck_assert_ptr_nonnull(strstr(notice(), "1 replica of 3 pending: PACK of 1 CPU; 1 CPU"));
    world_join(&w, 1, "{\"CPU\": 2}");
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(on_node(1), 1);
    ck_assert(free_cpus() == 1);
    world_apply(&w, APP("num_replicas: 1, " BUNDLES));
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    ck_assert(free_cpus() == 5);
    ck_assert_str_eq(status(), "HEALTHY");
    world_apply(&w, "applications: []\n");
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(groups(), 0);
    ck_assert(free_cpus() == 7);
}
END_TEST

static const struct {
    const char *strategy;
    unsigned n0, n1; /* replicas that run there */
} strategies[] = {{"PACK", 1, 0}, {"SPREAD", 1, 0}, {"STRICT_PACK", 0, 0}, {"STRICT_SPREAD", 1, 0}};

/* Two bundles of 2 CPUs, on nodes that hold one each. */
START_TEST(strategies_of_bundles)
{
    rs_auto(rs_freep) char *yaml =
        rs_asprintf(APP("num_replicas: 1, placement_group_bundles: [{CPU: 2}, {CPU: 2}], "
                        "placement_group_strategy: %s"),
                    strategies[_i].strategy);

    world_open(&w, NULL, 0);
    world_join(&w, 0, "{\"CPU\": 3}");
    world_join(&w, 1, "{\"CPU\": 3}");
    world_apply(&w, yaml);
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(on_node(0), strategies[_i].n0);
    ck_assert_uint_eq(on_node(1), strategies[_i].n1);
    ck_assert(free_cpus() == (strategies[_i].n0 ? 2 : 6)); /* all bundles or none */
}
END_TEST

START_TEST(a_replica_that_dies_gets_another_group)
{
    rs_auto(rs_freep) char *before = NULL;

    open_with(NULL, 0, "{\"CPU\": 2}", APP("num_replicas: 1, " BUNDLES));
    ck_assert_str_eq(app_status(), "RUNNING");
    groups();
    before = rs_json_dump(w.answer);
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    ck_assert_uint_eq(groups(), 1);
    rs_auto(rs_freep) char *after = rs_json_dump(w.answer);

    ck_assert_str_ne(before, after);
    ck_assert(free_cpus() == 0);
}
END_TEST

/* No room beside the old one: that goes first, and keeps its room until it is gone. */
START_TEST(a_new_version_without_room_beside_the_old_one)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 2}", APP("num_replicas: 1, " BUNDLES));
    ck_assert_uint_eq(b[0].inits, 1);
    world_apply(&w, APP("num_replicas: 1, placement_group_bundles: [{CPU: 2}]"));
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(b[0].inits, 2);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(groups(), 1);
    world_apply(&w, APP("num_replicas: 1, placement_group_bundles: [{CPU: 3}]"));
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(b[0].inits, 2); /* it would never fit: the old one stays */
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    ck_assert_ptr_nonnull(strstr(notice(), "PACK of 3 CPU"));
}
END_TEST

START_TEST(a_new_version_beside_the_old_one)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 8}", APP("num_replicas: 2, " BUNDLES));
    w.watch = "A";
    w.lowest_up = 2;
    world_apply(&w, APP("num_replicas: 2, placement_group_bundles: [{CPU: 2}]"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(w.lowest_up, 2);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(groups(), 2);
    ck_assert(free_cpus() == 4);
}
END_TEST

/* Replicas get groups that had none, and the other way round. */
START_TEST(groups_come_and_go_with_the_configuration)
{
    open_with(NULL, 0, "{\"CPU\": 4}", APP("num_replicas: 2"));
    ck_assert_uint_eq(groups(), 0);
    world_apply(&w, APP("num_replicas: 2, " BUNDLES));
    world_run(&w, 10 * RS_SEC);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(groups(), 2);
    world_apply(&w, APP("num_replicas: 2"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_eq(groups(), 0);
    ck_assert(free_cpus() == 2);
}
END_TEST

/* --- gangs --- */

START_TEST(a_gang_is_placed_whole_or_not_at_all)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 3}", APP("num_replicas: 4, " GANG(2, "PACK")));
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert(free_cpus() == 1); /* not one of the second gang */
    ck_assert_ptr_nonnull(strstr(notice(), "2 replicas of 4 pending: PACK of 1 CPU; 1 CPU"));
    world_join(&w, 1, "{\"CPU\": 1}"); /* PACK goes over nodes where one has not the room */
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(on_node(0), 3);
    ck_assert_uint_eq(on_node(1), 1);
}
END_TEST

START_TEST(a_gang_is_spread)
{
    world_open(&w, NULL, 0);
    world_join(&w, 0, "{\"CPU\": 4}");
    world_join(&w, 1, "{\"CPU\": 4}");
    world_apply(&w, APP("num_replicas: 4, " GANG(2, "SPREAD")));
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(on_node(0), 2);
    ck_assert_uint_eq(on_node(1), 2);
}
END_TEST

/* One dies: its gang goes with it and comes back whole; the other gang goes on. */
START_TEST(one_member_dies)
{
    struct behaviour b[] = {{.deployment = "A"}};

    world_open(&w, b, 1);
    world_join(&w, 0, "{\"CPU\": 4}");
    world_join(&w, 1, "{\"CPU\": 4}");
    world_apply(&w, APP("num_replicas: 4, " GANG(2, "SPREAD")));
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(b[0].inits, 4);
    w.watch = "A";
    w.lowest_up = 4;
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(b[0].inits, 6);
    ck_assert_uint_eq(w.lowest_up, 2);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(groups(), 2);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert(free_cpus() == 4);
}
END_TEST

START_TEST(one_member_fails_to_start)
{
    struct behaviour b[] = {{.deployment = "A", .fail_starts = 1}};

    open_with(b, 1, "{\"CPU\": 3}", APP("num_replicas: 3, " GANG(3, "PACK")));
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(b[0].inits, 6); /* all three anew */
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    ck_assert_uint_eq(groups(), 1);
}
END_TEST

START_TEST(a_gang_that_never_starts)
{
    struct behaviour b[] = {{.deployment = "A", .fail_starts = 1000}};

    open_with(b, 1, "{\"CPU\": 4}", APP("num_replicas: 2, " GANG(2, "PACK")));
    world_run(&w, 120 * RS_SEC);
    ck_assert_str_eq(app_status(), "DEPLOY_FAILED");
    ck_assert_uint_eq(world_admitted(&w, "A"), 0);
    ck_assert_uint_eq(groups(), 0);
    ck_assert(free_cpus() == 4);
}
END_TEST

START_TEST(a_sick_member_takes_its_gang_along)
{
    struct behaviour b[] = {{.deployment = "A", .sick = true}};

    open_with(b, 1, "{\"CPU\": 2}",
              APP("num_replicas: 2, health_check_period_s: 1, " GANG(2, "PACK")));
    ck_assert_uint_eq(b[0].inits, 2);
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_ge(b[0].inits, 4);
    ck_assert_uint_eq(b[0].inits % 2, 0);
}
END_TEST

START_TEST(downscaling_in_whole_gangs)
{
    open_with(NULL, 0, "{\"CPU\": 6}", APP("num_replicas: 6, " GANG(2, "PACK")));
    ck_assert_uint_eq(world_admitted(&w, "A"), 6);
    world_apply(&w, APP("num_replicas: 2, " GANG(2, "PACK")));
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_eq(groups(), 1);
    ck_assert_str_eq(status(), "HEALTHY");
    ck_assert(free_cpus() == 4);
}
END_TEST

START_TEST(rolling_in_whole_gangs)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 4}", APP("num_replicas: 4, " GANG(2, "PACK")));
    w.watch = "A";
    w.lowest_up = 4;
    world_apply(&w, APP("num_replicas: 4, " GANG(2, "SPREAD")));
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(w.lowest_up, 2); /* no room beside: one gang at a time */
    ck_assert_uint_eq(b[0].inits, 8);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(groups(), 2);
}
END_TEST

/* A gang over two nodes; one of them goes. */
START_TEST(a_node_with_a_member_leaves)
{
    struct behaviour b[] = {{.deployment = "A"}};

    world_open(&w, b, 1);
    world_join(&w, 0, "{\"CPU\": 2}");
    world_join(&w, 1, "{\"CPU\": 2}");
    world_apply(&w, APP("num_replicas: 2, " GANG(2, "SPREAD")));
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(on_node(1), 1);
    world_leave(&w, 1);
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(on_node(0), 2);
    ck_assert_uint_eq(b[0].inits, 4);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(groups(), 1);
    ck_assert(free_cpus() == 0);
}
END_TEST

/* Somebody removes the placement group: what is in it ends, and another one is made. */
START_TEST(a_group_that_is_removed)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 2}", APP("num_replicas: 2, " GANG(2, "PACK")));
    ck_assert_uint_eq(groups(), 1);
    rs_auto(rs_freep) char *id = rs_strdup(rs_json_str(
        json_array_get(json_object_get(w.answer, "rows"), 0), "placement_group_id", ""));
    rs_auto(rs_freep) char *ask =
        rs_asprintf("{\"op\": \"remove_group\", \"group_id\": \"%s\"}", id);

    world_ask(&w, 0, "p1", ask);
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(groups(), 1);
    ck_assert_str_ne(id, rs_json_str(json_array_get(json_object_get(w.answer, "rows"), 0),
                                     "placement_group_id", ""));
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_eq(b[0].inits, 4);
}
END_TEST

/* A head that knows nothing makes units of its own; those that run go for them. */
START_TEST(another_head)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1, "{\"CPU\": 4}", APP("num_replicas: 4, " GANG(2, "PACK")));
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    world_new_head(&w);
    world_join(&w, 0, "{\"CPU\": 4}");
    world_apply(&w, APP("num_replicas: 4, " GANG(2, "PACK")));
    world_run(&w, 10 * RS_SEC);
    ck_assert_str_eq(app_status(), "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(world_processes(&w), 4 + 1); /* and the zygote */
    ck_assert_uint_eq(b[0].inits, 8);
    ck_assert_uint_eq(groups(), 2);
}
END_TEST

/* --- labels --- */

static void open_regions(const char *yaml)
{
    world_open(&w, NULL, 0);
    w.labels = "{\"region\": \"us\"}";
    world_join(&w, 0, "{\"CPU\": 4}");
    w.labels = "{\"region\": \"eu\", \"disk\": \"ssd\"}";
    world_join(&w, 1, "{\"CPU\": 2}");
    world_apply(&w, yaml);
    world_run(&w, 2 * RS_SEC);
}

static const struct {
    const char *options;
    unsigned n0, n1;
    const char *why; /* NULL: all run */
} selections[] = {
    {"label_selector: {region: eu}", 0, 2, NULL},
    {"label_selector: {region: '!eu'}", 2, 0, NULL},
    {"label_selector: {region: 'in(us, eu)', disk: '!in(hdd,ssd)'}", 2, 0, NULL},
    {"label_selector: {region: mars}", 0, 0, "n0: its labels are other ones; n1: its labels"},
    {"label_selector: {region: eu}, fallback_strategy: [{label_selector: {region: us}}]", 0, 2,
     NULL},
    {"label_selector: {region: mars}, fallback_strategy: [{label_selector: {region: venus}}, "
     "{label_selector: {region: us}}]",
     2, 0, NULL},
    {"label_selector: {ray.io/node-id: n1}", 0, 2, NULL},
};

START_TEST(replicas_by_labels)
{
    rs_auto(rs_freep) char *yaml =
        rs_asprintf("applications:\n- name: x\n  import_path: m:app\n  deployments:\n  - {name: "
                    "A, num_replicas: 2, ray_actor_options: {num_cpus: 1, %s}}\n",
                    selections[_i].options);

    open_regions(yaml);
    ck_assert_uint_eq(on_node(0), selections[_i].n0);
    ck_assert_uint_eq(on_node(1), selections[_i].n1);
    if (selections[_i].why)
        ck_assert_msg(strstr(notice(), selections[_i].why) != NULL, "%s", notice());
}
END_TEST

/* More than the region has room for: the fallback takes the rest. */
START_TEST(fallback_where_there_is_no_room)
{
    open_regions("applications:\n- name: x\n  import_path: m:app\n  deployments:\n  - {name: A, "
                 "num_replicas: 3, ray_actor_options: {num_cpus: 1, label_selector: {region: eu}, "
                 "fallback_strategy: [{label_selector: {region: us}}]}}\n");
    ck_assert_uint_eq(on_node(1), 2);
    ck_assert_uint_eq(on_node(0), 1);
}
END_TEST

START_TEST(bundles_by_labels)
{
    open_regions(APP("num_replicas: 1, " BUNDLES ", placement_group_bundle_label_selector: "
                     "[{region: eu}, {region: us}]"));
    ck_assert_uint_eq(on_node(1), 1);
    groups();
    const json_t *nodes =
        json_object_get(json_array_get(json_object_get(w.answer, "rows"), 0), "nodes");

    ck_assert_str_eq(json_string_value(json_array_get(nodes, 1)), "n0");
    world_apply(&w, APP("num_replicas: 1, placement_group_bundles: [{CPU: 1}], "
                        "placement_group_bundle_label_selector: [{region: mars}]"));
    world_run(&w, 2 * RS_SEC);
    ck_assert_ptr_nonnull(strstr(notice(), "PACK of 1 CPU where region=mars"));
    ck_assert_ptr_nonnull(strstr(notice(), "and the labels"));
    ck_assert_uint_eq(on_node(1), 1); /* the old one stays */
}
END_TEST

START_TEST(gangs_by_labels)
{
    open_regions(
        "applications:\n- name: x\n  import_path: m:app\n  deployments:\n  - {name: A, "
        "num_replicas: 2, ray_actor_options: {num_cpus: 1, label_selector: {region: eu}}, " GANG(
            2, "PACK") "}\n");
    ck_assert_uint_eq(on_node(1), 2);
}
END_TEST

RS_CHECK_MAIN("units", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, bundles_are_reserved_and_given_back);
              tcase_add_loop_test(tc, strategies_of_bundles, 0, RS_COUNT(strategies));
              tcase_add_test(tc, a_replica_that_dies_gets_another_group);
              tcase_add_test(tc, a_new_version_without_room_beside_the_old_one);
              tcase_add_test(tc, a_new_version_beside_the_old_one);
              tcase_add_test(tc, groups_come_and_go_with_the_configuration);
              tcase_add_test(tc, a_gang_is_placed_whole_or_not_at_all);
              tcase_add_test(tc, a_gang_is_spread); tcase_add_test(tc, one_member_dies);
              tcase_add_test(tc, one_member_fails_to_start);
              tcase_add_test(tc, a_gang_that_never_starts);
              tcase_add_test(tc, a_sick_member_takes_its_gang_along);
              tcase_add_test(tc, downscaling_in_whole_gangs);
              tcase_add_test(tc, rolling_in_whole_gangs);
              tcase_add_test(tc, a_node_with_a_member_leaves);
              tcase_add_test(tc, a_group_that_is_removed); tcase_add_test(tc, another_head);
              tcase_add_loop_test(tc, replicas_by_labels, 0, RS_COUNT(selections));
              tcase_add_test(tc, fallback_where_there_is_no_room);
              tcase_add_test(tc, bundles_by_labels); tcase_add_test(tc, gangs_by_labels);)
