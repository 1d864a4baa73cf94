/* Status of a deployment and of an application, as Ray Serve tells them: what is said when what
 * happens. Pure tables.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define RS_DEPLOYMENT_STATUSES(X)                                                                  \
    X(UPDATING) X(HEALTHY) X(UNHEALTHY) X(DEPLOY_FAILED) X(UPSCALING) X(DOWNSCALING)
#define RS_X(name) RS_DEPLOYMENT_##name,
enum rs_deployment_status { RS_DEPLOYMENT_STATUSES(RS_X) RS_DEPLOYMENT_STATUS_COUNT };
#undef RS_X

#define RS_TRIGGERS(X)                                                                             \
    X(UNSPECIFIED)                                                                                 \
    X(CONFIG_UPDATE_STARTED)                                                                       \
    X(CONFIG_UPDATE_COMPLETED)                                                                     \
    X(UPSCALE_COMPLETED)                                                                           \
    X(DOWNSCALE_COMPLETED)                                                                         \
    X(AUTOSCALING)                                                                                 \
    X(REPLICA_STARTUP_FAILED)                                                                      \
    X(HEALTH_CHECK_FAILED)                                                                         \
    X(INTERNAL_ERROR)                                                                              \
    X(DELETING)
#define RS_X(name) RS_TRIGGER_##name,
enum rs_trigger { RS_TRIGGERS(RS_X) RS_TRIGGER_COUNT };
#undef RS_X

#define RS_APP_STATUSES(X)                                                                         \
    X(NOT_STARTED) X(DEPLOYING) X(DEPLOY_FAILED) X(RUNNING) X(UNHEALTHY) X(DELETING)
#define RS_X(name) RS_APP_##name,
enum rs_app_status { RS_APP_STATUSES(RS_X) RS_APP_STATUS_COUNT };
#undef RS_X

const char *rs_deployment_status_name(enum rs_deployment_status s); /* "DEPLOY_FAILED" */
const char *rs_trigger_name(enum rs_trigger t);
const char *rs_app_status_name(enum rs_app_status s);

struct rs_status {
    enum rs_deployment_status status;
    enum rs_trigger trigger;
};

enum rs_status_event {
    RS_STATUS_CONFIG,   /* anything but num_replicas changed */
    RS_STATUS_SCALE_UP, /* only num_replicas changed, by a person */
    RS_STATUS_SCALE_DOWN,
    RS_STATUS_AUTOSCALE_UP,
    RS_STATUS_AUTOSCALE_DOWN,
    RS_STATUS_ALL_RUNNING,   /* every wanted replica runs, none is starting or stopping */
    RS_STATUS_HEALTH_FAILED, /* a replica died or fell ill */
    RS_STATUS_START_FAILED,  /* given up starting */
    RS_STATUS_INTERNAL_ERROR,
    RS_STATUS_DELETE,
    RS_STATUS_EVENT_COUNT
};

/* False: this event says nothing new in this state; *s is untouched. */
bool rs_status_step(struct rs_status *s, enum rs_status_event event);

/* An application is as well as its worst deployment. */
enum rs_app_status rs_app_status_of(const struct rs_status *deployments, size_t n);
