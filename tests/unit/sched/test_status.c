/* Every status x every event, and what an application is then. */
#include "sched/status.h"

#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

enum { U, H, X, F, UP, DOWN }; /* UPDATING HEALTHY UNHEALTHY DEPLOY_FAILED UPSCALING DOWNSCALING */
static const char *const initials[] = {"U", "H", "X", "F", "+", "-"};

/* One row per event: status and trigger after it in each of the six states; "." nothing new. */
static const struct {
    enum rs_status_event event;
    const char *after[RS_DEPLOYMENT_STATUS_COUNT];
} rows[] = {
    {RS_STATUS_CONFIG,
     {"U CONFIG_UPDATE_STARTED", "U CONFIG_UPDATE_STARTED", "U CONFIG_UPDATE_STARTED",
      "U CONFIG_UPDATE_STARTED", "U CONFIG_UPDATE_STARTED", "U CONFIG_UPDATE_STARTED"}},
    {RS_STATUS_SCALE_UP,
     {".", "+ CONFIG_UPDATE_STARTED", ".", ".", "+ CONFIG_UPDATE_STARTED",
      "+ CONFIG_UPDATE_STARTED"}},
    {RS_STATUS_SCALE_DOWN,
     {".", "- CONFIG_UPDATE_STARTED", ".", ".", "- CONFIG_UPDATE_STARTED",
      "- CONFIG_UPDATE_STARTED"}},
    {RS_STATUS_AUTOSCALE_UP, {"+ AUTOSCALING", "+ AUTOSCALING", ".", ".", ".", "."}},
    {RS_STATUS_AUTOSCALE_DOWN, {"- AUTOSCALING", "- AUTOSCALING", ".", ".", ".", "."}},
    {RS_STATUS_ALL_RUNNING,
     {"H CONFIG_UPDATE_COMPLETED", ".", "H UNSPECIFIED", "H UNSPECIFIED", "H UPSCALE_COMPLETED",
      "H DOWNSCALE_COMPLETED"}},
    {RS_STATUS_HEALTH_FAILED,
     {"F HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED",
      "F HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED", "X HEALTH_CHECK_FAILED"}},
    {RS_STATUS_START_FAILED,
     {"F REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED",
      "F REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED", "X REPLICA_STARTUP_FAILED"}},
    {RS_STATUS_INTERNAL_ERROR,
     {"X INTERNAL_ERROR", "X INTERNAL_ERROR", "X INTERNAL_ERROR", "X INTERNAL_ERROR",
      "X INTERNAL_ERROR", "X INTERNAL_ERROR"}},
    {RS_STATUS_DELETE,
     {"U DELETING", "U DELETING", "U DELETING", "U DELETING", "U DELETING", "U DELETING"}},
};

START_TEST(steps)
{
    ck_assert_uint_eq(RS_COUNT(rows), RS_STATUS_EVENT_COUNT);
    for (unsigned from = 0; from < RS_DEPLOYMENT_STATUS_COUNT; from++) {
        struct rs_status s = {(enum rs_deployment_status)from, RS_TRIGGER_CONFIG_UPDATE_STARTED};
        char got[64] = ".";

        if (rs_status_step(&s, rows[_i].event))
            snprintf(got, sizeof(got), "%s %s", initials[s.status], rs_trigger_name(s.trigger));
        else
            ck_assert(s.status == from && s.trigger == RS_TRIGGER_CONFIG_UPDATE_STARTED);
        ck_assert_msg(strcmp(got, rows[_i].after[from]) == 0, "%s: %s, not %s", initials[from], got,
                      rows[_i].after[from]);
    }
}
END_TEST

START_TEST(autoscaler_may_change_its_mind)
{
    struct rs_status s = {RS_DEPLOYMENT_HEALTHY, RS_TRIGGER_CONFIG_UPDATE_COMPLETED};

    ck_assert(rs_status_step(&s, RS_STATUS_AUTOSCALE_UP));
    ck_assert(rs_status_step(&s, RS_STATUS_AUTOSCALE_DOWN));
    ck_assert_int_eq(s.status, RS_DEPLOYMENT_DOWNSCALING);
    ck_assert(rs_status_step(&s, RS_STATUS_SCALE_UP)); /* a person goes before it */
    ck_assert(!rs_status_step(&s, RS_STATUS_AUTOSCALE_DOWN));
}
END_TEST

START_TEST(nothing_but_deletion_while_deleting)
{
    struct rs_status s = {RS_DEPLOYMENT_HEALTHY, RS_TRIGGER_CONFIG_UPDATE_COMPLETED};

    ck_assert(rs_status_step(&s, RS_STATUS_DELETE));
    ck_assert(!rs_status_step(&s, RS_STATUS_ALL_RUNNING));
    ck_assert(!rs_status_step(&s, RS_STATUS_HEALTH_FAILED));
    ck_assert(rs_status_step(&s, RS_STATUS_CONFIG)); /* it is wanted again */
    ck_assert_int_eq(s.trigger, RS_TRIGGER_CONFIG_UPDATE_STARTED);
}
END_TEST

static const struct {
    struct rs_status of[3];
    size_t n;
    enum rs_app_status app;
} apps[] = {
    {{{0}}, 0, RS_APP_RUNNING},
    {{{RS_DEPLOYMENT_HEALTHY, 0}, {RS_DEPLOYMENT_HEALTHY, 0}}, 2, RS_APP_RUNNING},
    {{{RS_DEPLOYMENT_HEALTHY, 0}, {RS_DEPLOYMENT_UPDATING, 0}}, 2, RS_APP_DEPLOYING},
    {{{RS_DEPLOYMENT_UPSCALING, RS_TRIGGER_CONFIG_UPDATE_STARTED}}, 1, RS_APP_DEPLOYING},
    {{{RS_DEPLOYMENT_UPSCALING, RS_TRIGGER_AUTOSCALING}}, 1, RS_APP_RUNNING},
    {{{RS_DEPLOYMENT_DOWNSCALING, RS_TRIGGER_AUTOSCALING}}, 1, RS_APP_RUNNING},
    {{{RS_DEPLOYMENT_UPDATING, 0}, {RS_DEPLOYMENT_UNHEALTHY, 0}}, 2, RS_APP_UNHEALTHY},
    {{{RS_DEPLOYMENT_UNHEALTHY, 0}, {RS_DEPLOYMENT_UPDATING, 0}}, 2, RS_APP_UNHEALTHY},
    {{{RS_DEPLOYMENT_UNHEALTHY, 0}, {RS_DEPLOYMENT_DEPLOY_FAILED, 0}}, 2, RS_APP_DEPLOY_FAILED},
};

START_TEST(worst_deployment_counts)
{
    ck_assert_int_eq(rs_app_status_of(apps[_i].of, apps[_i].n), apps[_i].app);
}
END_TEST

RS_CHECK_MAIN("status", tcase_add_loop_test(tc, steps, 0, RS_COUNT(rows));
              tcase_add_test(tc, autoscaler_may_change_its_mind);
              tcase_add_test(tc, nothing_but_deletion_while_deleting);
              tcase_add_loop_test(tc, worst_deployment_counts, 0, RS_COUNT(apps));)
