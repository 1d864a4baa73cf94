/* Rolls of real controllers and agents: over several nodes, with versions that are not well, with heads and
 * nodes that go in the middle. */
#include "core/base/json.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;
static struct behaviour a;

#define APP(options)                                                                               \
    "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"                         \
    "  deployments:\n  - {name: A, num_replicas: 4, " options "}\n"
#define GONE "applications: []\n"

static void open_with(unsigned nodes, const char *resources)
{
    a = (struct behaviour){.deployment = "A", .start = 300 * RS_MS};
    world_open(&w, &a, 1);
    for (unsigned i = 0; i < nodes; i++)
        world_join(&w, i, resources);
}

static void watch(void)
{
    w.watch = "A";
    w.lowest_up = w.highest_up = world_admitted(&w, "A");
}

static void start(unsigned nodes, const char *resources, const char *yaml)
{
    open_with(nodes, resources);
    world_apply(&w, yaml);
    world_run(&w, 3 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
    watch();
}

static void teardown(void)
{
    world_close(&w);
}

static json_t *roll_of(void)
{
    rs_auto(rs_json_decrefp) json_t *all = rs_controller_details(w.controller, true, w.now);
    const json_t *j = json_object_get(json_object_get(all, "applications"), "x");

    j = json_object_get(json_object_get(json_object_get(j, "deployments"), "A"), "rserve");
    return json_incref(json_object_get(j, "rollout"));
}

static void check_roll(const char *phase, const char *why)
{
    rs_auto(rs_json_decrefp) json_t *j = roll_of();

    ck_assert_str_eq(rs_json_str(j, "phase", ""), phase);
    ck_assert_str_eq(rs_json_str(j, "why", ""), why);
}

static const char *message(void)
{
    return world_text(&w, "applications.x.deployments.A.message");
}

/* A head that starts anew with what the one before had kept. */
static void restart_head(const char *yaml, unsigned nodes, const char *resources)
{
    rs_auto(rs_json_decrefp) json_t *kept = rs_controller_desired(w.controller);

    world_new_head(&w);
    rs_controller_restore_rolls(w.controller, json_object_get(kept, "rolls"));
    world_apply(&w, yaml);
    for (unsigned i = 0; i < nodes; i++)
        world_join(&w, i, resources);
}

/* --- what goes well ------------------------------------------------------------------------------ */

static const struct {
    const char *name, *resources, *options;
    unsigned nodes, lowest, highest;
} rolls[] = {
    {"beside", "{\"CPU\": 8}", "version: v2", 1, 4, 5},
    {"over nodes", "{\"CPU\": 2}", "version: v2", 3, 4, 5},
    {"all at once", "{\"CPU\": 8}", "version: v2, max_surge_percent: 100", 1, 4, 8},
    {"as Ray", "{\"CPU\": 8}", "version: v2, max_surge_percent: 0", 1, 3, 4},
    {"no room", "{\"CPU\": 4}", "version: v2", 1, 3, 4},
    {"no room on two", "{\"CPU\": 2}", "version: v2", 2, 3, 4},
    {"room on another", "{\"CPU\": 2}", "version: v2, rserve: {rollout: {when_full: wait}}", 3, 4,
     5},
};

START_TEST(rolls_over)
{
    rs_auto(rs_freep) char *next =
        rs_asprintf("applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"
                    "  deployments:\n  - {name: A, num_replicas: 4, %s}\n",
                    rolls[_i].options);

    start(rolls[_i].nodes, rolls[_i].resources, APP("version: v1"));
    world_apply(&w, next);
    world_run(&w, 20 * RS_SEC);
    ck_assert_msg(world_admitted_of(&w, "A", "v2") == 4 && world_admitted(&w, "A") == 4, "%s: %u",
                  rolls[_i].name, world_admitted_of(&w, "A", "v2"));
    ck_assert_msg(w.lowest_up == rolls[_i].lowest && w.highest_up <= rolls[_i].highest,
                  "%s: %u, %u", rolls[_i].name, w.lowest_up, w.highest_up);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
    check_roll("done", "");
    ck_assert_uint_eq(a.inits, 8);
}
END_TEST

START_TEST(waits_for_room)
{
    start(1, "{\"CPU\": 4}", APP("version: v1"));
    world_apply(&w, APP("version: v2, rserve: {rollout: {when_full: wait}}"));
    world_run(&w, 20 * RS_SEC);
    check_roll("surging", "no_room");
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    ck_assert_ptr_nonnull(strstr(message(), "waits for room"));
    world_join(&w, 1, "{\"CPU\": 1}");
    world_run(&w, 20 * RS_SEC);
    check_roll("done", "");
    ck_assert_uint_eq(w.lowest_up, 4);
}
END_TEST

/* What does not fit even alone ends nothing. */
START_TEST(never_fits)
{
    start(1, "{\"CPU\": 4}", APP("version: v1"));
    world_apply(&w, APP("version: v2, ray_actor_options: {num_cpus: 9}"));
    world_run(&w, 20 * RS_SEC);
    check_roll("surging", "no_room");
    ck_assert_uint_eq(w.lowest_up, 4);
}
END_TEST

/* --- what does not ------------------------------------------------------------------------------- */

static const struct {
    const char *name, *why, *says;
} ills[] = {
    {"broken", "start_failed", "ValueError: no"},
    {"hangs", "no_progress", "was ready for 30 s"},
    {"dies", "deaths", "died or failed their health check"},
};

static void spoil(int i)
{
    *(i == 0 ? &a.broken : i == 1 ? &a.hangs : &a.dies) = "v2";
}

#define V2 APP("version: v2, rserve: {rollout: {deadline_s: 30, min_ready_s: 1}}")

static void stop_at_v2(int i, unsigned nodes, const char *resources)
{
    start(nodes, resources, APP("version: v1"));
    spoil(i);
    world_apply(&w, V2);
    world_run(&w, 200 * RS_SEC);
    check_roll("stopped", ills[i].why);
}

START_TEST(stops)
{
    stop_at_v2(_i, 2, "{\"CPU\": 4}");
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "DEPLOY_FAILED");
    ck_assert_msg(strstr(message(), ills[_i].says) != NULL, "%s", message());
    ck_assert_msg(strstr(message(), "rserve deploy --rollback x") != NULL, "%s", message());
    ck_assert_msg(strstr(message(), "serves with 4 of 4 replicas") != NULL, "%s", message());
    for (int i = 0; i < 3; i++) { /* what dies meanwhile comes back as what it was */
        ck_assert(world_kill_one(&w, "A"));
        world_run(&w, 30 * RS_SEC);
        ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    }
    world_run(&w, 100 * RS_SEC);
    check_roll("stopped", ills[_i].why);
}
END_TEST

/* Where there is no room for both, what went first comes back. */
START_TEST(stops_where_it_is_full)
{
    stop_at_v2(_i, 1, "{\"CPU\": 4}");
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    ck_assert_uint_ge(w.lowest_up, 3);
}
END_TEST

/* All ways out. */
START_TEST(gets_out)
{
    stop_at_v2(0, 2, "{\"CPU\": 4}");
    watch();
    if (_i == 0) {
        world_apply(&w, APP("version: v3"));
    } else if (_i == 1) {
        world_apply(&w, APP("version: v1")); /* back */
    } else {
        a.broken = NULL;
        if (_i == 2)
            world_apply(&w, V2); /* once more */
        else
            ck_assert_int_eq(
                rs_controller_roll(w.controller, "x", NULL, RS_CONTROLLER_RESUME, w.now, NULL), 1);
    }
    unsigned inits = a.inits;

    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", _i == 0 ? "v3" : _i == 1 ? "v1" : "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(w.lowest_up, 4);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
    if (_i == 1)
        ck_assert_uint_eq(a.inits, inits); /* the same processes */
}
END_TEST

/* A newer version in the middle of a roll, and back in the middle of that. */
START_TEST(versions_on_versions)
{
    static const char *const texts[] = {APP("version: v1"), APP("version: v2"), APP("version: v3"),
                                        APP("version: v4")};
    uint64_t random = (uint64_t)_i * 7919 + 17;

    start(2, "{\"CPU\": 3}", APP("version: v1"));
    for (int i = 0; i < 12; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        world_apply(&w, texts[(random >> 33) % RS_COUNT(texts)]);
        world_run(&w, (int64_t)((random >> 40) % 900) * RS_MS);
    }
    world_apply(&w, APP("version: v5"));
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v5"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_ge(w.lowest_up, 4);
    ck_assert_uint_le(w.highest_up, 5);
    check_roll("done", "");
}
END_TEST

/* --- pauses and orders --------------------------------------------------------------------------- */

static int order(enum rs_controller_roll what)
{
    struct rs_error err = {0};

    return rs_controller_roll(w.controller, "x", "A", what, w.now, &err) == 1 ? 0 : (int)err.code;
}

#define HALF APP("version: v2, rserve: {rollout: {pause_after: 50%}}")

START_TEST(pauses)
{
    start(2, "{\"CPU\": 4}", APP("version: v1"));
    ck_assert_int_eq(order(RS_CONTROLLER_RESUME), RS_CONFLICT);
    ck_assert_int_eq(order(RS_CONTROLLER_ABORT), RS_CONFLICT);
    world_apply(&w, HALF);
    world_run(&w, 2000 * RS_SEC);
    check_roll("paused", "pause_after");
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 2);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 2);
    ck_assert_ptr_nonnull(strstr(message(), "rserve deploy --resume x"));
    ck_assert(world_kill_one(&w, "A")); /* of either */
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 2);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 2);
    watch();
    ck_assert_int_eq(order(_i ? RS_CONTROLLER_ABORT : RS_CONTROLLER_RESUME), 0);
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", _i ? "v1" : "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(w.lowest_up, 4);
    check_roll(_i ? "stopped" : "done", _i ? "aborted" : "");
    ck_assert_str_eq(world_text(&w, "applications.x.status"), _i ? "DEPLOY_FAILED" : "RUNNING");
}
END_TEST

START_TEST(unknown_names)
{
    struct rs_error err = {0};

    start(1, "{\"CPU\": 8}", APP("version: v1"));
    ck_assert_int_eq(rs_controller_roll(w.controller, "y", NULL, RS_CONTROLLER_ABORT, w.now, &err),
                     -1);
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
    ck_assert_int_eq(rs_controller_roll(w.controller, "x", "B", RS_CONTROLLER_ABORT, w.now, &err),
                     -1);
    ck_assert_int_eq(err.code, RS_NOT_FOUND);
}
END_TEST

/* --- heads and nodes that go --------------------------------------------------------------------- */

/* The head is killed at every stage of a roll: no process is lost, and it comes to its end. */
START_TEST(head_restarts)
{
    start(2, "{\"CPU\": 4}", APP("version: v1"));
    world_apply(&w, APP("version: v2"));
    world_run(&w, _i * 100 * RS_MS);
    restart_head(APP("version: v2"), 2, "{\"CPU\": 4}");
    world_run(&w, 60 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(w.lowest_up, 4);
    ck_assert_uint_le(w.highest_up, 5);
    ck_assert_uint_eq(a.inits, 8);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

/* One that is stopped stays so, and its old version can be started again. */
START_TEST(head_restarts_while_stopped)
{
    stop_at_v2(_i, 2, "{\"CPU\": 4}");
    unsigned inits = a.inits;

    watch();
    restart_head(V2, 2, "{\"CPU\": 4}");
    world_run(&w, 60 * RS_SEC);
    check_roll("stopped", ills[_i].why);
    ck_assert_uint_eq(a.inits, inits); /* the same processes */
    ck_assert_uint_eq(w.lowest_up, 4);
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "DEPLOY_FAILED");
    world_apply(&w, APP("version: v1"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

START_TEST(head_restarts_while_paused)
{
    start(2, "{\"CPU\": 4}", APP("version: v1"));
    world_apply(&w, HALF);
    world_run(&w, 20 * RS_SEC);
    check_roll("paused", "pause_after");
    restart_head(HALF, 2, "{\"CPU\": 4}");
    world_run(&w, 60 * RS_SEC);
    check_roll("paused", "pause_after");
    ck_assert_uint_eq(w.lowest_up, 4);
    ck_assert_uint_eq(a.inits, 6);
    ck_assert_int_eq(order(RS_CONTROLLER_RESUME), 0);
    world_run(&w, 20 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
}
END_TEST

/* A second try has another name: a head that starts anew must know it. */
START_TEST(head_restarts_after_a_second_try)
{
    stop_at_v2(0, 1, "{\"CPU\": 8}");
    a.broken = NULL;
    world_apply(&w, V2);
    world_run(&w, 20 * RS_SEC);
    check_roll("done", "");
    unsigned inits = a.inits;

    restart_head(V2, 1, "{\"CPU\": 8}");
    world_run(&w, 20 * RS_SEC);
    ck_assert_uint_eq(a.inits, inits);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
}
END_TEST

/* A node is lost in the middle: what is missing is started elsewhere, and the roll comes to its end. */
START_TEST(node_lost)
{
    start(3, "{\"CPU\": 4}", APP("version: v1"));
    world_apply(&w, APP("version: v2"));
    world_run(&w, (_i + 1) * 100 * RS_MS);
    world_leave(&w, (unsigned)_i % 3);
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

START_TEST(node_lost_while_stopped)
{
    stop_at_v2(0, 3, "{\"CPU\": 4}");
    for (unsigned i = 0; i < 2; i++) {
        world_leave(&w, i);
        world_run(&w, 30 * RS_SEC);
        ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    }
    check_roll("stopped", "start_failed");
}
END_TEST

/* --- connections that break ---------------------------------------------------------------------- */

#define SPREAD "{\"CPU\": 3}"

/* A node hangs up in the middle and comes back with what it runs, soon or late: nothing was lost by it. */
static const struct {
    const char *name, *resources;
    unsigned nodes;
    int64_t back;
} cuts[] = {
    {"alone", "{\"CPU\": 8}", 1, 100 * RS_MS},
    {"alone, late", "{\"CPU\": 8}", 1, 3 * RS_SEC},
    {"one of three", SPREAD, 3, 100 * RS_MS},
    {"one of three, late", SPREAD, 3, 900 * RS_MS},
    {"one of two, no room elsewhere", SPREAD, 2, 2 * RS_SEC},
};
enum { CUT_TIMES = 14 };

START_TEST(node_cut)
{
    const char *name = cuts[_i / CUT_TIMES].name, *resources = cuts[_i / CUT_TIMES].resources;
    int64_t at = (_i % CUT_TIMES) * 130 * RS_MS;

    start(cuts[_i / CUT_TIMES].nodes, resources, APP("version: v1"));
    world_apply(&w, APP("version: v2"));
    world_run(&w, at);
    if (strcmp(world_text(&w, "applications.x.status"), "RUNNING") == 0)
        return; /* it was over: that is not what this is about */
    w.log[0] = 0;
    world_cut(&w, 0);
    world_run(&w, cuts[_i / CUT_TIMES].back);
    world_join(&w, 0, resources);
    world_run(&w, 30 * RS_SEC);
    ck_assert_msg(w.lowest_up >= 4, "%s, at %d ms: %u", name, (int)(at / RS_MS), w.lowest_up);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_msg(!strstr(w.log, "DEPLOY_FAILED"), "%s", w.log);
    check_roll("done", "");
}
END_TEST

/* The node does not come back: the roll does not wait for it for long. */
START_TEST(node_lost_with_room_elsewhere)
{
    start(2, "{\"CPU\": 8}", APP("version: v1"));
    world_apply(&w, APP("version: v2"));
    world_run(&w, (_i + 1) * 150 * RS_MS);
    world_leave(&w, 1);
    world_run(&w, 15 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    check_roll("done", "");
}
END_TEST

/* Not all find room without the node: as many run as do, and it goes on when the node is there again. */
START_TEST(node_lost_where_it_is_full)
{
    start(2, SPREAD, APP("version: v1"));
    world_apply(&w, APP("version: v2"));
    world_run(&w, (_i + 1) * 150 * RS_MS);
    world_leave(&w, 1);
    world_run(&w, 20 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    world_join(&w, 1, SPREAD);
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
    check_roll("done", "");
}
END_TEST

/* A newer version is deployed while the node is away. */
START_TEST(deployed_while_cut)
{
    unsigned nodes = _i % 2 ? 1 : 2;

    start(nodes, "{\"CPU\": 8}", APP("version: v1"));
    if (_i < 2)
        world_apply(&w, APP("version: v2"));
    world_run(&w, 400 * RS_MS);
    world_cut(&w, 0);
    world_apply(&w, APP("version: v3"));
    world_run(&w, 200 * RS_MS);
    world_join(&w, 0, "{\"CPU\": 8}");
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_ge(w.lowest_up, 4);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v3"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    check_roll("done", "");
}
END_TEST

/* One that is paused, or was stopped, is what it was, with the same processes or as many. */
START_TEST(cut_while_it_rests)
{
    start(2, SPREAD, APP("version: v1"));
    if (_i)
        a.broken = "v2";
    world_apply(&w, _i ? V2 : HALF);
    world_run(&w, 60 * RS_SEC);
    check_roll(_i ? "stopped" : "paused", _i ? "start_failed" : "pause_after");
    rs_auto(rs_freep) char *said = rs_strdup(message());

    watch();
    for (unsigned n = 0; n < 2; n++) {
        world_cut(&w, n);
        world_run(&w, 500 * RS_MS);
        world_join(&w, n, SPREAD);
        world_run(&w, 30 * RS_SEC);
        check_roll(_i ? "stopped" : "paused", _i ? "start_failed" : "pause_after");
        ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), _i ? 4 : 2);
        ck_assert_uint_eq(world_admitted(&w, "A"), 4);
        ck_assert_str_eq(message(), said);
    }
    ck_assert_uint_eq(w.lowest_up, 4);
}
END_TEST

/* Deleted in the middle: nothing is left, also of the old version. */
START_TEST(deleted)
{
    start(2, "{\"CPU\": 4}", APP("version: v1"));
    world_apply(&w, _i == 1 ? HALF : APP("version: v2"));
    world_run(&w, (_i + 1) * 150 * RS_MS);
    world_apply(&w, GONE);
    world_run(&w, 60 * RS_SEC);
    ck_assert_uint_eq(world_size(&w, "applications"), 0);
    ck_assert_uint_eq(world_processes(&w), 0);
    world_apply(&w, APP("version: v1"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
}
END_TEST

/* Replicas die at any time, of any version; when that ends, it comes to its end. */
START_TEST(deaths_in_the_middle)
{
    uint64_t random = (uint64_t)_i * 104729 + 3;

    start(2, "{\"CPU\": 3}", APP("version: v1"));
    world_apply(&w, APP("version: v2"));
    for (int i = 0; i < 8; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        world_run(&w, (int64_t)((random >> 40) % 300) * RS_MS);
        (void)world_kill_one(&w, "A");
    }
    world_run(&w, 100 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(world_admitted_of(&w, "A", "v2"), 4);
}
END_TEST

/* --- gangs --------------------------------------------------------------------------------------- */

#define GANGS(options) APP("gang_scheduling_config: {gang_size: 2}, " options)

START_TEST(gangs)
{
    start(3, "{\"CPU\": 2}", GANGS("version: v1"));
    if (_i == 1)
        a.broken = "v2";
    world_apply(&w, GANGS("version: v2"));
    world_run(&w, 60 * RS_SEC);
    ck_assert_uint_eq(world_admitted_of(&w, "A", _i ? "v1" : "v2"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(w.lowest_up, 4);
    ck_assert_uint_le(w.highest_up, 6);
    check_roll(_i ? "stopped" : "done", _i ? "start_failed" : "");
    if (_i == 1) {
        ck_assert(world_kill_one(&w, "A"));
        world_run(&w, 30 * RS_SEC);
        ck_assert_uint_eq(world_admitted_of(&w, "A", "v1"), 4);
    }
}
END_TEST

RS_CHECK_MAIN(
    "rolls", tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_loop_test(tc, rolls_over, 0, RS_COUNT(rolls)); tcase_add_test(tc, waits_for_room);
    tcase_add_test(tc, never_fits); tcase_add_loop_test(tc, stops, 0, RS_COUNT(ills));
    tcase_add_loop_test(tc, stops_where_it_is_full, 0, RS_COUNT(ills));
    tcase_add_loop_test(tc, gets_out, 0, 4); tcase_add_loop_test(tc, versions_on_versions, 0, 30);
    tcase_add_loop_test(tc, pauses, 0, 2); tcase_add_test(tc, unknown_names);
    tcase_add_loop_test(tc, head_restarts, 0, 25);
    tcase_add_loop_test(tc, head_restarts_while_stopped, 0, RS_COUNT(ills));
    tcase_add_test(tc, head_restarts_while_paused);
    tcase_add_test(tc, head_restarts_after_a_second_try); tcase_add_loop_test(tc, node_lost, 0, 15);
    tcase_add_test(tc, node_lost_while_stopped);
    tcase_add_loop_test(tc, node_cut, 0, RS_COUNT(cuts) * CUT_TIMES);
    tcase_add_loop_test(tc, node_lost_with_room_elsewhere, 0, 8);
    tcase_add_loop_test(tc, node_lost_where_it_is_full, 0, 4);
    tcase_add_loop_test(tc, deployed_while_cut, 0, 4);
    tcase_add_loop_test(tc, cut_while_it_rests, 0, 2); tcase_add_loop_test(tc, deleted, 0, 8);
    tcase_add_loop_test(tc, deaths_in_the_middle, 0, 20); tcase_add_loop_test(tc, gangs, 0, 2);)
