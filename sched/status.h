/* Status of a deployment and of an application, as Ray Serve tells them: one table each of state x
 * event -> state and message. Pure.
 *
 * A pair that the table does not have is a defect of who sends the event: RS_STATUS_DEFECT, nothing
 * changes, and the caller logs it. "Nothing new" is an entry of its own.
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
    X(DEPLOYMENT_ACTOR_FAILED)                                                                     \
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

/* --- a deployment --- */

struct rs_status {
    enum rs_deployment_status status;
    enum rs_trigger trigger;
};

/* What status and trigger make together: the rows of the table. */
#define RS_STATUS_ROWS(X)                                                                          \
    X(UPDATING)                                                                                    \
    X(DELETING) /* UPDATING, as Ray says it */                                                     \
    X(HEALTHY)                                                                                     \
    X(UNHEALTHY)                                                                                   \
    X(DEPLOY_FAILED)                                                                               \
    X(UPSCALING) /* asked for by a person */                                                       \
    X(DOWNSCALING)                                                                                 \
    X(AUTO_UPSCALING) /* by the autoscaler */                                                      \
    X(AUTO_DOWNSCALING)
#define RS_X(name) RS_STATUS_ROW_##name,
enum rs_status_row { RS_STATUS_ROWS(RS_X) RS_STATUS_ROW_COUNT };
#undef RS_X
enum rs_status_row rs_status_row(const struct rs_status *s);

enum rs_status_event {
    RS_STATUS_CONFIG,   /* anything but num_replicas changed */
    RS_STATUS_SCALE_UP, /* only num_replicas changed, by a person */
    RS_STATUS_SCALE_DOWN,
    RS_STATUS_AUTOSCALE_UP,
    RS_STATUS_AUTOSCALE_DOWN,
    RS_STATUS_ALL_RUNNING,   /* every wanted replica runs, none is starting or stopping */
    RS_STATUS_HEALTH_FAILED, /* a replica died or fell ill */
    RS_STATUS_START_FAILED,  /* given up starting */
    RS_STATUS_ACTOR_FAILED,  /* an actor of the deployment failed */
    RS_STATUS_INTERNAL_ERROR,
    RS_STATUS_DELETE,
    RS_STATUS_EVENT_COUNT
};

enum rs_status_outcome {
    RS_STATUS_DEFECT, /* the table does not know the pair */
    RS_STATUS_SAME,   /* this event says nothing new in this state */
    RS_STATUS_MOVED
};

/* *s is untouched unless RS_STATUS_MOVED, which may lead to where it was. */
enum rs_status_outcome rs_status_step(struct rs_status *s, enum rs_status_event event);

/* What the messages of events are made of; what is not needed may be left 0. */
struct rs_status_facts {
    unsigned from, to, failures;
    const char *error;    /* NULL: none */
    const char *list;     /* of an application: "['A', 'B']" */
    const char *app;      /* its name */
    const char *progress; /* of an application: what its build is at */
};

/* What is said beside the status. New. */
char *rs_status_message(enum rs_status_event event, const struct rs_status_facts *f);

/* --- an application --- */

enum rs_app_event {
    RS_APP_EVENT_BUILD,    /* its code is being imported */
    RS_APP_EVENT_REFUSED,  /* that failed, or what it describes makes no sense */
    RS_APP_EVENT_UPDATING, /* the worst of its deployments changes, and a person wanted that */
    RS_APP_EVENT_RUNNING,  /* all are healthy, or the autoscaler alone changes them */
    RS_APP_EVENT_ILL,      /* one is UNHEALTHY */
    RS_APP_EVENT_FAILED,   /* one is DEPLOY_FAILED */
    RS_APP_EVENT_DELETE,
    RS_APP_EVENT_COUNT
};

enum rs_status_outcome rs_app_status_step(enum rs_app_status *s, enum rs_app_event event);
char *rs_app_status_message(enum rs_app_event event, const struct rs_status_facts *f); /* new */
/* An application is as well as its worst deployment. */
enum rs_app_event rs_app_event_of(const struct rs_status *deployments, size_t n);
