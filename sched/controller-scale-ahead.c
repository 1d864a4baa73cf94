/* Lower bounds that do not come from the load of now: the schedule, and the load of earlier periods. Both
 * go by the wall clock.
 */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void rs_ct_ahead_fini(struct rs_ct_ahead *a)
{
    rs_schedule_free(a->schedule);
    json_decref(a->list);
    free(a->trouble);
    rs_forecast_fini(&a->forecast);
    *a = (struct rs_ct_ahead){0};
}

/* --- the schedule ------------------------------------------------------------------------------- */

static void follow_schedule(struct rs_ct_ahead *a, const struct rs_foresight_conf *conf)
{
    json_t *list = (json_t *)(uintptr_t)conf->schedule;
    struct rs_error err = {0};

    if (list == a->list)
        return;
    json_decref(a->list);
    a->list = json_incref(list);
    rs_schedule_free(a->schedule);
    a->schedule = NULL;
    a->scheduled = (struct rs_schedule_now){.entry = -1, .until = INT64_MAX};
    rs_ct_set(&a->trouble, NULL);
    if (json_array_size(list) == 0)
        return;
    /* The configuration was checked, but on a machine with other time zones perhaps. */
    if (rs_schedule_new(&a->schedule, list, &err) < 0)
        rs_ct_set(&a->trouble, rs_strdup(err.msg));
    else
        a->scheduled.until = INT64_MIN;
}

static void look_at_schedule(struct rs_ct_ahead *a, double wall)
{
    int64_t t = (int64_t)floor(wall);

    if (!a->schedule || (t < a->scheduled.until && t >= a->looked_at))
        return;
    a->scheduled = rs_schedule_at(a->schedule, t);
    a->looked_at = t;
}

/* While target_capacity rises the initial number counts, see lower_bound in controller-scale.c. */
static int scheduled_bound(const struct rs_ct_ahead *a, const struct rs_deployment_conf *conf,
                           bool rises, int lower)
{
    int asked;

    if (a->scheduled.entry < 0)
        return lower;
    asked = rs_target_capacity_apply(a->scheduled.min_replicas, conf->foresight.capacity);
    return rises && asked < lower ? lower : asked;
}

/* --- earlier periods ---------------------------------------------------------------------------- */

static int expected_bound(struct rs_ct_ahead *a, const struct rs_deployment_conf *conf, double wall)
{
    const struct rs_foresight_conf *f = &conf->foresight;
    double replicas;

    rs_forecast_set(&a->forecast, f->predicts ? (double)f->period / 1e9 : 0,
                    f->predicts ? (unsigned)f->periods : 0);
    a->expected = rs_forecast_at(&a->forecast, (double)f->ahead / 1e9, wall);
    if (a->expected.load <= 0)
        return 0;
    replicas = ceil(a->expected.load / conf->autoscaling.target_ongoing_requests - 1e-9);
    return replicas < 1e6 ? (int)replicas : 1000000;
}

/* --- both --------------------------------------------------------------------------------------- */

static int at_most(int n, int upper)
{
    return n < upper ? n : upper;
}

int rs_ct_ahead_lower(struct rs_ct_deployment *d, int lower, bool rises, int64_t now)
{
    struct rs_ct_ahead *a = &d->ahead;
    double wall = rs_ct_wall(d->app->controller, now);
    int upper = d->conf->autoscaling.max_replicas, expected, scheduled;

    follow_schedule(a, &d->conf->foresight);
    look_at_schedule(a, wall);
    scheduled = at_most(scheduled_bound(a, d->conf, rises, lower), upper);
    expected = at_most(expected_bound(a, d->conf, wall), upper);
    a->predicted = expected;
    *a->reason = '\0';
    if (expected > scheduled)
        snprintf(a->reason, sizeof(a->reason),
                 "%.2f ongoing requests are expected, as in the last %u period%s", a->expected.load,
                 a->expected.of, a->expected.of == 1 ? "" : "s");
    else if (a->scheduled.entry >= 0)
        snprintf(a->reason, sizeof(a->reason), "schedule[%d] (%.60s, %.40s) asks for %d",
                 a->scheduled.entry, a->scheduled.cron, a->scheduled.zone,
                 a->scheduled.min_replicas);
    return expected > scheduled ? expected : scheduled;
}

int rs_ct_ahead_first(const struct rs_controller *c, const struct rs_deployment_conf *conf,
                      int lower)
{
    struct rs_ct_ahead a = {0};
    int ret;

    if (json_array_size(conf->foresight.schedule) == 0)
        return lower;
    follow_schedule(&a, &conf->foresight);
    look_at_schedule(&a, rs_ct_wall(c, c->now));
    ret = at_most(scheduled_bound(&a, conf, c->capacity_rises, lower),
                  conf->autoscaling.max_replicas);
    rs_ct_ahead_fini(&a);
    return ret;
}

void rs_ct_ahead_tell(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_controller *c = d->app->controller;

    if (rs_forecast_tell(&d->ahead.forecast, d->scale.total, rs_ct_wall(c, now)))
        c->forecasts_revision++;
}

int64_t rs_ct_ahead_deadline(const struct rs_ct_deployment *d)
{
    const struct rs_ct_ahead *a = &d->ahead;
    const struct rs_controller *c = d->app->controller;
    double until =
        a->schedule && a->scheduled.until != INT64_MAX ? (double)a->scheduled.until : INFINITY;

    if (a->forecast.period > 0)
        until = fmin(until, a->expected.until);
    until -= c->wall_offset_s;
    return until < 9e9 ? (int64_t)(until * 1e9) + RS_MS : INT64_MAX;
}

/* --- what it remembers, for the next head --------------------------------------------------------- */

static json_t *forecasts_of(const struct rs_ct_app *app)
{
    json_t *all = json_object();

    for (size_t k = 0; k < rs_map_slots(&app->deployments); k++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

        if (d && !d->gone && d->ahead.forecast.period > 0)
            json_object_set_new(all, d->name, rs_forecast_json(&d->ahead.forecast));
    }
    return all;
}

json_t *rs_controller_forecasts(const struct rs_controller *c)
{
    json_t *all = c->forecasts ? json_deep_copy(c->forecasts) : json_object(); /* to come */

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);
        rs_auto(rs_json_decrefp) json_t *own = app && !app->deleting ? forecasts_of(app) : NULL;

        if (!app || json_object_size(own) == 0)
            continue;
        if (json_object_get(all, app->name))
            json_object_update(json_object_get(all, app->name), own);
        else
            json_object_set(all, app->name, own);
    }
    return all;
}

uint64_t rs_controller_forecasts_revision(const struct rs_controller *c)
{
    return c->forecasts_revision;
}

void rs_controller_restore_forecasts(struct rs_controller *c, const json_t *forecasts)
{
    json_decref(c->forecasts);
    c->forecasts = json_deep_copy(forecasts);
}

void rs_ct_ahead_restore(struct rs_ct_deployment *d)
{
    const struct rs_foresight_conf *f = &d->conf->foresight;
    json_t *of_app = json_object_get(d->app->controller->forecasts, d->app->name);
    const json_t *own = json_object_get(of_app, d->name);

    if (!own || !f->predicts)
        return;
    rs_forecast_set(&d->ahead.forecast, (double)f->period / 1e9, (unsigned)f->periods);
    rs_forecast_restore(&d->ahead.forecast, own);
    json_object_del(of_app, d->name); /* of this head's making from here */
}

/* --- what people are told ------------------------------------------------------------------------- */

json_t *rs_ct_ahead_schedule_json(const struct rs_ct_deployment *d)
{
    const struct rs_ct_ahead *a = &d->ahead;
    const struct rs_schedule_now *s = &a->scheduled;
    json_t *until =
        s->until == INT64_MAX || s->until == INT64_MIN ? json_null() : json_integer(s->until);

    if (a->trouble) {
        json_decref(until);
        return json_pack("{s:s}", "trouble", a->trouble);
    }
    if (!a->schedule || s->entry < 0) {
        json_decref(until);
        return json_null();
    }
    return json_pack("{s:i, s:s, s:s, s:i, s:I, s:o}", "entry", s->entry, "cron", s->cron,
                     "timezone", s->zone, "min_replicas", s->min_replicas, "since_s",
                     (json_int_t)s->since, "until_s", until);
}

json_t *rs_ct_ahead_expected_json(const struct rs_ct_deployment *d)
{
    const struct rs_ct_ahead *a = &d->ahead;

    if (a->forecast.period <= 0)
        return json_null();
    return json_pack("{s:f, s:o, s:i, s:i, s:f}", "period_s", a->forecast.period, "requests",
                     a->expected.load < 0 ? json_null() : json_real(a->expected.load), "periods",
                     (int)a->expected.of, "replicas", a->predicted, "at_s", a->expected.at);
}
