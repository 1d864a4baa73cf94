/* Updates, in words. */
#include "sched/why-text-internal.h"

#include <string.h>

static int64_t of_roll(const struct rs_telling *t, const char *key)
{
    return rs_json_int(json_object_get(t->r, "rollout"), key, 0);
}

static const char *app_of(const struct rs_telling *t)
{
    return rs_tell_str(t, "app");
}

/* "2 of 4 replicas run the new version, 2 the old one" */
static void progress(struct rs_telling *t)
{
    rs_tell(t, "%lld of %lld replica%s run the new version, %lld the old one",
            (long long)of_roll(t, "new_up"), (long long)of_roll(t, "wanted"),
            rs_tell_s(of_roll(t, "wanted")), (long long)of_roll(t, "old_up"));
}

void rs_tell_rollout_goes_on(struct rs_telling *t)
{
    rs_tell(t, "A new version takes the place of the old one.");
    progress(t);
    rs_tell_next(t,
                 "Nothing: old ones go as new ones are ready; at most %lld more than wanted run.",
                 (long long)of_roll(t, "surge"));
}

void rs_tell_rollout_no_room(struct rs_telling *t)
{
    rs_tell(t, "The update waits: there is no room for a new replica beside the old ones, and none "
               "of those may go first (when_full: wait).");
    progress(t);
    rs_tell_quote(t, "message");
    rs_tell_next(t, "Free so much or add a node; or let old ones go first: rserve: {rollout: "
                    "{when_full: stop_first}}.");
}

void rs_tell_rollout_stop_first(struct rs_telling *t)
{
    rs_tell(t,
            "The update goes on with fewer replicas: there is no room for a new one beside the old "
            "ones, so up to %lld old one%s at a time go first.",
            (long long)of_roll(t, "batch"), rs_tell_s(of_roll(t, "batch")));
    progress(t);
    rs_tell_quote(t, "message");
    rs_tell_next(t, "Nothing; with room for more (a node, fewer replicas of others) it keeps its "
                    "full number meanwhile.");
}

void rs_tell_rollout_paused(struct rs_telling *t)
{
    rs_tell(t, "The update is paused where pause_after says.");
    progress(t);
    rs_tell_next(t,
                 "If the new version is good: rserve deploy --resume %s; if not: rserve deploy "
                 "--abort %s.",
                 app_of(t), app_of(t));
}

static void side(struct rs_telling *t, const char *name)
{
    const json_t *s = json_object_get(json_object_get(t->r, "canary"), name);
    double p99 = rs_json_num(s, "p99_ms", -1);
    char slow[48] = "";

    if (!s)
        return;
    if (p99 >= 0)
        snprintf(slow, sizeof(slow), ", 99 %% within %.3g ms", p99);
    rs_tell(t, "%s version: %lld request%s, %lld failed, %lld replica%s died%s", name,
            (long long)rs_json_int(s, "requests", 0), rs_tell_s(rs_json_int(s, "requests", 0)),
            (long long)rs_json_int(s, "errors", 0), (long long)rs_json_int(s, "deaths", 0),
            rs_tell_s(rs_json_int(s, "deaths", 0)), slow);
}

static double weight(const json_t *canary)
{
    return 100 * rs_json_num(canary, "weight", 0);
}

void rs_tell_rollout_canary(struct rs_telling *t)
{
    const json_t *canary = json_object_get(t->r, "canary");
    const char *why = rs_json_str(canary, "why", "");

    rs_tell(
        t,
        "The new version is tried on %.4g %% of the requests: step %lld of %zu, for %.0f s of at "
        "least %g s.",
        weight(canary), (long long)rs_json_int(canary, "step", 0),
        json_array_size(json_object_get(canary, "steps")), rs_json_num(canary, "step_age_s", 0),
        rs_json_num(canary, "each_s", 0));
    side(t, "old");
    side(t, "new");
    if (strcmp(why, "too_few_requests") == 0)
        rs_tell_next(t, "It waits for more requests: so few say nothing.");
    else if (strcmp(why, "doubt") == 0)
        rs_tell_next(t,
                     "It waits: there are signs of harm, too few for a verdict. If you know "
                     "better: rserve deploy --abort %s.",
                     app_of(t));
    else
        rs_tell_next(t,
                     "Nothing: the next step comes by itself; harm ends it at once. By hand: "
                     "rserve deploy --abort %s.",
                     app_of(t));
}

static void stopped_by(struct rs_telling *t, const char *why)
{
    if (strcmp(why, "start_failed") == 0)
        rs_tell(t,
                "The update has stopped: replicas of the new version failed to start %lld time%s "
                "(%lld are allowed).",
                (long long)of_roll(t, "failures"), rs_tell_s(of_roll(t, "failures")),
                (long long)of_roll(t, "failure_limit"));
    else if (strcmp(why, "deaths") == 0)
        rs_tell(t,
                "The update has stopped: replicas of the new version died or fell ill %lld "
                "time%s (%lld are allowed).",
                (long long)of_roll(t, "failures"), rs_tell_s(of_roll(t, "failures")),
                (long long)of_roll(t, "failure_limit"));
    else if (strcmp(why, "no_progress") == 0)
        rs_tell(t,
                "The update has stopped: no further replica of the new version was ready in time "
                "(rollout.deadline_s).");
    else if (strcmp(why, "aborted") == 0)
        rs_tell(t, "The update was called off by hand.");
    else
        rs_tell(t, "The update has stopped: the new version did worse than the old one.");
}

void rs_tell_rollout_stopped(struct rs_telling *t)
{
    stopped_by(t, rs_json_str(json_object_get(t->r, "rollout"), "why", ""));
    progress(t);
    rs_tell_quote(t, "verdict");
    if (json_object_get(t->r, "error"))
        rs_tell_quote(t, "error");
    rs_tell_next(t,
                 "The old version goes on serving. Correct it and deploy again, or go back for "
                 "good: rserve deploy --rollback %s.",
                 app_of(t));
}
