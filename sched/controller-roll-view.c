/* What people and programs are told of a roll. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

char *rs_ct_roll_notice(const struct rs_ct_deployment *d)
{
    const struct rs_rollout *r = &d->roll;

    if (d->roll_kept && rs_rollout_active(r))
        return rs_strdup("The head was started anew: the rollout goes on when all nodes are back.");
    if (r->phase == RS_ROLLOUT_PAUSED && r->why == RS_ROLLOUT_WHY_PAUSE_AFTER)
        return rs_asprintf("The rollout is paused: %u of %u replicas run the new version. It goes "
                           "on with `rserve deploy --resume %s`, and back with `--abort %s`.",
                           r->ready, r->wanted, d->app->name, d->app->name);
    if (r->phase == RS_ROLLOUT_PAUSED)
        return rs_ct_canary_notice(d);
    if (rs_rollout_active(r) && r->why == RS_ROLLOUT_WHY_NO_ROOM)
        return rs_asprintf(
            "The rollout waits for room for a new replica beside the %u old ones%s%s.", r->old_up,
            d->blocked ? ": " : "", d->blocked ? d->blocked : "");
    if (rs_rollout_active(r) && r->why == RS_ROLLOUT_WHY_STOP_FIRST)
        return rs_asprintf("There is no room for a new replica beside the old ones%s%s: up to %u "
                           "old one%s at a time go first.",
                           d->blocked ? " (" : "", d->blocked ? d->blocked : "", r->batch,
                           d->blocked ? ")" : "");
    return NULL;
}

char *rs_ct_roll_hint(const struct rs_ct_deployment *d)
{
    const struct rs_rollout *r = &d->roll;
    unsigned left = r->wanted > r->new_run ? r->wanted - r->new_run : 0;

    if (!rs_rollout_active(r))
        return rs_strdup("");
    return rs_asprintf("\nThe rollout is stopped: the old version serves with %u of %u replicas. "
                       "Deploy another version, or go back for good: rserve deploy --rollback %s",
                       rs_rollout_goes_back(r) ? r->wanted : left, r->wanted, d->app->name);
}

static char *reason(const struct rs_ct_deployment *d, const char *error)
{
    const struct rs_rollout *r = &d->roll;
    const char *what = error ? error : "unknown";

    switch (r->why) {
    case RS_ROLLOUT_WHY_START_FAILED:
        return rs_asprintf("Replicas of the new version failed to start %u times (%u are allowed). "
                           "Error:\n%s",
                           r->failures, r->limit, what);
    case RS_ROLLOUT_WHY_DEATHS:
        return rs_asprintf("Replicas of the new version died or failed their health check %u times "
                           "(%u are allowed). Error:\n%s",
                           r->failures, r->limit, what);
    case RS_ROLLOUT_WHY_NO_PROGRESS:
        return rs_asprintf("No further replica of the new version was ready for %.0f s "
                           "(rserve.rollout.deadline_s); %u of %u are.",
                           (double)r->waited / 1e9, r->ready, r->wanted);
    case RS_ROLLOUT_WHY_ABORTED:
        return rs_strdup("The rollout was aborted.");
    case RS_ROLLOUT_WHY_CANARY_FAILED:
        return rs_strdup(d->roll_text ? d->roll_text
                                      : "The new version was judged to be worse than the old one.");
    default:
        return rs_strdup("");
    }
}

char *rs_ct_roll_verdict(const struct rs_ct_deployment *d, const char *error)
{
    rs_auto(rs_freep) char *why = reason(d, error);
    rs_auto(rs_freep) char *hint = rs_ct_roll_hint(d);

    return rs_asprintf("%s%s", why, hint);
}

static json_t *olds(const struct rs_ct_deployment *d)
{
    json_t *all = json_array();

    for (size_t i = 0; i < d->n_old; i++)
        json_array_append_new(all, json_pack("{s:s, s:i, s:b}", "version", d->old[i]->version,
                                             "replicas", (int)d->old[i]->run, "failed",
                                             (int)d->old[i]->failed));
    return all;
}

json_t *rs_ct_roll_json(const struct rs_ct_deployment *d)
{
    const struct rs_rollout *r = &d->roll;
    rs_auto(rs_freep) char *notice = rs_ct_roll_notice(d);

    if (r->phase == RS_ROLLOUT_IDLE)
        return json_null();
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:i, s:i, s:f, "
        "s:f, s:s?}",
        "phase", rs_rollout_phase_name(r->phase), "why", rs_rollout_why_name(r->why), "version",
        d->version, "old", olds(d), "wanted", (int)r->wanted, "surge", (int)r->surge, "batch",
        (int)r->batch, "ready", (int)r->ready, "new_up", (int)r->new_up, "old_up", (int)r->old_up,
        "new_target", (int)r->new_run, "old_target", (int)r->old_run, "share", r->share, "full",
        (int)r->full, "failures", (int)r->failures, "failure_limit", (int)r->limit, "started_at_s",
        rs_ct_wall(d->app->controller, r->started_at), "since_s",
        rs_ct_wall(d->app->controller, r->since), "text", notice);
}

void rs_ct_roll_emit(struct rs_ct_deployment *d, const char *status, const char *text)
{
    rs_auto(rs_json_decrefp) json_t *data = rs_ct_roll_json(d);
    const char *why = rs_rollout_why_name(d->roll.why);
    const struct rs_ct_deployment *base = d->n_old > 0 ? d->old[0] : NULL;

    rs_ct_emit(d->app->controller, &(struct rs_controller_event){
                                       .kind = RS_EVENT_ROLLOUT,
                                       .app = d->app->name,
                                       .deployment = d->name,
                                       .status = status,
                                       .text = text ? text : "",
                                       .before = base ? base->version : NULL,
                                       .after = d->version,
                                       .cause = *why ? why : NULL,
                                       .data = data,
                                   });
}
