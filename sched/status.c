#include "sched/status.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"

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

/* --- the table of a deployment --- */

struct cell {
    enum rs_status_outcome outcome;
    struct rs_status to;
};

#define STAY                                                                                       \
    {                                                                                              \
        .outcome = RS_STATUS_SAME                                                                  \
    }
#define TO(s, t)                                                                                   \
    {                                                                                              \
        RS_STATUS_MOVED,                                                                           \
        {                                                                                          \
            RS_DEPLOYMENT_##s, RS_TRIGGER_##t                                                      \
        }                                                                                          \
    }

/* The same in every row. */
#define ANYWHERE                                                                                   \
    [RS_STATUS_CONFIG] = TO(UPDATING, CONFIG_UPDATE_STARTED), [RS_STATUS_INTERNAL_ERROR] =         \
                                                                  TO(UNHEALTHY, INTERNAL_ERROR)
#define UNLESS_DELETING ANYWHERE, [RS_STATUS_DELETE] = TO(UPDATING, DELETING)
#define BY_A_PERSON                                                                                \
    [RS_STATUS_SCALE_UP] = TO(UPSCALING, CONFIG_UPDATE_STARTED), [RS_STATUS_SCALE_DOWN] =          \
                                                                     TO(DOWNSCALING,               \
                                                                        CONFIG_UPDATE_STARTED)
#define NOT_BY_A_PERSON [RS_STATUS_SCALE_UP] = STAY, [RS_STATUS_SCALE_DOWN] = STAY
#define BY_THE_AUTOSCALER                                                                          \
    [RS_STATUS_AUTOSCALE_UP] = TO(UPSCALING, AUTOSCALING), [RS_STATUS_AUTOSCALE_DOWN] =            \
                                                               TO(DOWNSCALING, AUTOSCALING)
#define NOT_BY_THE_AUTOSCALER [RS_STATUS_AUTOSCALE_UP] = STAY, [RS_STATUS_AUTOSCALE_DOWN] = STAY
#define FAILURES(status)                                                                           \
    [RS_STATUS_HEALTH_FAILED] = TO(status, HEALTH_CHECK_FAILED),                                   \
    [RS_STATUS_START_FAILED] = TO(status, REPLICA_STARTUP_FAILED),                                 \
    [RS_STATUS_ACTOR_FAILED] = TO(status, DEPLOYMENT_ACTOR_FAILED)

static const struct cell cells[RS_STATUS_ROW_COUNT][RS_STATUS_EVENT_COUNT] = {
    [RS_STATUS_ROW_UPDATING] =
        {UNLESS_DELETING, NOT_BY_A_PERSON, BY_THE_AUTOSCALER,
         FAILURES(DEPLOY_FAILED), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, CONFIG_UPDATE_COMPLETED)},
    /* CONFIG: it is wanted again. */
    [RS_STATUS_ROW_DELETING] = {ANYWHERE, NOT_BY_A_PERSON,
                                NOT_BY_THE_AUTOSCALER, [RS_STATUS_ALL_RUNNING] = STAY,
                                [RS_STATUS_HEALTH_FAILED] = STAY, [RS_STATUS_START_FAILED] = STAY,
                                [RS_STATUS_ACTOR_FAILED] = STAY, [RS_STATUS_DELETE] = STAY},
    [RS_STATUS_ROW_HEALTHY] = {UNLESS_DELETING, BY_A_PERSON, BY_THE_AUTOSCALER,
                               FAILURES(UNHEALTHY), [RS_STATUS_ALL_RUNNING] = STAY},
    [RS_STATUS_ROW_UNHEALTHY] =
        {UNLESS_DELETING, NOT_BY_A_PERSON, NOT_BY_THE_AUTOSCALER,
         FAILURES(UNHEALTHY), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UNSPECIFIED)},
    [RS_STATUS_ROW_DEPLOY_FAILED] =
        {UNLESS_DELETING, NOT_BY_A_PERSON, NOT_BY_THE_AUTOSCALER,
         FAILURES(DEPLOY_FAILED), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UNSPECIFIED)},
    [RS_STATUS_ROW_UPSCALING] =
        {UNLESS_DELETING, BY_A_PERSON, NOT_BY_THE_AUTOSCALER,
         FAILURES(UNHEALTHY), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UPSCALE_COMPLETED)},
    [RS_STATUS_ROW_DOWNSCALING] =
        {UNLESS_DELETING, BY_A_PERSON, NOT_BY_THE_AUTOSCALER,
         FAILURES(UNHEALTHY), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, DOWNSCALE_COMPLETED)},
    /* While the autoscaler scales, it may change its mind; a person's change it leaves alone. */
    [RS_STATUS_ROW_AUTO_UPSCALING] =
        {UNLESS_DELETING, BY_A_PERSON, BY_THE_AUTOSCALER,
         FAILURES(UNHEALTHY), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, UPSCALE_COMPLETED)},
    [RS_STATUS_ROW_AUTO_DOWNSCALING] =
        {UNLESS_DELETING, BY_A_PERSON, BY_THE_AUTOSCALER,
         FAILURES(UNHEALTHY), [RS_STATUS_ALL_RUNNING] = TO(HEALTHY, DOWNSCALE_COMPLETED)},
};

enum rs_status_row rs_status_row(const struct rs_status *s)
{
    switch (s->status) {
    case RS_DEPLOYMENT_UPDATING:
        return s->trigger == RS_TRIGGER_DELETING ? RS_STATUS_ROW_DELETING : RS_STATUS_ROW_UPDATING;
    case RS_DEPLOYMENT_HEALTHY:
        return RS_STATUS_ROW_HEALTHY;
    case RS_DEPLOYMENT_UNHEALTHY:
        return RS_STATUS_ROW_UNHEALTHY;
    case RS_DEPLOYMENT_DEPLOY_FAILED:
        return RS_STATUS_ROW_DEPLOY_FAILED;
    case RS_DEPLOYMENT_UPSCALING:
        return s->trigger == RS_TRIGGER_AUTOSCALING ? RS_STATUS_ROW_AUTO_UPSCALING
                                                    : RS_STATUS_ROW_UPSCALING;
    case RS_DEPLOYMENT_DOWNSCALING:
        return s->trigger == RS_TRIGGER_AUTOSCALING ? RS_STATUS_ROW_AUTO_DOWNSCALING
                                                    : RS_STATUS_ROW_DOWNSCALING;
    default:
        return RS_STATUS_ROW_COUNT;
    }
}

enum rs_status_outcome rs_status_step(struct rs_status *s, enum rs_status_event event)
{
    enum rs_status_row row = rs_status_row(s);
    const struct cell *c;

    if (row >= RS_STATUS_ROW_COUNT || event >= RS_STATUS_EVENT_COUNT)
        return RS_STATUS_DEFECT;
    c = &cells[row][event];
    if (c->outcome == RS_STATUS_MOVED)
        *s = c->to;
    return c->outcome;
}

/* --- messages --- */

static const char *const messages[RS_STATUS_EVENT_COUNT] = {
    [RS_STATUS_CONFIG] = "",
    [RS_STATUS_SCALE_UP] = "Upscaling from {from} to {to} replicas.",
    [RS_STATUS_SCALE_DOWN] = "Downscaling from {from} to {to} replicas.",
    [RS_STATUS_AUTOSCALE_UP] = "Upscaling from {from} to {to} replicas.",
    [RS_STATUS_AUTOSCALE_DOWN] = "Downscaling from {from} to {to} replicas.",
    [RS_STATUS_ALL_RUNNING] = "",
    [RS_STATUS_HEALTH_FAILED] =
        ("A replica's health check failed. This deployment will be UNHEALTHY until the replica "
         "recovers or a new deploy happens.{ error}"),
    [RS_STATUS_START_FAILED] =
        ("The deployment failed to start {failures} times in a row. This may be due to a problem "
         "with its constructor or initial health check failing. See controller logs for details. "
         "Error:\n{error}"),
    [RS_STATUS_ACTOR_FAILED] = "An actor of the deployment failed.{ error}",
    [RS_STATUS_INTERNAL_ERROR] = "Failed to update deployment:\n{error}",
    [RS_STATUS_DELETE] = "",
};

static const char *const app_messages[RS_APP_EVENT_COUNT] = {
    [RS_APP_EVENT_BUILD] = "{progress}",
    [RS_APP_EVENT_REFUSED] = "{error}",
    [RS_APP_EVENT_UPDATING] = "",
    [RS_APP_EVENT_RUNNING] = "",
    [RS_APP_EVENT_ILL] = "The deployments {list} are UNHEALTHY.",
    [RS_APP_EVENT_FAILED] = "Failed to update the deployments {list}.",
    [RS_APP_EVENT_DELETE] = "",
};

static void expand_one(struct rs_buf *out, const char *name, size_t len,
                       const struct rs_status_facts *f)
{
#define IS(text) (len == sizeof(text) - 1 && memcmp(name, text, len) == 0)
    if (IS("from"))
        rs_buf_printf(out, "%u", f->from);
    else if (IS("to"))
        rs_buf_printf(out, "%u", f->to);
    else if (IS("failures"))
        rs_buf_printf(out, "%u", f->failures);
    else if (IS("error"))
        rs_buf_puts(out, f->error ? f->error : "unknown");
    else if (IS(" error"))
        rs_buf_printf(out, "%s%s", f->error ? " Error:\n" : "", f->error ? f->error : "");
    else if (IS("list"))
        rs_buf_puts(out, f->list ? f->list : "[]");
    else if (IS("progress"))
        rs_buf_puts(out, f->progress ? f->progress : "");
#undef IS
}

static char *expand(const char *text, const struct rs_status_facts *f)
{
    struct rs_buf out = {0};
    const char *open, *close;

    rs_buf_puts(&out, "");
    for (; (open = strchr(text, '{')) && (close = strchr(open, '}')); text = close + 1) {
        rs_buf_append(&out, text, (size_t)(open - text));
        expand_one(&out, open + 1, (size_t)(close - open) - 1, f);
    }
    rs_buf_puts(&out, text);
    return rs_buf_steal(&out);
}

char *rs_status_message(enum rs_status_event event, const struct rs_status_facts *f)
{
    return event < RS_STATUS_EVENT_COUNT ? expand(messages[event], f) : rs_strdup("");
}

char *rs_app_status_message(enum rs_app_event event, const struct rs_status_facts *f)
{
    return event < RS_APP_EVENT_COUNT ? expand(app_messages[event], f) : rs_strdup("");
}

/* --- an application --- */

struct app_cell {
    enum rs_status_outcome outcome;
    enum rs_app_status to;
};

#define APP(s)                                                                                     \
    {                                                                                              \
        RS_STATUS_MOVED, RS_APP_##s                                                                \
    }
/* From everywhere but from where it leads to. */
#define FROM_ANY                                                                                   \
    [RS_APP_EVENT_BUILD] = APP(DEPLOYING), [RS_APP_EVENT_REFUSED] = APP(DEPLOY_FAILED),            \
    [RS_APP_EVENT_UPDATING] = APP(DEPLOYING), [RS_APP_EVENT_RUNNING] = APP(RUNNING),               \
    [RS_APP_EVENT_ILL] = APP(UNHEALTHY), [RS_APP_EVENT_FAILED] = APP(DEPLOY_FAILED)

static const struct app_cell app_cells[RS_APP_STATUS_COUNT][RS_APP_EVENT_COUNT] = {
    /* Nobody knows it: there is nothing to delete. */
    [RS_APP_NOT_STARTED] = {FROM_ANY},
    [RS_APP_DEPLOYING] = {FROM_ANY, [RS_APP_EVENT_DELETE] = APP(DELETING)},
    [RS_APP_DEPLOY_FAILED] = {FROM_ANY, [RS_APP_EVENT_DELETE] = APP(DELETING)},
    [RS_APP_RUNNING] = {FROM_ANY, [RS_APP_EVENT_DELETE] = APP(DELETING)},
    [RS_APP_UNHEALTHY] = {FROM_ANY, [RS_APP_EVENT_DELETE] = APP(DELETING)},
    /* It is wanted again before it was gone: then it is said how it does. */
    [RS_APP_DELETING] = {FROM_ANY, [RS_APP_EVENT_DELETE] = APP(DELETING)},
};

enum rs_status_outcome rs_app_status_step(enum rs_app_status *s, enum rs_app_event event)
{
    const struct app_cell *c;

    if (*s >= RS_APP_STATUS_COUNT || event >= RS_APP_EVENT_COUNT)
        return RS_STATUS_DEFECT;
    c = &app_cells[*s][event];
    if (c->outcome == RS_STATUS_MOVED && c->to == *s)
        return RS_STATUS_SAME;
    if (c->outcome == RS_STATUS_MOVED)
        *s = c->to;
    return c->outcome;
}

/* What each row of a deployment makes of its application; the worst counts. Scaling by the autoscaler
 * leaves it RUNNING. */
static const enum rs_app_event app_events[RS_STATUS_ROW_COUNT] = {
    [RS_STATUS_ROW_UPDATING] = RS_APP_EVENT_UPDATING,
    [RS_STATUS_ROW_DELETING] = RS_APP_EVENT_UPDATING,
    [RS_STATUS_ROW_HEALTHY] = RS_APP_EVENT_RUNNING,
    [RS_STATUS_ROW_UNHEALTHY] = RS_APP_EVENT_ILL,
    [RS_STATUS_ROW_DEPLOY_FAILED] = RS_APP_EVENT_FAILED,
    [RS_STATUS_ROW_UPSCALING] = RS_APP_EVENT_UPDATING,
    [RS_STATUS_ROW_DOWNSCALING] = RS_APP_EVENT_UPDATING,
    [RS_STATUS_ROW_AUTO_UPSCALING] = RS_APP_EVENT_RUNNING,
    [RS_STATUS_ROW_AUTO_DOWNSCALING] = RS_APP_EVENT_RUNNING,
};

enum rs_app_event rs_app_event_of(const struct rs_status *deployments, size_t n)
{
    static const int rank[RS_APP_EVENT_COUNT] = {[RS_APP_EVENT_RUNNING] = 0,
                                                 [RS_APP_EVENT_UPDATING] = 1,
                                                 [RS_APP_EVENT_ILL] = 2,
                                                 [RS_APP_EVENT_FAILED] = 3};
    enum rs_app_event worst = RS_APP_EVENT_RUNNING;

    for (size_t i = 0; i < n; i++) {
        enum rs_status_row row = rs_status_row(&deployments[i]);

        if (row < RS_STATUS_ROW_COUNT && rank[app_events[row]] > rank[worst])
            worst = app_events[row];
    }
    return worst;
}
