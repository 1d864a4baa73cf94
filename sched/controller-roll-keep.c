/* What outlives a head of the versions of a deployment: how the wanted one is called, and what the old
 * ones are, so that nothing is replaced because the head forgot, and an old replica can be started
 * again. How many of each run the nodes report. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

static json_t *keep_old(const struct rs_ct_deployment *d)
{
    json_t *all = json_array();

    for (size_t i = 0; i < d->n_old; i++) {
        const struct rs_ct_deployment *o = d->old[i];

        json_array_append_new(
            all, json_pack("{s:s, s:s, s:i, s:b, s:b, s:O, s:O?}", "heavy", o->heavy, "version",
                           o->version, "attempt", (int)o->attempt, "failed", (int)o->failed,
                           "ingress", (int)o->ingress, "config", o->conf->json, "code", o->code));
    }
    return all;
}

json_t *rs_ct_roll_keep(const struct rs_ct_deployment *d)
{
    bool active = rs_rollout_active(&d->roll);

    if (!active && d->attempt == 0)
        return NULL;
    return json_pack("{s:s, s:i, s:s, s:s, s:b, s:i, s:i, s:s?, s:s?, s:o, s:o*}", "heavy",
                     d->heavy, "attempt", (int)d->attempt, "phase",
                     rs_rollout_phase_name(d->roll.phase), "why", rs_rollout_why_name(d->roll.why),
                     "past_pause", (int)d->roll.past_pause, "failures", (int)d->roll.failures,
                     "limit", (int)d->roll.limit, "text", d->roll_text, "message",
                     d->roll.phase == RS_ROLLOUT_STOPPED ? d->message : NULL, "old",
                     active ? keep_old(d) : json_array(), "canary", rs_ct_canary_keep(d));
}

/* --- taking it up -------------------------------------------------------------------------------- */

static struct rs_ct_deployment *old_from(const json_t *j)
{
    struct rs_deployment_conf *conf = NULL;
    struct rs_error err = {0};
    struct rs_ct_deployment *o;
    const json_t *code = json_object_get(j, "code");

    if (!rs_json_str(j, "heavy", NULL) || !rs_json_str(j, "version", NULL) ||
        rs_deployment_conf_from_json(&conf, json_object_get(j, "config"), &err) < 0)
        return NULL; /* of another version of rserve: its replicas go as new ones come up */
    o = rs_alloc(sizeof(*o));
    o->conf = conf;
    o->heavy = rs_strdup(rs_json_str(j, "heavy", ""));
    o->version = rs_strdup(rs_json_str(j, "version", ""));
    o->attempt = (unsigned)rs_json_int(j, "attempt", 0);
    o->failed = rs_json_bool(j, "failed", false);
    o->ingress = rs_json_bool(j, "ingress", false);
    o->code = json_is_object(code) ? json_deep_copy(code) : NULL;
    return o;
}

static void restore_old(struct rs_ct_deployment *d, const json_t *all)
{
    size_t i;
    const json_t *j;

    json_array_foreach (all, i, j) {
        struct rs_ct_deployment *o = old_from(j);

        if (!o)
            continue;
        o->app = d->app;
        o->next = d;
        o->name = rs_strdup(d->name);
        d->old = rs_realloc(d->old, (d->n_old + 1) * sizeof(struct rs_ct_deployment *));
        d->old[d->n_old++] = o;
    }
}

static void restore_roll(struct rs_ct_deployment *d, const json_t *j, bool same, unsigned wanted,
                         int64_t now)
{
    int phase = rs_rollout_phase_parse(rs_json_str(j, "phase", ""));
    int why = rs_rollout_why_parse(rs_json_str(j, "why", ""));

    restore_old(d, json_object_get(j, "old"));
    if (d->n_old == 0)
        return;
    rs_rollout_begin(&d->roll, wanted, 0, wanted, now); /* the numbers are those of the reports */
    d->roll_kept = true;
    if (!same) /* the configuration is another one: the version that was on its way is forgotten */
        return;
    d->roll.past_pause = rs_json_bool(j, "past_pause", false);
    rs_ct_canary_restore(d, json_object_get(j, "canary"));
    if (phase == RS_ROLLOUT_STOPPED && why > RS_ROLLOUT_WHY_NONE) {
        d->roll.phase = RS_ROLLOUT_STOPPED;
        d->roll.why = (enum rs_rollout_why)why;
        d->roll.failures = (unsigned)rs_json_int(j, "failures", 0);
        d->roll.limit = (unsigned)rs_json_int(j, "limit", 0);
        rs_ct_set(&d->roll_text, rs_strdup(rs_json_str(j, "text", NULL)));
        d->failed = true;
        rs_ct_event(d,
                    why == RS_ROLLOUT_WHY_DEATHS ? RS_STATUS_HEALTH_FAILED : RS_STATUS_START_FAILED,
                    rs_strdup(rs_json_str(j, "message", "")));
    }
}

void rs_ct_roll_restore(struct rs_ct_deployment *d, unsigned wanted, int64_t now)
{
    const struct rs_controller *c = d->app->controller;
    json_t *app = json_object_get(c->kept_rolls, d->app->name);
    rs_auto(rs_json_decrefp) json_t *j = json_incref(json_object_get(app, d->name));
    bool same = j && strcmp(rs_json_str(j, "heavy", ""), d->heavy) == 0;

    if (!j)
        return;
    json_object_del(app, d->name); /* of this head's making from here */
    if (same) {
        d->attempt = (unsigned)rs_json_int(j, "attempt", 0);
        rs_ct_set(&d->version,
                  d->attempt ? rs_asprintf("%s.%u", d->heavy, d->attempt) : rs_strdup(d->heavy));
    }
    restore_roll(d, j, same, wanted, now);
    d->run = 0;
}
