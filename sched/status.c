#include "sched/status.h"

#include <string.h>

#define RS_X(name) #name,
static const char *const deployment_names[] = {RS_DEPLOYMENT_STATUSES(RS_X)};
static const char *const trigger_names[] = {RS_TRIGGERS(RS_X)};
static const char *const app_names[] = {RS_APP_STATUSES(RS_X)};
#undef RS_X

const char *rs_deployment_status_name(enum rs_deployment_status s)
{
    return deployment_names[s];
}

const char *rs_trigger_name(enum rs_trigger t)
{
    return trigger_names[t];
}

const char *rs_app_status_name(enum rs_app_status s)
{
    return app_names[s];
}

struct move {
    bool any; /* false: ignored */
    struct rs_status to;
};

#define TO(s, t)                                                                                   \
    {                                                                                              \
        true,                                                                                      \
        {                                                                                          \
            RS_DEPLOYMENT_##s, RS_TRIGGER_##t                                                      \
        }                                                                                          \
    }

/* Whatever the status is. */
static const struct move always[RS_STATUS_EVENT_COUNT] = {
    [RS_STATUS_CONFIG] = TO(UPDATING, CONFIG_UPDATE_STARTED),
    [RS_STATUS_INTERNAL_ERROR] = TO(UNHEALTHY, INTERNAL_ERROR),
    [RS_STATUS_DELETE] = TO(UPDATING, DELETING),
};

static const struct move moves[RS_DEPLOYMENT_STATUS_COUNT][RS_STATUS_EVENT_COUNT] =
    {
        [RS_DEPLOYMENT_UPDATING] =
            {
                [RS_STATUS_AUTOSCALE_UP] = TO(UPSCALING, AUTOSCALING),
                [RS_STATUS_AUTOSCALE_DOWN] = TO(DOWNSCALING, AUTOSCALING),
                [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, CONFIG_UPDATE_COMPLETED),
                [RS_STATUS_HEALTH_FAILED] = TO(DEPLOY_FAILED, HEALTH_CHECK_FAILED),
                [RS_STATUS_START_FAILED] = TO(DEPLOY_FAILED, REPLICA_STARTUP_FAILED),
            },
        [RS_DEPLOYMENT_UPSCALING] =
            {
                [RS_STATUS_SCALE_UP] = TO(UPSCALING, CONFIG_UPDATE_STARTED),
                [RS_STATUS_SCALE_DOWN] = TO(DOWNSCALING, CONFIG_UPDATE_STARTED),
                [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UPSCALE_COMPLETED),
                [RS_STATUS_HEALTH_FAILED] = TO(UNHEALTHY, HEALTH_CHECK_FAILED),
                [RS_STATUS_START_FAILED] = TO(UNHEALTHY, REPLICA_STARTUP_FAILED),
            },
        [RS_DEPLOYMENT_DOWNSCALING] =
            {
                [RS_STATUS_SCALE_UP] = TO(UPSCALING, CONFIG_UPDATE_STARTED),
                [RS_STATUS_SCALE_DOWN] = TO(DOWNSCALING, CONFIG_UPDATE_STARTED),
                [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, DOWNSCALE_COMPLETED),
                [RS_STATUS_HEALTH_FAILED] = TO(UNHEALTHY, HEALTH_CHECK_FAILED),
                [RS_STATUS_START_FAILED] = TO(UNHEALTHY, REPLICA_STARTUP_FAILED),
            },
        [RS_DEPLOYMENT_HEALTHY] =
            {
                [RS_STATUS_SCALE_UP] = TO(UPSCALING, CONFIG_UPDATE_STARTED),
                [RS_STATUS_SCALE_DOWN] = TO(DOWNSCALING, CONFIG_UPDATE_STARTED),
                [RS_STATUS_AUTOSCALE_UP] = TO(UPSCALING, AUTOSCALING),
                [RS_STATUS_AUTOSCALE_DOWN] = TO(DOWNSCALING, AUTOSCALING),
                [RS_STATUS_HEALTH_FAILED] = TO(UNHEALTHY, HEALTH_CHECK_FAILED),
                [RS_STATUS_START_FAILED] = TO(UNHEALTHY, REPLICA_STARTUP_FAILED),
            },
        [RS_DEPLOYMENT_UNHEALTHY] =
            {
                [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UNSPECIFIED),
                [RS_STATUS_HEALTH_FAILED] = TO(UNHEALTHY, HEALTH_CHECK_FAILED),
                [RS_STATUS_START_FAILED] = TO(UNHEALTHY, REPLICA_STARTUP_FAILED),
            },
        [RS_DEPLOYMENT_DEPLOY_FAILED] =
            {
                [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UNSPECIFIED),
                [RS_STATUS_HEALTH_FAILED] = TO(DEPLOY_FAILED, HEALTH_CHECK_FAILED),
                [RS_STATUS_START_FAILED] = TO(DEPLOY_FAILED, REPLICA_STARTUP_FAILED),
            },
};

static bool autoscale(enum rs_status_event e)
{
    return e == RS_STATUS_AUTOSCALE_UP || e == RS_STATUS_AUTOSCALE_DOWN;
}

bool rs_status_step(struct rs_status *s, enum rs_status_event event)
{
    struct move m = always[event];

    if (s->trigger == RS_TRIGGER_DELETING && event != RS_STATUS_INTERNAL_ERROR &&
        event != RS_STATUS_CONFIG) /* a deployment that comes back while it is deleted */
        return false;
    if (!m.any)
        m = moves[s->status][event];
    /* While the autoscaler scales, it may change its mind; a person's change it leaves alone. */
    if (!m.any && autoscale(event) && s->trigger == RS_TRIGGER_AUTOSCALING &&
        (s->status == RS_DEPLOYMENT_UPSCALING || s->status == RS_DEPLOYMENT_DOWNSCALING)) {
        m.any = true;
        m.to.status =
            event == RS_STATUS_AUTOSCALE_UP ? RS_DEPLOYMENT_UPSCALING : RS_DEPLOYMENT_DOWNSCALING;
        m.to.trigger = RS_TRIGGER_AUTOSCALING;
    }
    if (!m.any)
        return false;
    *s = m.to;
    return true;
}

/* A change by a person that is under way; scaling by the autoscaler leaves the application RUNNING. */
static bool deploying(const struct rs_status *s)
{
    if (s->status == RS_DEPLOYMENT_UPDATING)
        return true;
    return (s->status == RS_DEPLOYMENT_UPSCALING || s->status == RS_DEPLOYMENT_DOWNSCALING) &&
           s->trigger == RS_TRIGGER_CONFIG_UPDATE_STARTED;
}

enum rs_app_status rs_app_status_of(const struct rs_status *deployments, size_t n)
{
    enum rs_app_status worst = RS_APP_RUNNING;

    for (size_t i = 0; i < n; i++) {
        if (deployments[i].status == RS_DEPLOYMENT_DEPLOY_FAILED)
            return RS_APP_DEPLOY_FAILED;
        if (deployments[i].status == RS_DEPLOYMENT_UNHEALTHY)
            worst = RS_APP_UNHEALTHY;
        else if (deploying(&deployments[i]) && worst == RS_APP_RUNNING)
            worst = RS_APP_DEPLOYING;
    }
    return worst;
}
