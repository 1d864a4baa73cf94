/* Why the number of replicas is what it is, and why requests were refused. */
#include "sched/controller-why.h"

#include "core/base/json.h"

#include <string.h>

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* --- scaling ------------------------------------------------------------------------------------- */

static void add_inputs(const struct rs_ct_deployment *d, json_t *r)
{
    const struct rs_autoscaling_conf *c = &d->conf->autoscaling;
    const struct rs_autoscale *a = &d->scale;

    json_object_set_new(r, "requests", json_real(a->total));
    json_object_set_new(r, "window_s", rs_ct_number(seconds(c->look_back_period)));
    json_object_set_new(r, "target_ongoing_requests", rs_ct_number(c->target_ongoing_requests));
    json_object_set_new(r, "basis", json_string(rs_autoscale_basis_name(a->basis)));
    json_object_set_new(r, "desired", json_real(a->desired));
    json_object_set_new(r, "proposed", json_real(a->proposed));
    json_object_set_new(r, "upscaling_factor", rs_ct_number(c->upscaling_factor));
    json_object_set_new(r, "downscaling_factor", rs_ct_number(c->downscaling_factor));
    json_object_set_new(r, "running", json_integer(a->running));
    json_object_set_new(r, "from", json_integer(a->target));
    json_object_set_new(r, "to", json_integer(a->wanted));
    json_object_set_new(r, "lower", json_integer(a->lower));
    json_object_set_new(r, "upper", json_integer(a->upper));
    if (*d->ahead.reason)
        json_object_set_new(r, "lower_by", json_string(d->ahead.reason));
    if (d->ahead.trouble)
        json_object_set_new(r, "schedule_error", json_string(d->ahead.trouble));
}

static void add_delay(const struct rs_ct_deployment *d, json_t *r, int64_t left)
{
    const struct rs_autoscaling_conf *c = &d->conf->autoscaling;
    const struct rs_autoscale *a = &d->scale;
    const char *name = a->direction == RS_SCALE_UP ? "upscale_delay_s"
                       : a->wanted == 0 && a->delay == c->downscale_to_zero_delay
                           ? "downscale_to_zero_delay_s"
                           : "downscale_delay_s";

    json_object_set_new(r, "delay", json_string(name));
    json_object_set_new(r, "delay_s", rs_ct_number(seconds(a->delay)));
    json_object_set_new(r, "left_s", json_real(seconds(left)));
}

static void why_policy(const struct rs_ct_deployment *d, json_t *list)
{
    const struct rs_ct_policy *p = &d->app->policy;
    json_t *r;

    if (!rs_ct_has_policy(d) || !p->trouble)
        return;
    r = rs_ct_reason(list, "scale", "policy_fails", "bad");
    json_object_set_new(r, "policy", json_string(rs_ct_policy_name(d)));
    json_object_set_new(r, "error",
                        rs_ct_tail(d->policy_error && !p->down ? d->policy_error : p->trouble, 5));
    json_object_set_new(r, "built_in_decides", json_boolean(p->down));
    json_object_set_new(r, "from", json_integer(d->wanted));
}

void rs_ct_why_scale(const struct rs_ct_deployment *d, json_t *list, int64_t now)
{
    const struct rs_autoscale *a = &d->scale;
    int64_t left = rs_autoscale_left(a, now);
    const char *cause = left >= 0                            ? "scale_waits"
                        : a->target < a->lower               ? "scale_stable"
                        : a->held && a->proposed > a->target ? "scale_at_most"
                        : a->held                            ? "scale_at_least"
                                                             : "scale_stable";
    json_t *r;

    if (!rs_ct_scales(d))
        return;
    why_policy(d, list);
    r = rs_ct_reason(list, "scale", cause, left >= 0 ? "waits" : "note");
    add_inputs(d, r);
    if (left >= 0)
        add_delay(d, r, left);
    if (rs_ct_has_policy(d))
        json_object_set_new(r, "policy", json_string(rs_ct_policy_name(d)));
}

/* --- refused requests ---------------------------------------------------------------------------- */

/* Who sent it is the one to change something. */
static bool is_clients(const char *cause)
{
    static const char *const causes[] = {"bad_request", "header_too_large", "body_too_large",
                                         "no_route", "client_gone"};

    for (size_t i = 0; i < RS_COUNT(causes); i++)
        if (strcmp(causes[i], cause) == 0)
            return true;
    return false;
}

static json_t *refused(const struct rs_minutes *m, json_t *list, const char *cause,
                       const struct rs_controller *c, int64_t now)
{
    rs_auto(rs_json_decrefp) json_t *causes = rs_minutes_json(m, rs_ct_wall(c, now));
    json_t *r, *one;
    const char *name;
    int64_t total = 0;
    bool ours = false;

    if (!json_object_size(causes))
        return NULL;
    json_object_foreach (causes, name, one) {
        total += rs_json_int(one, "total", 0);
        ours |= !is_clients(name);
    }
    r = rs_ct_reason(list, "requests", cause, ours ? "bad" : "note");
    json_object_set_new(r, "minutes", json_integer(RS_MINUTES));
    json_object_set_new(r, "total", json_integer(total));
    json_object_set(r, "causes", causes);
    return r;
}

void rs_ct_why_refused(const struct rs_ct_deployment *d, json_t *list, int64_t now)
{
    const struct rs_controller *c = d->app->controller;
    json_t *r = refused(&d->refused, list, "calls_refused", c, now);
    struct rs_ct_seen s;

    if (!r)
        return;
    s = rs_ct_look(c, d);
    json_object_set_new(r, "max_queued_requests", json_integer(d->conf->max_queued_requests));
    json_object_set_new(r, "max_ongoing_requests", json_integer(d->conf->max_ongoing_requests));
    json_object_set_new(r, "running", json_integer(s.running + s.updating));
    json_object_set_new(r, "queued", json_integer(s.queued));
    json_object_set_new(r, "in_flight", json_integer(s.in_flight));
    if (d->conf->autoscaling_enabled)
        json_object_set_new(r, "max_replicas", json_integer(d->conf->autoscaling.max_replicas));
}

void rs_ct_why_app_refused(const struct rs_ct_app *app, json_t *list, int64_t now)
{
    (void)refused(&app->refused, list, "http_refused", app->controller, now);
}
