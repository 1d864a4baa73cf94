/* How many replicas: what the nodes report -> the autoscaler -> the number wanted; and a number that
 * somebody asks for over REST.
 */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_POLICY "ray.serve.autoscaling_policy:default_autoscaling_policy"

bool rs_ct_scales(const struct rs_ct_deployment *d)
{
    const struct rs_ct_app *app = d->app;

    return d->conf->autoscaling_enabled && !d->gone && !d->failed && app->live && !app->deleting &&
           d->scale.started;
}

/* While target_capacity rises, what replaces another cluster starts with its initial number. */
static int lower_bound(const struct rs_controller *c, const struct rs_deployment_conf *conf)
{
    if (c->capacity_rises && conf->autoscaling.initial_replicas >= 0)
        return conf->autoscaling.initial_replicas;
    return conf->autoscaling.min_replicas;
}

static int within(int n, int lower, int upper)
{
    n = n > upper ? upper : n;
    return n < lower ? lower : n;
}

/* Up to a whole number of gangs. */
static unsigned in_gangs(const struct rs_deployment_conf *conf, int n)
{
    int gang = conf->gang_size > 1 ? conf->gang_size : 1;

    return (unsigned)((n + gang - 1) / gang * gang);
}

unsigned rs_ct_wanted(const struct rs_ct_deployment *d, const struct rs_controller *c,
                      const struct rs_deployment_conf *conf, bool changed)
{
    const struct rs_autoscaling_conf *a = &conf->autoscaling;
    int now = d && !d->gone ? (int)d->wanted : 0;

    if (!conf->autoscaling_enabled)
        return in_gangs(conf, conf->num_replicas);
    if (changed && a->initial_replicas >= 0)
        now = a->initial_replicas;
    return in_gangs(conf,
                    within(now, rs_ct_ahead_first(c, conf, lower_bound(c, conf)), a->max_replicas));
}

unsigned rs_ct_wanted_again(const struct rs_controller *c, const struct rs_config_app *app,
                            const struct rs_deployment_conf *conf, unsigned before)
{
    const struct rs_autoscaling_conf *a = &conf->autoscaling;

    if (conf->autoscaling_enabled)
        return in_gangs(conf, within((int)before, rs_ct_ahead_first(c, conf, lower_bound(c, conf)),
                                     a->max_replicas));
    if (app && app->external_scaler_enabled)
        return before;
    return in_gangs(conf, conf->num_replicas);
}

void rs_ct_capacity(struct rs_controller *c, const struct rs_config *before,
                    const struct rs_config *after)
{
    bool same = before && before->app_count == after->app_count;

    for (size_t i = 0; same && i < before->app_count; i++)
        same = rs_config_find_app(after, before->apps[i].name) != NULL;
    if (after->target_capacity < 0)
        c->capacity_rises = false;
    else if (!same || before->target_capacity != after->target_capacity)
        /* from all of it to a part is no rise */
        c->capacity_rises = !same || (before->target_capacity >= 0 &&
                                      before->target_capacity < after->target_capacity);
}

/* --- load -------------------------------------------------------------------------------------- */

static bool is_of(const struct rs_ct_deployment *d, const char *app, const char *name)
{
    return strcmp(app, d->app->name) == 0 && strcmp(name, d->name) == 0;
}

static const struct rs_report_deployment *in_report(const struct rs_report *r,
                                                    const struct rs_ct_deployment *d)
{
    for (size_t i = 0; r && i < r->n_deployments; i++)
        if (is_of(d, r->deployments[i].app, r->deployments[i].name))
            return &r->deployments[i];
    return NULL;
}

static unsigned load_in(const struct rs_report *r, const struct rs_ct_deployment *d)
{
    const struct rs_report_deployment *x = in_report(r, d);
    unsigned n = x ? x->queued : 0;

    for (size_t i = 0; r && i < r->n_replicas; i++)
        if (is_of(d, r->replicas[i].app, r->replicas[i].deployment))
            n += r->replicas[i].in_flight;
    return n;
}

/* The node knows the integral of its load; the step function of its reports is put right by it. */
static void correct(struct rs_ct_deployment *d, const struct rs_report *before,
                    const struct rs_report *after, int64_t since, int64_t now)
{
    const struct rs_report_deployment *x = in_report(before, d), *y = in_report(after, d);

    if (!x || !y || y->load_us < x->load_us)
        return;
    rs_autoscale_correct(&d->scale,
                         (double)(y->load_us - x->load_us) / 1e6 -
                             load_in(before, d) * ((double)(now - since) / 1e9),
                         now);
}

void rs_ct_scale_report(struct rs_controller *c, const struct rs_report *before,
                        const struct rs_report *after, int64_t since, int64_t now)
{
    for (size_t i = 0; before && i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d && rs_ct_scales(d)) {
                correct(d, before, after, since, now);
                rs_ct_policy_stats(d, before, after, rs_ct_wall(c, now));
            }
        }
    }
}

/* --- decisions --------------------------------------------------------------------------------- */

static const char *cause_of(const struct rs_ct_deployment *d)
{
    const struct rs_ct_ahead *a = &d->ahead;

    if (d->scale.basis != RS_SCALE_BY_BOUNDS || !*a->reason)
        return rs_autoscale_basis_name(d->scale.basis);
    return (unsigned)a->predicted == d->scale.lower ? "prediction" : "schedule";
}

static void say(struct rs_ct_deployment *d, unsigned from, unsigned running)
{
    struct rs_controller *c = d->app->controller;
    const char *way = d->wanted > from ? "Upscaling" : "Downscaling";
    rs_auto(rs_freep) char *text = rs_asprintf(
        "%s Deployment(name='%s', app='%s') from %u to %u replicas. Current ongoing requests: "
        "%.2f, current running replicas: %u.",
        way, d->name, d->app->name, from, d->wanted, d->scale.total, running);

    rs_auto(rs_json_decrefp) json_t *data = rs_ct_scale_inputs(d);
    char before[16], after[16];

    snprintf(before, sizeof(before), "%u", from);
    snprintf(after, sizeof(after), "%u", d->wanted);
    rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_SCALE,
                                                .app = d->app->name,
                                                .deployment = d->name,
                                                .status = d->wanted > from ? "UP" : "DOWN",
                                                .before = before,
                                                .after = after,
                                                .who = "autoscaler",
                                                .cause = cause_of(d),
                                                .data = data,
                                                .text = text});
    if ((int)running >= lower_bound(c, d->conf) &&
        (int)running <= d->conf->autoscaling.max_replicas)
        rs_ct_event(
            d, d->wanted > from ? RS_STATUS_AUTOSCALE_UP : RS_STATUS_AUTOSCALE_DOWN,
            rs_status_message(d->wanted > from ? RS_STATUS_AUTOSCALE_UP : RS_STATUS_AUTOSCALE_DOWN,
                              &(struct rs_status_facts){.from = from, .to = d->wanted}));
}

static bool scale(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_controller *c = d->app->controller;
    struct rs_ct_seen s = rs_ct_look(c, d);
    unsigned from = d->wanted;
    struct rs_autoscale_facts f = {
        .running = s.running + s.updating + s.old_live,
        .lower = lower_bound(c, d->conf),
        .upper = d->conf->autoscaling.max_replicas,
        .gang = d->conf->gang_size,
        .has_policy = rs_ct_has_policy(d) && !d->app->policy.down,
        .policy_wants = d->policy_wants,
        .wall_s = rs_ct_wall(c, now),
    };
    bool moved;

    f.lower = rs_ct_ahead_lower(
        d, f.lower, c->capacity_rises && d->conf->autoscaling.initial_replicas >= 0, now);
    f.lower_reason = *d->ahead.reason ? d->ahead.reason : NULL;
    rs_autoscale_load(&d->scale, s.queued, s.queued + s.in_flight, now);
    moved = rs_autoscale_decide(&d->scale, &d->conf->autoscaling, &f, now);
    rs_ct_ahead_tell(d, now);
    if (!moved)
        return false;
    d->wanted = d->scale.target;
    say(d, from, f.running);
    return true;
}

bool rs_ct_scale(struct rs_controller *c, int64_t now)
{
    bool changed = false;

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d && rs_ct_scales(d))
                changed |= scale(d, now);
        }
    }
    return changed;
}

int64_t rs_ct_scale_deadline(const struct rs_ct_deployment *d)
{
    int64_t now = d->app->controller->now, own, ahead, policy = rs_ct_policy_deadline(d);

    if (!rs_ct_scales(d))
        return INT64_MAX;
    own = rs_autoscale_deadline(&d->scale, &d->conf->autoscaling, now);
    own = own < policy ? own : policy;
    ahead = rs_ct_ahead_deadline(d);
    return own < ahead ? own : ahead;
}

/* --- by hand ----------------------------------------------------------------------------------- */

static void tell_by_hand(struct rs_ct_deployment *d, unsigned from)
{
    char before[16], after[16];

    snprintf(before, sizeof(before), "%u", from);
    snprintf(after, sizeof(after), "%u", d->wanted);
    rs_ct_emit(d->app->controller, &(struct rs_controller_event){.kind = RS_EVENT_DEPLOY,
                                                                 .app = d->app->name,
                                                                 .deployment = d->name,
                                                                 .status = "SCALE",
                                                                 .before = before,
                                                                 .after = after});
}

static int scale_by_hand(struct rs_controller *c, const char *app_name, const char *deployment,
                         unsigned replicas, struct rs_error *err)
{
    const struct rs_ct_app *app = rs_map_get(&c->apps, app_name);
    struct rs_ct_deployment *d = app ? rs_map_get(&app->deployments, deployment) : NULL;
    unsigned from;

    if (!d)
        return rs_error_set(err, RS_NOT_FOUND, "Application or Deployment not found");
    if (d->gone || app->deleting)
        return rs_error_set(err, RS_CONFLICT, "Deployment is deleted");
    if (!app->conf || !app->conf->external_scaler_enabled)
        return rs_error_set(
            err, RS_CONFLICT,
            "Cannot update replicas for deployment '%.60s' in application '%.60s'. The external "
            "scaling API can only be used when 'external_scaler_enabled' is set to true in the "
            "application configuration. Current value: external_scaler_enabled=false. To use this "
            "API, redeploy your application with 'external_scaler_enabled: true' in the config.",
            deployment, app_name);
    from = d->wanted;
    d->wanted = replicas;
    tell_by_hand(d, from);
    if (from != replicas)
        rs_ct_event(d, replicas > from ? RS_STATUS_SCALE_UP : RS_STATUS_SCALE_DOWN,
                    rs_status_message(replicas > from ? RS_STATUS_SCALE_UP : RS_STATUS_SCALE_DOWN,
                                      &(struct rs_status_facts){.from = from, .to = replicas}));
    return 0;
}

int rs_controller_scale(struct rs_controller *c, const char *app, const char *deployment,
                        unsigned replicas, int64_t now, struct rs_error *err)
{
    int r = scale_by_hand(c, app, deployment, replicas, err);

    if (r == 0)
        rs_ct_update(c, now);
    rs_ct_set(&c->who, NULL);
    return r;
}

/* --- what people are told ---------------------------------------------------------------------- */

static json_t *decisions(const struct rs_ct_deployment *d)
{
    json_t *list = json_array();

    for (size_t i = 0; i < d->scale.n_decisions; i++) {
        const struct rs_autoscale_decision *x = &d->scale.decisions[i];

        json_array_append_new(list, json_pack("{s:f, s:s, s:i, s:i, s:s}", "timestamp_s", x->wall_s,
                                              "reason", x->reason, "prev_num_replicas",
                                              (int)x->from, "curr_num_replicas", (int)x->to,
                                              "policy", d->conf->autoscaling.policy_function));
    }
    return list;
}

static json_t *errors_of(const struct rs_ct_deployment *d)
{
    json_t *list = json_array();

    if (rs_ct_has_policy(d) && d->app->policy.trouble)
        json_array_append_new(list, json_string(d->policy_error && !d->app->policy.down
                                                    ? d->policy_error
                                                    : d->app->policy.trouble));
    return list;
}

json_t *rs_ct_scale_json(const struct rs_ct_deployment *d)
{
    const struct rs_autoscale *a = &d->scale;
    enum rs_deployment_status s = d->status.status;

    if (!rs_ct_scales(d))
        return json_null();
    return json_pack("{s:s, s:o, s:{s:f, s:f, s:i, s:i, s:i, s:i}, s:s, s:o}", "scaling_status",
                     s == RS_DEPLOYMENT_UPSCALING     ? "UPSCALING"
                     : s == RS_DEPLOYMENT_DOWNSCALING ? "DOWNSCALING"
                                                      : "STABLE",
                     "decisions", decisions(d), "metrics", "total_requests", a->total,
                     "queued_requests", a->queued, "running_replicas", (int)a->running,
                     "desired_replicas", (int)a->wanted, "min_replicas", (int)a->lower,
                     "max_replicas", (int)a->upper, "metrics_health",
                     d->scale.started && d->app->policy.down ? "unavailable" : "healthy", "errors",
                     errors_of(d));
}

/* What the user's policy says, if there is one. */
static void policy_says(struct rs_buf *out, const struct rs_ct_deployment *d)
{
    const struct rs_ct_policy *p = &d->app->policy;

    rs_buf_printf(out, "policy %s ", rs_ct_policy_name(d));
    if (p->trouble)
        rs_buf_printf(out, "fails (%s); %s; ",
                      d->policy_error && !p->down ? d->policy_error : p->trouble,
                      p->down ? "the built-in policy decides meanwhile" : "the number stays");
    else if (d->policy_wants >= 0)
        rs_buf_printf(out, "asks for %g; ", d->policy_wants);
    else
        rs_buf_puts(out, "has not answered yet; ");
}

json_t *rs_ct_scale_inputs(const struct rs_ct_deployment *d)
{
    const struct rs_autoscale *a = &d->scale;
    const struct rs_autoscaling_conf *c = &d->conf->autoscaling;
    int64_t left = rs_autoscale_left(a, d->app->controller->now);

    if (!rs_ct_scales(d))
        return json_null();
    return json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:i, s:i, s:i, s:b, s:s, s:f, s:o, s:o, s:o, "
        "s:s?}",
        "basis", rs_autoscale_basis_name(a->basis), "requests", a->total, "look_back_period_s",
        (double)c->look_back_period / 1e9, "target_ongoing_requests", c->target_ongoing_requests,
        "desired", a->desired, "after_factor", a->proposed, "running", (int)a->running, "replicas",
        (int)a->target, "wanted", (int)a->wanted, "lower", (int)a->lower, "upper", (int)a->upper,
        "held_by_bounds", a->held, "lower_by",
        !*d->ahead.reason                          ? "min_replicas"
        : (unsigned)d->ahead.predicted == a->lower ? "prediction"
                                                   : "schedule",
        "delay_s", (double)a->delay / 1e9, "delay_left_s",
        left < 0 ? json_null() : json_real((double)left / 1e9), "schedule",
        rs_ct_ahead_schedule_json(d), "prediction", rs_ct_ahead_expected_json(d), "policy_error",
        d->policy_error);
}

json_t *rs_ct_scale_why(const struct rs_ct_deployment *d)
{
    struct rs_buf out = {0};
    json_t *ret;
    char text[300];

    if (!rs_ct_scales(d))
        return json_null();
    if (rs_ct_has_policy(d))
        policy_says(&out, d);
    rs_autoscale_why(&d->scale, &d->conf->autoscaling, d->app->controller->now, text, sizeof(text));
    rs_buf_puts(&out, text);
    if (*d->ahead.reason)
        rs_buf_printf(&out, "; at least %u: %s", d->scale.lower, d->ahead.reason);
    if (d->ahead.trouble)
        rs_buf_printf(&out, "; the schedule is not followed: %s", d->ahead.trouble);
    ret = json_string(rs_buf_text(&out));
    rs_buf_fini(&out);
    return ret ? ret : json_null();
}
