/* The user's own autoscaling policies. They run in a process beside a node; the head asks them and
 * goes on deciding by what they said last: asked again a moment after something changed, else once a
 * second. While one raises, the number stays; while none answers, the built-in policy decides.
 */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE RS_SEC              /* for an answer; then it is slow */
#define PATIENCE_FIRST (5 * RS_SEC)  /* for the first one: the process has to start */
#define WHILE_CHANGING (100 * RS_MS) /* from an answer to the next question */
#define WHILE_STABLE RS_SEC
#define FORGET (30 * RS_SEC) /* a question that the node lost */
#define STATS_MAX 10000      /* samples kept per deployment */

static const char *const built_in[] = {
    "ray.serve.autoscaling_policy:default_autoscaling_policy",
    "ray.serve.autoscaling_policy:replica_queue_length_autoscaling_policy",
    "",
};

static const json_t *app_policy(const struct rs_ct_app *app)
{
    const json_t *p = app->conf ? app->conf->autoscaling_policy : NULL;

    return json_is_object(p) ? p : NULL;
}

bool rs_ct_has_policy(const struct rs_ct_deployment *d)
{
    const char *function = d->conf->autoscaling.policy_function;

    if (!d->conf->autoscaling_enabled)
        return false;
    if (app_policy(d->app))
        return true;
    for (size_t i = 0; function && i < RS_COUNT(built_in); i++)
        if (strcmp(function, built_in[i]) == 0)
            return false;
    return function != NULL;
}

const char *rs_ct_policy_name(const struct rs_ct_deployment *d)
{
    const json_t *app = app_policy(d->app);

    return app ? rs_json_str(app, "policy_function", "") : d->conf->autoscaling.policy_function;
}

void rs_ct_policy_free(struct rs_ct_app *app)
{
    free(app->policy.trouble);
    free(app->policy.node_id);
    app->policy = (struct rs_ct_policy){0};
}

/* --- what a replica says of itself -------------------------------------------------------------- */

static void forget_stats(struct rs_ct_deployment *d, double oldest)
{
    while (json_array_size(d->stats) > STATS_MAX ||
           (json_array_size(d->stats) &&
            json_number_value(json_array_get(json_array_get(d->stats, 0), 0)) < oldest))
        json_array_remove(d->stats, 0);
}

void rs_ct_policy_stats(struct rs_ct_deployment *d, const struct rs_report *before,
                        const struct rs_report *after, double wall)
{
    if (!rs_ct_has_policy(d))
        return;
    if (!d->stats)
        d->stats = json_array();
    for (size_t i = 0; i < after->n_replicas; i++) {
        const struct rs_report_replica *r = &after->replicas[i];
        const struct rs_report_replica *was = NULL;

        if (!json_object_size(r->stats) || strcmp(r->deployment, d->name) != 0 ||
            strcmp(r->app, d->app->name) != 0)
            continue;
        for (size_t k = 0; before && k < before->n_replicas && !was; k++)
            if (strcmp(before->replicas[k].replica_id, r->replica_id) == 0)
                was = &before->replicas[k];
        if (was && json_equal(json_object_get(was->stats, "at"), json_object_get(r->stats, "at")))
            continue; /* told before */
        json_array_append_new(d->stats, json_pack("[f, s, O?]", wall, r->replica_id,
                                                  json_object_get(r->stats, "values")));
    }
    forget_stats(d, wall - (double)d->conf->autoscaling.look_back_period / 1e9);
}

/* --- questions ---------------------------------------------------------------------------------- */

static json_t *running_ids(const struct rs_ct_deployment *d)
{
    const struct rs_controller *c = d->app->controller;
    json_t *ids = json_array();

    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        for (size_t k = 0; n && n->report && k < n->report->n_replicas; k++) {
            const struct rs_report_replica *r = &n->report->replicas[k];

            if ((r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING) &&
                strcmp(r->deployment, d->name) == 0 && strcmp(r->app, d->app->name) == 0)
                json_array_append_new(ids, json_string(r->replica_id));
        }
    }
    return ids;
}

static json_t *time_or_null(double t)
{
    return t > 0 ? json_real(t) : json_null();
}

static json_t *context_of(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_autoscale *a = &d->scale;
    const struct rs_autoscaling_conf *conf = &d->conf->autoscaling;
    json_t *ids = running_ids(d);
    double total = rs_autoscale_total(a, rs_autoscale_how(conf), conf->look_back_period, now);
    double queued = rs_autoscale_queued(a, rs_autoscale_how(conf), conf->look_back_period, now);

    d->asked_load = a->load;
    return json_pack(
        "{s:i, s:i, s:f, s:f, s:i, s:i, s:o, s:o, s:f, s:O?, s:O?, s:o}", "current_num_replicas",
        (int)json_array_size(ids), "target_num_replicas", (int)a->target, "total_num_requests",
        total, "total_queued_requests", fmin(queued, total), "capacity_adjusted_min_replicas",
        (int)a->lower, "capacity_adjusted_max_replicas", conf->max_replicas, "last_scale_up_time",
        time_or_null(a->last_up_s), "last_scale_down_time", time_or_null(a->last_down_s),
        "current_time", rs_ct_wall(d->app->controller, now), "config",
        json_object_get(d->conf->json, "autoscaling_config"), "stats", d->stats, "running_replicas",
        ids);
}

static bool runs_some(const struct rs_ct_node *n, const struct rs_ct_app *app)
{
    for (size_t i = 0; n->report && i < n->report->n_replicas; i++)
        if (n->report->replicas[i].state == RS_REPLICA_RUNNING &&
            strcmp(n->report->replicas[i].app, app->name) == 0)
            return true;
    return false;
}

/* The one of before, one where the application runs (so its code is there), or any. */
static const struct rs_ct_node *choose_node(const struct rs_ct_app *app)
{
    const struct rs_controller *c = app->controller;
    const struct rs_ct_node *found =
        app->policy.node_id ? rs_map_get(&c->nodes, app->policy.node_id) : NULL;

    if (found && !found->draining)
        return found;
    found = NULL;
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && !n->draining && (!found || (runs_some(n, app) && !runs_some(found, app))))
            found = n;
    }
    return found;
}

static void set_trouble(struct rs_ct_app *app, const char *why, bool down)
{
    struct rs_ct_policy *p = &app->policy;
    bool same = !p->trouble == !why && (!why || strcmp(p->trouble, why) == 0);
    rs_auto(rs_freep) char *text = NULL;

    p->down = down;
    if (same)
        return;
    rs_ct_set(&p->trouble, rs_strdup(why));
    text = why ? rs_asprintf("Autoscaling policy of application '%s': %s%s", app->name, why,
                             down ? "; the built-in policy decides meanwhile" : "")
               : rs_asprintf("Autoscaling policy of application '%s' answers again", app->name);
    rs_ct_emit(app->controller,
               &(struct rs_controller_event){
                   .kind = RS_EVENT_SCALE, .app = app->name, .status = "POLICY", .text = text});
}

static void ask(struct rs_ct_app *app, int64_t now)
{
    struct rs_controller *c = app->controller;
    struct rs_ct_policy *p = &app->policy;
    const struct rs_ct_node *n = choose_node(app);
    json_t *deployments = json_object();
    rs_auto(rs_json_decrefp) json_t *question = NULL;

    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && rs_ct_scales(d) && rs_ct_has_policy(d))
            json_object_set_new(deployments, d->name, context_of(d, now));
    }
    question = json_pack("{s:s, s:O?, s:o}", "app", app->name, "application_policy",
                         app_policy(app), "deployments", deployments);
    p->next_at = now + WHILE_STABLE;
    p->asked_at = now;
    if (!n || !c->ops.policy) {
        set_trouble(app, "there is no node to run it", true);
        return;
    }
    rs_ct_set(&p->node_id, rs_strdup(n->id));
    p->asked = true;
    p->question = ++c->questions;
    c->ops.policy(n->id, p->question, question, c->arg);
}

/* Something moves: it is worth asking soon. */
static bool unsettled(const struct rs_ct_app *app, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && rs_ct_scales(d) && rs_ct_has_policy(d) &&
            (d->asked_load != d->scale.load ||
             rs_autoscale_deadline(&d->scale, &d->conf->autoscaling, now) < now + WHILE_STABLE))
            return true;
    }
    return false;
}

static int64_t ask_at(const struct rs_ct_app *app, int64_t now)
{
    const struct rs_ct_policy *p = &app->policy;
    int64_t soon = p->asked_at + WHILE_CHANGING;

    return p->next_at > soon && !p->trouble && unsettled(app, now) ? soon : p->next_at;
}

/* When to look again; INT64_MAX: an answer, or nothing, is waited for. */
static int64_t due(const struct rs_ct_app *app, int64_t now)
{
    const struct rs_ct_policy *p = &app->policy;

    if (!p->asked)
        return ask_at(app, now);
    if (!p->down)
        return p->asked_at + (p->answered ? PATIENCE : PATIENCE_FIRST);
    return p->asked_at + FORGET;
}

static bool wants_policy(const struct rs_ct_app *app)
{
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && rs_ct_scales(d) && rs_ct_has_policy(d))
            return true;
    }
    return false;
}

/* True: other numbers count from now on. */
static bool tick(struct rs_ct_app *app, int64_t now)
{
    struct rs_ct_policy *p = &app->policy;
    bool was_down = p->down;

    if (!wants_policy(app)) {
        if (p->asked || p->trouble || p->answered)
            rs_ct_policy_free(app);
        return false;
    }
    if (p->asked && !p->down && due(app, now) <= now)
        set_trouble(app, p->answered ? "no answer within 1 s" : "no answer yet", true);
    if (p->asked && p->down && due(app, now) <= now)
        p->asked = false;
    if (!p->asked && due(app, now) <= now)
        ask(app, now);
    return p->down != was_down;
}

bool rs_ct_policies_tick(struct rs_controller *c, int64_t now)
{
    bool changed = false;

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        if (app)
            changed |= tick(app, now);
    }
    return changed;
}

int64_t rs_ct_policy_deadline(const struct rs_ct_deployment *d)
{
    const struct rs_ct_app *app = d->app;

    return rs_ct_scales(d) && rs_ct_has_policy(d) ? due(app, app->controller->now) : INT64_MAX;
}

void rs_ct_policy_node_left(struct rs_controller *c, const char *node_id, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);
        struct rs_ct_policy *p = app ? &app->policy : NULL;

        if (!p || !p->node_id || strcmp(p->node_id, node_id) != 0)
            continue;
        rs_ct_set(&p->node_id, NULL);
        p->asked = p->answered = false;
        p->next_at = now;
    }
}

/* --- answers ------------------------------------------------------------------------------------ */

static void take_answer(struct rs_ct_deployment *d, const json_t *answer)
{
    const char *error = rs_json_str(answer, "error", NULL);
    double wants = rs_json_num(answer, "replicas", -1);

    if (error || wants < 0 || !isfinite(wants)) {
        d->policy_wants = -1; /* the number stays */
        rs_ct_set(&d->policy_error,
                  error ? rs_strdup(error)
                        : rs_strdup(answer ? "it did not answer with a number" : NULL));
        return;
    }
    d->policy_wants = wants;
    rs_ct_set(&d->policy_error, NULL);
}

void rs_controller_decision(struct rs_controller *c, const char *node_id, uint64_t question,
                            const json_t *msg, int64_t now)
{
    struct rs_ct_app *app = rs_map_get(&c->apps, rs_json_str(msg, "app", ""));
    const char *lost = rs_json_str(msg, "lost", NULL), *raised = NULL;
    const json_t *answers = json_object_get(msg, "deployments");
    struct rs_ct_policy *p = app ? &app->policy : NULL;

    if (!p || !p->asked || !p->node_id || strcmp(p->node_id, node_id) != 0 ||
        (!lost && question != p->question))
        return; /* to a question of yesterday */
    p->asked = false;
    p->next_at = now + (lost ? WHILE_STABLE / 2 : WHILE_STABLE);
    p->answered |= !lost;
    for (size_t i = 0; !lost && i < rs_map_slots(&app->deployments); i++) {
        struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (!d || !rs_ct_scales(d) || !rs_ct_has_policy(d))
            continue;
        take_answer(d, json_object_get(answers, d->name));
        raised = d->policy_error ? d->policy_error : raised;
    }
    set_trouble(app, lost ? lost : raised, lost != NULL);
    rs_ct_update(c, now);
}
