/* Why an update of a deployment waits, pauses or has stopped. */
#include "sched/controller-why.h"

#include "core/base/json.h"
#include "sched/controller-roll.h"

#include <string.h>

static const char *cause_of(const struct rs_rollout *r)
{
    if (r->phase == RS_ROLLOUT_STOPPED)
        return "rollout_stopped";
    if (r->phase == RS_ROLLOUT_PAUSED)
        return r->why == RS_ROLLOUT_WHY_CANARY ? "rollout_canary" : "rollout_paused";
    if (r->why == RS_ROLLOUT_WHY_NO_ROOM)
        return "rollout_no_room";
    return r->why == RS_ROLLOUT_WHY_STOP_FIRST ? "rollout_stop_first" : "rollout_goes_on";
}

static bool needs_somebody(const struct rs_rollout *r)
{
    return r->phase == RS_ROLLOUT_STOPPED || r->why == RS_ROLLOUT_WHY_NO_ROOM ||
           r->why == RS_ROLLOUT_WHY_PAUSE_AFTER;
}

void rs_ct_why_roll(const struct rs_ct_deployment *d, const char *error, json_t *list, int64_t now)
{
    rs_auto(rs_json_decrefp) json_t *roll = NULL, *canary = NULL;
    json_t *r;

    if (!rs_rollout_active(&d->roll))
        return;
    roll = rs_ct_roll_json(d);
    canary = rs_ct_canary_json(d, now);
    r = rs_ct_reason(list, "rollout", cause_of(&d->roll),
                     needs_somebody(&d->roll) ? "bad" : "waits");
    json_object_set_new(r, "app", json_string(d->app->name));
    json_object_set(r, "rollout", roll);
    if (json_is_object(canary))
        json_object_set(r, "canary", canary);
    if (d->blocked &&
        (d->roll.why == RS_ROLLOUT_WHY_NO_ROOM || d->roll.why == RS_ROLLOUT_WHY_STOP_FIRST))
        json_object_set_new(r, "message", rs_ct_tail(d->blocked, 3));
    if (d->roll.phase == RS_ROLLOUT_STOPPED && error && d->roll.why != RS_ROLLOUT_WHY_ABORTED)
        json_object_set_new(r, "error", rs_ct_tail(error, 5));
    if (d->roll_text)
        json_object_set_new(r, "verdict", rs_ct_tail(d->roll_text, 3));
}
