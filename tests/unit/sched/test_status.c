/* Every row x every event with its message, and what an application is then. */
#include "sched/status.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

/* In the order of RS_STATUS_ROWS. */
static const struct rs_status rows[RS_STATUS_ROW_COUNT] = {
    {RS_DEPLOYMENT_UPDATING, RS_TRIGGER_CONFIG_UPDATE_STARTED},
    {RS_DEPLOYMENT_UPDATING, RS_TRIGGER_DELETING},
    {RS_DEPLOYMENT_HEALTHY, RS_TRIGGER_CONFIG_UPDATE_COMPLETED},
    {RS_DEPLOYMENT_UNHEALTHY, RS_TRIGGER_HEALTH_CHECK_FAILED},
    {RS_DEPLOYMENT_DEPLOY_FAILED, RS_TRIGGER_REPLICA_STARTUP_FAILED},
    {RS_DEPLOYMENT_UPSCALING, RS_TRIGGER_CONFIG_UPDATE_STARTED},
    {RS_DEPLOYMENT_DOWNSCALING, RS_TRIGGER_CONFIG_UPDATE_STARTED},
    {RS_DEPLOYMENT_UPSCALING, RS_TRIGGER_AUTOSCALING},
    {RS_DEPLOYMENT_DOWNSCALING, RS_TRIGGER_AUTOSCALING},
};
/* UPDATING HEALTHY UNHEALTHY DEPLOY_FAILED UPSCALING DOWNSCALING */
static const char *const initials[] = {"U", "H", "X", "F", "+", "-"};

#define ALL(text) text, text, text, text, text, text, text, text, text
#define UP "+ CONFIG_UPDATE_STARTED"
#define DOWN "- CONFIG_UPDATE_STARTED"

/* One line per event: what it leads to from each row ("." nothing new), and what is said. */
static const struct {
    enum rs_status_event event;
    const char *after[RS_STATUS_ROW_COUNT];
    const char *message;
} lines[] = {
    /* UPDATING, DELETING, HEALTHY, UNHEALTHY, DEPLOY_FAILED, UP, DOWN, auto UP, auto DOWN */
    {RS_STATUS_CONFIG, {ALL("U CONFIG_UPDATE_STARTED")}, ""},
    {RS_STATUS_SCALE_UP,
     {".", ".", UP, ".", ".", UP, UP, UP, UP},
     "Upscaling from 1 to 3 replicas."},
    {RS_STATUS_SCALE_DOWN,
     {".", ".", DOWN, ".", ".", DOWN, DOWN, DOWN, DOWN},
     "Downscaling from 1 to 3 replicas."},
    {RS_STATUS_AUTOSCALE_UP,
     {"+ AUTOSCALING", ".", "+ AUTOSCALING", ".", ".", ".", ".", "+ AUTOSCALING", "+ AUTOSCALING"},
     "Upscaling from 1 to 3 replicas."},
    {RS_STATUS_AUTOSCALE_DOWN,
     {"- AUTOSCALING", ".", "- AUTOSCALING", ".", ".", ".", ".", "- AUTOSCALING", "- AUTOSCALING"},
     "Downscaling from 1 to 3 replicas."},
    {RS_STATUS_ALL_RUNNING,
     {"H CONFIG_UPDATE_COMPLETED", ".", ".", "H UNSPECIFIED", "H UNSPECIFIED",
      "H UPSCALE_COMPLETED", "H DOWNSCALE_COMPLETED", "H UPSCALE_COMPLETED",
      "H DOWNSCALE_COMPLETED"},
     ""},
    {RS_STATUS_HEALTH_FAILED,
     {"F HEALTH_CHECK_FAILED", ".", "X HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED",
      "F HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED",
      "X HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED"},
     "A replica's health check failed. This deployment will be UNHEALTHY until the replica "
     "recovers "
     "or a new deploy happens. Error:\nbad luck"},
    {RS_STATUS_START_FAILED,
     {"F REPLICA_STARTUP_FAILED", ".", "X REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED",
      "F REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED",
      "X REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED"},
     "The deployment failed to start 4 times in a row. This may be due to a problem with its "
     "constructor or initial health check failing. See controller logs for details. Error:\nbad "
     "luck"},
    {RS_STATUS_ACTOR_FAILED,
     {"F DEPLOYMENT_ACTOR_FAILED", ".", "X DEPLOYMENT_ACTOR_FAILED", "X DEPLOYMENT_ACTOR_FAILED",
      "F DEPLOYMENT_ACTOR_FAILED", "X DEPLOYMENT_ACTOR_FAILED", "X DEPLOYMENT_ACTOR_FAILED",
      "X DEPLOYMENT_ACTOR_FAILED", "X DEPLOYMENT_ACTOR_FAILED"},
     "An actor of the deployment failed. Error:\nbad luck"},
    {RS_STATUS_INTERNAL_ERROR, {ALL("X INTERNAL_ERROR")}, "Failed to update deployment:\nbad luck"},
    {RS_STATUS_DELETE,
     {"U DELETING", ".", "U DELETING", "U DELETING", "U DELETING", "U DELETING", "U DELETING",
      "U DELETING", "U DELETING"},
     ""},
};

START_TEST(steps)
{
    const struct rs_status_facts facts = {.from = 1, .to = 3, .failures = 4, .error = "bad luck"};
    rs_auto(rs_freep) char *message = rs_status_message(lines[_i].event, &facts);

    ck_assert_uint_eq(RS_COUNT(lines), RS_STATUS_EVENT_COUNT);
    ck_assert_int_eq(lines[_i].event, _i);
    ck_assert_str_eq(message, lines[_i].message);
    for (unsigned row = 0; row < RS_STATUS_ROW_COUNT; row++) {
        struct rs_status s = rows[row];
        enum rs_status_outcome outcome = rs_status_step(&s, lines[_i].event);
        char got[64] = ".";

        ck_assert_int_eq(rs_status_row(&rows[row]), row);
        ck_assert_int_ne(outcome, RS_STATUS_DEFECT); /* the table has every cell */
        if (outcome == RS_STATUS_MOVED)
            snprintf(got, sizeof(got), "%s %s", initials[s.status], rs_trigger_name(s.trigger));
        else
            ck_assert(s.status == rows[row].status && s.trigger == rows[row].trigger);
        ck_assert_msg(strcmp(got, lines[_i].after[row]) == 0, "row %u: %s, not %s", row, got,
                      lines[_i].after[row]);
    }
}
END_TEST

START_TEST(unknown_pairs_are_told)
{
    struct rs_status s = {RS_DEPLOYMENT_HEALTHY, RS_TRIGGER_UNSPECIFIED};
    struct rs_status strange = {(enum rs_deployment_status)99, RS_TRIGGER_UNSPECIFIED};
    enum rs_app_status app = RS_APP_NOT_STARTED;

    ck_assert_int_eq(rs_status_step(&s, (enum rs_status_event)99), RS_STATUS_DEFECT);
    ck_assert_int_eq(s.status, RS_DEPLOYMENT_HEALTHY);
    ck_assert_int_eq(rs_status_step(&strange, RS_STATUS_CONFIG), RS_STATUS_DEFECT);
    ck_assert_int_eq(rs_app_status_step(&app, RS_APP_EVENT_DELETE), RS_STATUS_DEFECT);
    ck_assert_int_eq(rs_app_status_step(&app, (enum rs_app_event)99), RS_STATUS_DEFECT);
    ck_assert_int_eq(app, RS_APP_NOT_STARTED);
}
END_TEST

START_TEST(messages_without_facts)
{
    const struct rs_status_facts none = {0};
    rs_auto(rs_freep) char *ill = rs_status_message(RS_STATUS_HEALTH_FAILED, &none);
    rs_auto(rs_freep) char *start = rs_status_message(RS_STATUS_START_FAILED, &none);

    ck_assert_ptr_nonnull(strstr(ill, "a new deploy happens."));
    ck_assert_ptr_null(strstr(ill, "Error"));
    ck_assert_ptr_nonnull(strstr(start, "Error:\nunknown"));
}
END_TEST

START_TEST(autoscaler_may_change_its_mind)
{
    struct rs_status s = {RS_DEPLOYMENT_HEALTHY, RS_TRIGGER_CONFIG_UPDATE_COMPLETED};

    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_AUTOSCALE_UP), RS_STATUS_MOVED);
    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_AUTOSCALE_DOWN), RS_STATUS_MOVED);
    ck_assert_int_eq(s.status, RS_DEPLOYMENT_DOWNSCALING);
    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_SCALE_UP), RS_STATUS_MOVED); /* a person */
    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_AUTOSCALE_DOWN), RS_STATUS_SAME);
}
END_TEST

START_TEST(nothing_but_deletion_while_deleting)
{
    struct rs_status s = {RS_DEPLOYMENT_HEALTHY, RS_TRIGGER_CONFIG_UPDATE_COMPLETED};

    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_DELETE), RS_STATUS_MOVED);
    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_ALL_RUNNING), RS_STATUS_SAME);
    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_HEALTH_FAILED), RS_STATUS_SAME);
    ck_assert_int_eq(rs_status_step(&s, RS_STATUS_CONFIG), RS_STATUS_MOVED); /* wanted again */
    ck_assert_int_eq(s.trigger, RS_TRIGGER_CONFIG_UPDATE_STARTED);
}
END_TEST

/* --- an application --- */

static const struct {
    enum rs_app_event event;
    enum rs_app_status to;
    const char *message;
} app_lines[] = {
    {RS_APP_EVENT_BUILD, RS_APP_DEPLOYING, "installs numpy"},
    {RS_APP_EVENT_REFUSED, RS_APP_DEPLOY_FAILED, "bad luck"},
    {RS_APP_EVENT_UPDATING, RS_APP_DEPLOYING, ""},
    {RS_APP_EVENT_RUNNING, RS_APP_RUNNING, ""},
    {RS_APP_EVENT_ILL, RS_APP_UNHEALTHY, "The deployments ['A'] are UNHEALTHY."},
    {RS_APP_EVENT_FAILED, RS_APP_DEPLOY_FAILED, "Failed to update the deployments ['A']."},
    {RS_APP_EVENT_DELETE, RS_APP_DELETING, ""},
};

START_TEST(app_steps)
{
    const struct rs_status_facts facts = {
        .error = "bad luck", .list = "['A']", .progress = "installs numpy"};
    rs_auto(rs_freep) char *message = rs_app_status_message(app_lines[_i].event, &facts);

    ck_assert_uint_eq(RS_COUNT(app_lines), RS_APP_EVENT_COUNT);
    ck_assert_int_eq(app_lines[_i].event, _i);
    ck_assert_str_eq(message, app_lines[_i].message);
    for (int from = 0; from < RS_APP_STATUS_COUNT; from++) {
        enum rs_app_status s = (enum rs_app_status)from;
        bool unknown = from == RS_APP_NOT_STARTED && app_lines[_i].event == RS_APP_EVENT_DELETE;

        ck_assert_int_eq(rs_app_status_step(&s, app_lines[_i].event),
                         unknown                         ? RS_STATUS_DEFECT
                         : from == (int)app_lines[_i].to ? RS_STATUS_SAME
                                                         : RS_STATUS_MOVED);
        ck_assert_int_eq(s, unknown ? RS_APP_NOT_STARTED : app_lines[_i].to);
    }
}
END_TEST

static const struct {
    struct rs_status of[3];
    size_t n;
    enum rs_app_event app;
} apps[] = {
    {{{0}}, 0, RS_APP_EVENT_RUNNING},
    {{{RS_DEPLOYMENT_HEALTHY, 0}, {RS_DEPLOYMENT_HEALTHY, 0}}, 2, RS_APP_EVENT_RUNNING},
    {{{RS_DEPLOYMENT_HEALTHY, 0}, {RS_DEPLOYMENT_UPDATING, 0}}, 2, RS_APP_EVENT_UPDATING},
    {{{RS_DEPLOYMENT_UPSCALING, RS_TRIGGER_CONFIG_UPDATE_STARTED}}, 1, RS_APP_EVENT_UPDATING},
    {{{RS_DEPLOYMENT_UPSCALING, RS_TRIGGER_AUTOSCALING}}, 1, RS_APP_EVENT_RUNNING},
    {{{RS_DEPLOYMENT_DOWNSCALING, RS_TRIGGER_AUTOSCALING}}, 1, RS_APP_EVENT_RUNNING},
    {{{RS_DEPLOYMENT_UPDATING, 0}, {RS_DEPLOYMENT_UNHEALTHY, 0}}, 2, RS_APP_EVENT_ILL},
    {{{RS_DEPLOYMENT_UNHEALTHY, 0}, {RS_DEPLOYMENT_UPDATING, 0}}, 2, RS_APP_EVENT_ILL},
    {{{RS_DEPLOYMENT_UNHEALTHY, 0}, {RS_DEPLOYMENT_DEPLOY_FAILED, 0}}, 2, RS_APP_EVENT_FAILED},
};

START_TEST(worst_deployment_counts)
{
    ck_assert_int_eq(rs_app_event_of(apps[_i].of, apps[_i].n), apps[_i].app);
}
END_TEST

RS_CHECK_MAIN("status", tcase_add_loop_test(tc, steps, 0, RS_COUNT(lines));
              tcase_add_test(tc, unknown_pairs_are_told);
              tcase_add_test(tc, messages_without_facts);
              tcase_add_test(tc, autoscaler_may_change_its_mind);
              tcase_add_test(tc, nothing_but_deletion_while_deleting);
              tcase_add_loop_test(tc, app_steps, 0, RS_COUNT(app_lines));
              tcase_add_loop_test(tc, worst_deployment_counts, 0, RS_COUNT(apps));)
