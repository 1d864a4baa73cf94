/* Controller and agents with a load: how many replicas there are, which go, and what is told of it. */
#include "core/base/json.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;
static struct behaviour a = {.deployment = "A"};

#define D "applications.x.deployments.A"
#define APP(app_options, options)                                                                  \
    "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n" app_options             \
    "  deployments:\n  - {name: A, " options "}\n"
#define SCALES(more)                                                                               \
    APP("", "autoscaling_config: {target_ongoing_requests: 1, look_back_period_s: 1, "             \
            "upscale_delay_s: 2, downscale_delay_s: 5, " more "}")

static void open_with(unsigned load, unsigned room)
{
    a = (struct behaviour){.deployment = "A", .load = load, .room = room, .area_at = RS_SEC};
    world_open(&w, &a, 1);
    world_join(&w, 0, "{\"CPU\": 8}");
}

static void teardown(void)
{
    world_close(&w);
}

static void check(const char *path, const char *want)
{
    const char *got = world_text(&w, path);

    ck_assert_msg(strcmp(got, want) == 0, "%s is '%s', not '%s'\n%s", path, got, want, w.log);
}

START_TEST(up)
{
    open_with(0, 2);
    world_apply(&w, SCALES("min_replicas: 1, max_replicas: 3"));
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    check(D ".autoscaling_detail.scaling_status", "STABLE");
    world_load(&w, "A", 12);
    world_run(&w, RS_SEC);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 1);
    ck_assert_ptr_nonnull(strstr(world_text(&w, D ".rserve.autoscaling"), "upscale_delay_s 2 s"));
    world_run(&w, 1300 * RS_MS);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 3);
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    check(D ".status", "HEALTHY");
    check(D ".status_trigger", "UPSCALE_COMPLETED");
    ck_assert_ptr_nonnull(strstr(w.log, "x#A=UPSCALING"));
    ck_assert_ptr_null(strstr(strstr(w.log, "x=RUNNING") + 9, "x=")); /* it never leaves RUNNING */
    ck_assert_ptr_nonnull(strstr(w.log, "Upscaling Deployment(name='A', app='x') from 1 to 3 "
                                        "replicas. Current ongoing requests: 12.00, current "
                                        "running replicas: 1."));
    ck_assert_uint_eq(world_size(&w, D ".autoscaling_detail.decisions"), 1);
    ck_assert_int_eq(world_int(&w, D ".autoscaling_detail.decisions.0.prev_num_replicas"), 1);
    ck_assert_int_eq(world_int(&w, D ".autoscaling_detail.decisions.0.curr_num_replicas"), 3);
}
END_TEST

/* Of three the one with work stays, whatever its rank; then ranks close up. */
START_TEST(down_idle_first)
{
    open_with(1, 0); /* all of it at the highest rank */
    world_apply(&w, SCALES("min_replicas: 1, initial_replicas: 3, max_replicas: 3"));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    const char *id = NULL;
    char busy[16] = "";

    for (int i = 0; i < 3; i++) {
        char path[80];

        snprintf(path, sizeof(path), D ".replicas.%d.rserve.in_flight", i);
        if (world_int(&w, path) == 0)
            continue;
        snprintf(path, sizeof(path), D ".replicas.%d.replica_id", i);
        id = world_text(&w, path);
        snprintf(busy, sizeof(busy), "%s", id);
    }
    ck_assert_ptr_nonnull(id);
    world_run(&w, 10 * RS_SEC);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 1);
    ck_assert_uint_eq(world_size(&w, D ".replicas"), 1);
    check(D ".replicas.0.replica_id", busy);
    ck_assert_int_eq(world_int(&w, D ".replicas.0.rserve.rank"), 0);
    check(D ".status", "HEALTHY");
    check(D ".status_trigger", "DOWNSCALE_COMPLETED");
}
END_TEST

/* All are idle: the one with a model loaded stays, though its rank is the highest. */
START_TEST(down_warm_last)
{
    char warm[16];

    open_with(0, 1);
    a.warm = 2;
    world_apply(&w, SCALES("min_replicas: 1, initial_replicas: 3, max_replicas: 3"));
    world_run(&w, RS_SEC);
    for (int i = 0; i < 3; i++) {
        char path[80];

        snprintf(path, sizeof(path), D ".replicas.%d.rserve.rank", i);
        if (world_int(&w, path) != 2)
            continue;
        snprintf(path, sizeof(path), D ".replicas.%d.replica_id", i);
        snprintf(warm, sizeof(warm), "%s", world_text(&w, path));
    }
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(world_size(&w, D ".replicas"), 1);
    check(D ".replicas.0.replica_id", warm);
}
END_TEST

START_TEST(zero_and_back)
{
    open_with(0, 1);
    a.start = 300 * RS_MS;
    world_apply(&w, SCALES("min_replicas: 0, initial_replicas: 1, max_replicas: 2, "
                           "downscale_to_zero_delay_s: 8"));
    world_run(&w, 4 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    world_run(&w, 6 * RS_SEC);
    ck_assert_uint_eq(world_processes(&w), 1); /* the zygote */
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 0);
    check(D ".status", "HEALTHY");
    check("applications.x.status", "RUNNING");
    world_load(&w, "A", 1);
    world_run(&w, 2 * RS_MS);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 1);
    check(D ".status", "UPSCALING");
    world_run(&w, 400 * RS_MS);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    check(D ".status", "HEALTHY");
}
END_TEST

/* min_replicas 0 and nothing else: it starts asleep, healthy, and wakes. */
START_TEST(starts_at_zero)
{
    open_with(0, 1);
    world_apply(&w, SCALES("min_replicas: 0, max_replicas: 2"));
    world_run(&w, RS_SEC);
    check("applications.x.status", "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 0);
    world_load(&w, "A", 1);
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

/* The world begins at 01:46:41 UTC; now is this many seconds after 01:46:40. */
static void until(unsigned seconds)
{
    world_run(&w, seconds * RS_SEC - w.now);
}

#define AHEAD(more, ahead)                                                                         \
    APP("",                                                                                        \
        "autoscaling_config: {target_ongoing_requests: 1, look_back_period_s: 1, "                 \
        "upscale_delay_s: 2, downscale_delay_s: 5, " more "}, rserve: {autoscaling: {" ahead "}}")
#define AT_TEN_TO                                                                                  \
    AHEAD("min_replicas: 1, max_replicas: 5",                                                      \
          "schedule: [{cron: '0 0 * * *', min_replicas: 2}, "                                      \
          "{cron: '50 1 * * *', min_replicas: 4, duration_s: 100}]")

START_TEST(schedule)
{
    open_with(0, 1);
    world_apply(&w, AT_TEN_TO);
    world_run(&w, 100 * RS_MS);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 2); /* since midnight */
    ck_assert_ptr_null(strstr(w.log, "Upscaling"));
    until(199);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    until(202);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_ptr_nonnull(strstr(world_text(&w, D ".autoscaling_detail.decisions.0.reason"),
                                 "schedule[1] (50 1 * * *, UTC) asks for 4"));
    ck_assert_ptr_nonnull(strstr(world_text(&w, D ".rserve.autoscaling"),
                                 "at least 4: schedule[1] (50 1 * * *, UTC) asks for 4"));
    /* no load at all, and yet they stay */
    until(299);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    /* it is over: they go as those that are too much always go */
    until(304);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 4);
    until(308);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 2);
}
END_TEST

/* What begins while an entry is in force begins with its number; other configurations count at once. */
START_TEST(schedule_in_force)
{
    open_with(0, 1);
    until(210);
    world_apply(&w, AT_TEN_TO);
    world_run(&w, 100 * RS_MS);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 4);
    world_apply(&w, AHEAD("min_replicas: 1, max_replicas: 3",
                          "schedule: [{cron: '50 1 * * *', min_replicas: 3}]"));
    world_run(&w, 100 * RS_MS);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 3);
    world_apply(&w, AHEAD("min_replicas: 1, max_replicas: 5",
                          "schedule: [{cron: '51 1 * * *', min_replicas: 5}]"));
    world_run(&w, 100 * RS_MS);
    until(258);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 5); /* of yesterday */
    world_apply(&w, AHEAD("min_replicas: 0, max_replicas: 5",
                          "schedule: [{cron: '50 1 * * *', min_replicas: 0}]"));
    world_run(&w, 100 * RS_MS);
    until(280);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 0); /* below min_replicas, too */
}
END_TEST

/* A second of now is 5 minutes of a day: what came after 100 s comes again after 388. */
START_TEST(prediction)
{
    unsigned waited[2] = {0};

    open_with(0, 1);
    world_apply(&w, AHEAD("min_replicas: 1, max_replicas: 5",
                          "predict: {period: 288, ahead: 5, periods: 2}"));
    for (unsigned period = 0; period < 2; period++) {
        until(288 * period + 99);
        ck_assert_uint_eq(world_admitted(&w, "A"), period ? 4 : 1);
        until(288 * period + 101);
        world_load(&w, "A", 4);
        for (int i = 0; i < 20; i++) { /* requests that wait, each half second */
            world_run(&w, RS_SEC / 2);
            waited[period] +=
                4 - (unsigned)(world_admitted(&w, "A") < 4 ? world_admitted(&w, "A") : 4);
        }
        until(288 * period + 150);
        world_load(&w, "A", 0);
        until(288 * period + 170);
        ck_assert_uint_eq(world_admitted(&w, "A"), 1); /* and they go as always */
        if (period)
            break;
        until(288 + 94);
        ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 1);
    }
    ck_assert_uint_gt(waited[0], 0);
    ck_assert_uint_eq(waited[1], 0);
    ck_assert_ptr_nonnull(strstr(w.log, "Upscaling"));
}
END_TEST

START_TEST(prediction_is_kept)
{
    rs_auto(rs_json_decrefp) json_t *kept = NULL;

    open_with(0, 1);
    world_apply(&w, AHEAD("min_replicas: 1, max_replicas: 5", "predict: {period: 288, ahead: 5}"));
    until(100);
    world_load(&w, "A", 3);
    until(120);
    world_load(&w, "A", 0);
    until(200);
    kept = rs_controller_forecasts(w.controller);
    ck_assert_uint_eq(json_object_size(json_object_get(kept, "x")), 1);
    world_new_head(&w);
    rs_controller_restore_forecasts(w.controller, kept);
    world_join(&w, 0, "{\"CPU\": 8}");
    world_apply(&w, AHEAD("min_replicas: 1, max_replicas: 5", "predict: {period: 288, ahead: 5}"));
    until(288 + 99);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
}
END_TEST

START_TEST(apply_again)
{
    open_with(3, 1);
    world_apply(&w, SCALES("min_replicas: 1, max_replicas: 3"));
    world_run(&w, 5 * RS_SEC);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 3);
    /* nothing changed: the number stays */
    world_apply(&w, SCALES("min_replicas: 1, max_replicas: 3"));
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 3);
    /* other bounds count at once */
    world_apply(&w, SCALES("min_replicas: 1, max_replicas: 2"));
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 2);
    /* initial_replicas counts when the configuration changes */
    world_apply(&w, SCALES("min_replicas: 1, initial_replicas: 4, max_replicas: 5"));
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 4);
    world_apply(&w, APP("", "num_replicas: 1"));
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 1);
    world_run(&w, 60 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    ck_assert_uint_eq(world_size(&w, D ".autoscaling_detail"), 0);
}
END_TEST

START_TEST(target_capacity)
{
    open_with(0, 1);
    world_apply(&w, "target_capacity: 50\n" SCALES(
                        "min_replicas: 1, initial_replicas: 4, max_replicas: 6"));
    world_run(&w, 30 * RS_SEC); /* it rises: the initial number is the least */
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    world_apply(&w, "target_capacity: 100\n" SCALES(
                        "min_replicas: 1, initial_replicas: 4, max_replicas: 6"));
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    world_apply(&w, SCALES("min_replicas: 1, initial_replicas: 4, max_replicas: 6"));
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    world_apply(
        &w, "target_capacity: 0\n" SCALES("min_replicas: 1, initial_replicas: 4, max_replicas: 6"));
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 0);
}
END_TEST

/* A node that dies under load: the number that should be does not fall because fewer run. */
START_TEST(node_lost)
{
    open_with(4, 2);
    world_join(&w, 1, "{\"CPU\": 8}");
    world_apply(&w, SCALES("min_replicas: 1, initial_replicas: 4, max_replicas: 4"));
    world_run(&w, 3 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    world_leave(&w, 1);
    world_run(&w, 3 * RS_SEC);
    ck_assert_int_eq(world_int(&w, D ".target_num_replicas"), 4);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
}
END_TEST

/* --- by the user's own policy -------------------------------------------------------------------- */

#define POLICY                                                                                     \
    APP("", "autoscaling_config: {target_ongoing_requests: 1, look_back_period_s: 1, "             \
            "upscale_delay_s: 0, downscale_delay_s: 0, min_replicas: 1, max_replicas: 5, "         \
            "policy: {policy_function: 'm:policy'}}")
#define ERRORS D ".autoscaling_detail.errors"

static void open_policy(double wants, unsigned load)
{
    open_with(load, 1);
    w.policy.wants = wants;
    world_apply(&w, POLICY);
    world_run(&w, 3 * RS_SEC);
}

static unsigned asked_in(int64_t ns)
{
    unsigned before = w.policy.asked;

    world_run(&w, ns);
    return w.policy.asked - before;
}

START_TEST(policy_decides)
{
    open_policy(2.5, 0);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    check(D ".autoscaling_detail.decisions.0.policy", "m:policy");
    w.policy.wants = 99;
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 5);
    ck_assert_uint_le(asked_in(10 * RS_SEC), 11);
    ck_assert_uint_ge(asked_in(10 * RS_SEC), 9);
    world_load(&w, "A", 3);
    ck_assert_uint_ge(asked_in(200 * RS_MS), 1); /* soon after something changed */
    ck_assert_uint_le(asked_in(RS_SEC), 11);
    ck_assert_uint_eq(world_size(&w, ERRORS), 0);
}
END_TEST

START_TEST(policy_raises)
{
    open_policy(3, 1);
    w.policy.error = "ValueError: no idea";
    world_run(&w, 20 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3); /* though one request needs one */
    check(ERRORS ".0", "ValueError: no idea");
    ck_assert_ptr_nonnull(strstr(world_text(&w, D ".rserve.autoscaling"), "the number stays"));
    w.policy.error = NULL;
    w.policy.wants = 2;
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_eq(world_size(&w, ERRORS), 0);
    ck_assert_ptr_nonnull(strstr(w.log, "answers again"));
}
END_TEST

START_TEST(policy_is_silent)
{
    open_policy(3, 1);
    w.policy.wants = -1;
    world_run(&w, 3 * RS_SEC); /* asked within 1 s, no answer in another */
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    check(ERRORS ".0", "no answer within 1 s");
    check(D ".autoscaling_detail.metrics_health", "unavailable");
    world_load(&w, "A", 4);
    world_run(&w, 3 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    w.policy.wants = 2;
    world_run(&w, 31 * RS_SEC); /* the question that was lost is given up */
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    check(D ".autoscaling_detail.metrics_health", "healthy");
}
END_TEST

START_TEST(policy_dies)
{
    open_policy(3, 1);
    w.policy.lost = "its process was killed by signal 9";
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    check(ERRORS ".0", "its process was killed by signal 9");
    ck_assert_uint_le(asked_in(10 * RS_SEC), 21);
    w.policy.lost = NULL;
    world_run(&w, 2 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
}
END_TEST

START_TEST(policy_moves)
{
    open_policy(3, 1);
    ck_assert_str_eq(w.policy.node, "n0");
    world_join(&w, 1, "{\"CPU\": 8}");
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(w.policy.node, "n0");
    world_leave(&w, 0);
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(w.policy.node, "n1");
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
}
END_TEST

/* --- by hand ------------------------------------------------------------------------------------ */

#define OPEN APP("  external_scaler_enabled: true\n", "num_replicas: 1")

static const char *refusal(const char *app, const char *deployment)
{
    static struct rs_error err;

    err = (struct rs_error){0};
    return rs_controller_scale(w.controller, app, deployment, 3, w.now, &err) < 0 ? err.msg : "";
}

START_TEST(by_hand)
{
    open_with(0, 1);
    world_apply(&w, OPEN);
    world_run(&w, RS_SEC);
    ck_assert_str_eq(refusal("x", "A"), "");
    check(D ".status", "UPSCALING");
    check(D ".message", "Upscaling from 1 to 3 replicas.");
    check("applications.x.status", "DEPLOYING");
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    check(D ".status_trigger", "UPSCALE_COMPLETED");
    ck_assert_int_eq(rs_controller_scale(w.controller, "x", "A", 0, w.now, NULL), 0);
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 0);
    check(D ".status", "HEALTHY");
    world_apply(&w, OPEN); /* the number of the file again */
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

START_TEST(by_hand_refused)
{
    open_with(0, 1);
    ck_assert_str_eq(refusal("x", "A"), "Application or Deployment not found");
    world_apply(&w, APP("", "num_replicas: 1"));
    world_run(&w, RS_SEC);
    ck_assert_str_eq(refusal("x", "B"), "Application or Deployment not found");
    ck_assert_ptr_nonnull(
        strstr(refusal("x", "A"), "Current value: external_scaler_enabled=false"));
    world_apply(&w, OPEN);
    rs_controller_delete_all(w.controller, w.now);
    ck_assert_str_eq(refusal("x", "A"), "Deployment is deleted");
}
END_TEST

/* A head that starts anew goes on with the number that there is, as far as it may. */
static const struct {
    const char *again;
    unsigned lowest;
} restarts[] = {
    {SCALES("min_replicas: 1, max_replicas: 3"), 3},
    {SCALES("min_replicas: 1, max_replicas: 2"), 2},
    {APP("", "num_replicas: 1"), 1},
};

START_TEST(a_new_head_knows_the_number)
{
    rs_auto(rs_json_decrefp) json_t *desired = NULL;
    const json_t *counts;

    open_with(0, 2);
    world_apply(&w, restarts[0].again);
    world_run(&w, RS_SEC);
    world_load(&w, "A", 12);
    world_run(&w, 4 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    desired = rs_controller_desired(w.controller);
    counts = json_object_get(desired, "counts");
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(counts, "x"), "A")), 3);
    world_new_head(&w);
    rs_controller_restore_counts(w.controller, counts);
    w.watch = "A";
    w.lowest_up = 100;
    world_apply(&w, restarts[_i].again);
    world_join(&w, 0, "{\"CPU\": 8}");
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), restarts[_i].lowest);
    if (_i == 0)
        ck_assert_uint_eq(w.lowest_up, 3);
}
END_TEST

RS_CHECK_MAIN("scale", tcase_add_checked_fixture(tc, NULL, teardown); tcase_add_test(tc, up);
              tcase_add_test(tc, down_idle_first); tcase_add_test(tc, down_warm_last);
              tcase_add_test(tc, zero_and_back); tcase_add_test(tc, starts_at_zero);
              tcase_add_test(tc, schedule); tcase_add_test(tc, schedule_in_force);
              tcase_add_test(tc, prediction); tcase_add_test(tc, prediction_is_kept);
              tcase_add_test(tc, apply_again); tcase_add_test(tc, target_capacity);
              tcase_add_test(tc, node_lost); tcase_add_test(tc, policy_decides);
              tcase_add_test(tc, policy_raises); tcase_add_test(tc, policy_is_silent);
              tcase_add_test(tc, policy_dies); tcase_add_test(tc, policy_moves);
              tcase_add_test(tc, by_hand); tcase_add_test(tc, by_hand_refused);
              tcase_add_loop_test(tc, a_new_head_knows_the_number, 0, RS_COUNT(restarts));)
