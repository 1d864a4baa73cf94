#include "cmd/advice.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/map.h"
#include "sched/message.h"

#include <string.h>

#define LATE "no answer within " /* .. 100 ms */
enum { TOLD_MAX = 32 << 10 };    /* bytes of JSON */

/* What a replica told last. */
struct told {
    json_t *scaling; /* {"at", "values"} of record_autoscaling_stats; NULL */
    json_t *routing; /* of record_routing_stats; NULL */
    json_t *models;  /* that it has loaded; NULL */
};

struct rs_advice {
    struct rs_helpers *helpers;
    const struct rs_agent *agent;
    struct rs_dataplane *dataplane;
    struct rs_advice_ops ops;
    void *arg;
    char *node_id;
    struct rs_map told;    /* replica id -> struct told */
    struct rs_map routers; /* "application\ndeployment" -> why it fails, "": it does not */
};

static void told_free(struct told *t)
{
    if (!t)
        return;
    json_decref(t->scaling);
    json_decref(t->routing);
    json_decref(t->models);
    free(t);
}

static char *key_of(const char *app, const char *deployment)
{
    return rs_asprintf("%s\n%s", app, deployment);
}

/* --- answers ----------------------------------------------------------------------------------- */

static void decide(struct rs_advice *a, const char *app, uint64_t question, json_t *msg)
{
    json_object_set_new(msg, "app", json_string(app));
    a->ops.decision(question, msg, a->arg);
}

/* `why` "": it answers. Told in the log when it changes. */
static void router_state(struct rs_advice *a, const char *app, const char *deployment,
                         const char *why)
{
    rs_auto(rs_freep) char *key = key_of(app, deployment);
    const char *before = rs_map_get(&a->routers, key);

    if (before && strcmp(before, why) == 0)
        return;
    if (*why)
        rs_log_warn("request router fails", "application=%s deployment=%s why=\"%s\"", app,
                    deployment, why);
    else if (before)
        rs_log_info("request router answers again", "application=%s deployment=%s", app,
                    deployment);
    free(rs_map_put(&a->routers, key, rs_strdup(why)));
}

static bool is_late(const struct rs_advice *a, const char *app, const char *deployment)
{
    rs_auto(rs_freep) char *key = key_of(app, deployment);
    const char *why = rs_map_get(&a->routers, key);

    return why && strncmp(why, LATE, sizeof(LATE) - 1) == 0;
}

static void on_answer(const char *role, const char *app, enum rs_msg type, uint64_t stream,
                      json_t *msg, void *arg)
{
    struct rs_advice *a = arg;
    const char *deployment = rs_json_str(msg, "deployment", NULL);
    const char *error = rs_json_str(msg, "error", NULL);

    if (type == RS_MSG_DECISION) {
        decide(a, app, stream, msg);
    } else if (deployment) {
        if (error || !is_late(a, app, deployment)) /* of that the lane tells the end */
            router_state(a, app, deployment, error ? error : "");
        rs_dataplane_chosen(a->dataplane, app, deployment, stream, msg);
    }
}

/* Those of the application that were asked: their requests wait no longer. */
static void routers_lost(struct rs_advice *a, const char *app, const char *why)
{
    size_t len = strlen(app);

    for (size_t i = 0; i < rs_map_slots(&a->routers); i++) {
        const char *key = NULL;
        rs_auto(rs_freep) char *deployment = NULL;

        if (!rs_map_at(&a->routers, i, &key) || strncmp(key, app, len) != 0 || key[len] != '\n')
            continue;
        deployment = rs_strdup(key + len + 1);
        router_state(a, app, deployment, why);
        rs_dataplane_chosen(a->dataplane, app, deployment, 0, NULL);
    }
}

static void on_lost(const char *role, const char *app, const char *why, void *arg)
{
    struct rs_advice *a = arg;
    rs_auto(rs_freep) char *text = rs_message_bounded(why); /* it may be cut within a character */
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:s}", "lost", text);

    if (strcmp(role, "policy") == 0)
        decide(a, app, 0, msg);
    else
        routers_lost(a, app, why);
}

static int do_fork(const char *zygote, const json_t *msg, int fds[3], void *arg,
                   struct rs_error *err)
{
    struct rs_advice *a = arg;

    return a->ops.fork(zygote, msg, fds, a->arg, err);
}

static const struct rs_helpers_ops helpers_ops = {
    .fork = do_fork,
    .answer = on_answer,
    .lost = on_lost,
};

/* --- questions --------------------------------------------------------------------------------- */

void rs_advice_policy(struct rs_advice *a, uint64_t question, const json_t *msg)
{
    const char *app = rs_json_str(msg, "app", "");
    struct rs_error err = {0};

    if (rs_helpers_ask(a->helpers, "policy", app, RS_MSG_POLICY, question, msg, true, &err) < 0)
        on_lost("policy", app, err.msg, a);
}

/* What the lane does not know of its candidates. */
static void complete(const struct rs_advice *a, const json_t *router, json_t *question)
{
    json_t *replica;
    size_t i;

    json_array_foreach (json_object_get(question, "replicas"), i, replica) {
        const char *id = rs_json_str(replica, "replica_id", "");
        const struct told *t = rs_map_get(&a->told, id);
        bool remote = rs_json_bool(replica, "remote", false);

        json_object_set_new(replica, "node_id", json_string(remote ? id : a->node_id));
        if (t && t->routing)
            json_object_set(replica, "routing_stats", t->routing);
        if (t && t->models)
            json_object_set(replica, "multiplexed_model_ids", t->models);
    }
    json_object_set(question, "class", json_object_get(router, "request_router_class"));
    json_object_set(question, "kwargs", json_object_get(router, "request_router_kwargs"));
    json_object_set_new(question, "node_id", json_string(a->node_id));
}

void rs_advice_choose(struct rs_advice *a, const char *app, const char *deployment,
                      const json_t *router, uint64_t id, json_t *question)
{
    const char *event = rs_json_str(question, "event", "");
    rs_auto(rs_freep) char *key = key_of(app, deployment);
    struct rs_error err = {0};

    if (!rs_map_get(&a->routers, key))
        rs_map_put(&a->routers, key, rs_strdup(""));
    if (strcmp(event, "late") == 0) {
        rs_auto(rs_freep) char *why =
            rs_asprintf(LATE "%g ms", rs_json_num(question, "patience_ms", 0));

        router_state(a, app, deployment, why);
        return;
    }
    if (strcmp(event, "timely") == 0) {
        router_state(a, app, deployment, "");
        return;
    }
    complete(a, router, question);
    if (rs_helpers_ask(a->helpers, "router", app, RS_MSG_CHOOSE, id, question, id != 0, &err) == 0)
        return;
    if (id) {
        router_state(a, app, deployment, err.msg);
        rs_dataplane_chosen(a->dataplane, app, deployment, 0, NULL);
    }
}

/* What was told of applications that are gone is not kept for their namesakes. */
void rs_advice_target(struct rs_advice *a)
{
    rs_helpers_target(a->helpers);
    for (size_t i = 0; i < rs_map_slots(&a->routers); i++) {
        const char *key = NULL;
        rs_auto(rs_freep) char *app = NULL;

        if (!rs_map_at(&a->routers, i, &key))
            continue;
        app = rs_strndup(key, strcspn(key, "\n"));
        if (!rs_agent_knows(a->agent, app))
            free(rs_map_remove(&a->routers, key));
    }
}

/* --- what replicas tell ------------------------------------------------------------------------- */

static void keep(json_t **at, json_t *value)
{
    json_decref(*at);
    *at = value;
}

/* It goes into every report and every question: what is longer than that is left out. */
static bool fits(const char *replica_id, const char *what, const json_t *value)
{
    rs_auto(rs_freep) char *text = rs_json_dump(value);
    size_t len = strlen(text);

    if (len > TOLD_MAX)
        rs_log_warn("what a replica tells is too long", "replica=%s what=%s bytes=%zu limit=%d",
                    replica_id, what, len, TOLD_MAX);
    return len <= TOLD_MAX;
}

bool rs_advice_stats(struct rs_advice *a, const char *replica_id, const json_t *stats)
{
    json_t *scaling = json_object_get(stats, "autoscaling_stats");
    json_t *routing = json_object_get(stats, "routing_stats");
    json_t *models = json_object_get(stats, "multiplexed");
    struct told *t = rs_map_get(&a->told, replica_id);

    if (!json_is_object(scaling) && !json_is_object(routing) && !json_is_array(models))
        return false;
    if (!t) {
        t = rs_alloc(sizeof(*t));
        rs_map_put(&a->told, replica_id, t);
    }
    if (json_is_object(routing) && fits(replica_id, "routing_stats", routing))
        keep(&t->routing, json_incref(routing));
    if (json_is_array(models) && fits(replica_id, "multiplexed", models))
        keep(&t->models, json_incref(models));
    if (!json_is_object(scaling) || !fits(replica_id, "autoscaling_stats", scaling))
        return false;
    keep(&t->scaling, json_pack("{s:f, s:O}", "at", rs_clock_wall(), "values", scaling));
    return true;
}

void rs_advice_forget(struct rs_advice *a, const char *replica_id)
{
    told_free(rs_map_remove(&a->told, replica_id));
}

void rs_advice_report(const struct rs_advice *a, struct rs_report *report)
{
    for (size_t i = 0; i < report->n_replicas; i++) {
        const struct told *t = rs_map_get(&a->told, report->replicas[i].replica_id);

        report->replicas[i].stats = t ? json_incref(t->scaling) : NULL;
    }
    for (size_t i = 0; rs_map_count(&a->routers) && i < report->n_deployments; i++) {
        struct rs_report_deployment *d = &report->deployments[i];
        rs_auto(rs_freep) char *key = key_of(d->app, d->name);
        const char *why = rs_map_get(&a->routers, key);

        d->router = why && *why ? rs_strdup(why) : NULL;
    }
}

/* --- life -------------------------------------------------------------------------------------- */

struct rs_advice *rs_advice_new(const struct rs_helpers_conf *conf, const char *node_id,
                                const struct rs_advice_ops *ops, void *arg)
{
    struct rs_advice *a = rs_alloc(sizeof(*a));

    a->ops = *ops;
    a->arg = arg;
    a->node_id = rs_strdup(node_id);
    a->agent = conf->agent;
    a->helpers = rs_helpers_new(conf, &helpers_ops, a);
    return a;
}

void rs_advice_dataplane(struct rs_advice *a, struct rs_dataplane *d)
{
    a->dataplane = d;
}

struct rs_helpers *rs_advice_helpers(struct rs_advice *a)
{
    return a->helpers;
}

void rs_advice_free(struct rs_advice *a)
{
    if (!a)
        return;
    rs_helpers_free(a->helpers);
    for (size_t i = 0; i < rs_map_slots(&a->told); i++)
        told_free(rs_map_at(&a->told, i, NULL));
    for (size_t i = 0; i < rs_map_slots(&a->routers); i++)
        free(rs_map_at(&a->routers, i, NULL));
    rs_map_fini(&a->told);
    rs_map_fini(&a->routers);
    free(a->node_id);
    free(a);
}
