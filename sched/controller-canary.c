/* The canary of a roll: what share of the requests the new version gets, fed by the reports, and what
 * follows for the roll.
 *
 * The share of a step is reached with the replicas: at no time does the new version get a larger part of
 * the requests than it has of the replicas that are up, so that neither version is short of them while
 * they change places. A step begins when its share is reached. What was reached stays, also when a new
 * replica dies. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "sched/canary.h"

#include <stdlib.h>
#include <string.h>

/* Of the version that rolls in, or that was rolled back. */
struct rs_ct_canary {
    struct rs_canary judge;
    char *version;
    double weight; /* that the routers are told, 0 to 1 */
    bool begun;    /* the first replica is up */
    size_t kept;   /* 1 + the step that an earlier head was at; 0: this one began it, or knows */
    bool back;     /* it was told that the last new replica is gone */
};

void rs_ct_canary_free(struct rs_ct_deployment *d)
{
    if (d->canary)
        free(d->canary->version);
    free(d->canary);
    d->canary = NULL;
    d->canary_share = 0;
}

static bool has_steps(const struct rs_ct_canary *k)
{
    return k->judge.conf.n_steps > 0;
}

static char *percent(double share)
{
    return rs_asprintf("%.4g%%", 100 * share);
}

static void emit(const struct rs_ct_deployment *d, const char *status, const char *cause,
                 double before, double after, const char *text, int64_t now)
{
    const struct rs_ct_canary *k = d->canary;
    rs_auto(rs_json_decrefp) json_t *data = rs_canary_json(&k->judge, now);
    rs_auto(rs_freep) char *was = percent(before);
    rs_auto(rs_freep) char *is = percent(after);

    rs_ct_emit(d->app->controller, &(struct rs_controller_event){
                                       .kind = RS_EVENT_CANARY,
                                       .app = d->app->name,
                                       .deployment = d->name,
                                       .status = status,
                                       .text = text,
                                       .before = before < 0 ? NULL : was,
                                       .after = after < 0 ? NULL : is,
                                       .cause = cause,
                                       .who = has_steps(k) ? "canary" : "analysis",
                                       .data = data,
                                   });
}

/* "step 2 of 3, 10% of the requests" */
static char *where(const struct rs_ct_canary *k, size_t step)
{
    rs_auto(rs_freep) char *share = NULL;

    if (!has_steps(k))
        return rs_strdup("analysis of the roll");
    share = percent(k->judge.conf.steps[step]);
    return rs_asprintf("step %zu of %zu, %s of the requests", step + 1, k->judge.conf.n_steps,
                       share);
}

/* --- verdicts ------------------------------------------------------------------------------------ */

static void roll_back(struct rs_ct_deployment *d, const char *cause, const char *what, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    rs_auto(rs_freep) char *at = where(k, k->judge.step);
    rs_auto(rs_freep) char *figures = rs_canary_text(&k->judge);
    rs_auto(rs_freep) char *text = rs_asprintf("%s (%s; %s)", what, at, figures);
    double before = k->weight;

    k->weight = 0;
    k->judge.state = RS_CANARY_HARMFUL;
    emit(d, "FAILED", cause, has_steps(k) ? before : -1, has_steps(k) ? 0 : -1, text, now);
    (void)rs_ct_roll_back(d, RS_ROLLOUT_WHY_CANARY_FAILED, text, now);
}

static void found_harm(struct rs_ct_deployment *d, int64_t now)
{
    enum rs_canary_why why = d->canary->judge.why;

    roll_back(d, rs_canary_why_name(why),
              why == RS_CANARY_ERRORS ? "The new version fails more often than the old one"
              : why == RS_CANARY_SLOW ? "The new version is slower than it may be"
                                      : "The new version had too few requests to be judged",
              now);
}

/* `step` is over, and did no harm. */
static void went_well(struct rs_ct_deployment *d, size_t step, const char *figures, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    bool passed = k->judge.state == RS_CANARY_PASSED;
    rs_auto(rs_freep) char *at = where(k, step);
    rs_auto(rs_freep) char *text = rs_asprintf("No harm (%s; %s)", at, figures);

    d->canary_share = 100 * rs_canary_share(&k->judge);
    emit(d, passed ? "PASSED" : "STEP", NULL, k->judge.conf.steps[step], rs_canary_share(&k->judge),
         text, now);
}

static void judge(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    rs_auto(rs_freep) char *figures = rs_canary_text(&k->judge); /* before they are begun anew */
    size_t step = k->judge.step;
    enum rs_canary_did did = rs_canary_tick(&k->judge, now);

    if (k->judge.state == RS_CANARY_HARMFUL)
        found_harm(d, now);
    else if (did != RS_CANARY_NOTHING)
        went_well(d, step, figures, now);
    else if (!has_steps(k) && d->roll.phase == RS_ROLLOUT_PAUSED &&
             d->roll.why == RS_ROLLOUT_WHY_PAUSE_AFTER && rs_canary_is_well(&k->judge)) {
        emit(d, "PASSED", NULL, -1, -1, figures, now);
        (void)rs_ct_roll_resume(d, now);
    }
}

/* --- life ---------------------------------------------------------------------------------------- */

static void begin(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_canary_conf conf = rs_canary_conf_of(&d->conf->rollout);

    rs_ct_canary_free(d);
    d->canary = rs_alloc(sizeof(*d->canary));
    d->canary->version = rs_strdup(d->version);
    rs_canary_start(&d->canary->judge, &conf, now);
    d->canary_share = conf.n_steps ? 100 * conf.steps[0] : 0;
}

/* An earlier head began it: it goes on with the step that it was at, from its beginning. What was counted
 * of it comes again with the first report of each node. */
static void take_up(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    struct rs_canary_conf conf = rs_canary_conf_of(&d->conf->rollout);
    size_t step = k->kept - 1;

    rs_canary_start(&k->judge, &conf, now);
    k->kept = 0;
    k->begun = true;
    k->judge.step = step < conf.n_steps ? step : conf.n_steps;
    if (has_steps(k) && step >= conf.n_steps)
        k->judge.state = RS_CANARY_PASSED;
    d->canary_share = has_steps(k) ? 100 * rs_canary_share(&k->judge) : 0;
}

/* The first replica of the new version takes requests: from here it counts. */
static void first_is_up(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    struct rs_canary_conf conf = k->judge.conf;
    rs_auto(rs_freep) char *at = where(k, 0);

    rs_canary_start(&k->judge, &conf, now);
    k->begun = true;
    emit(d, "STARTED", NULL, has_steps(k) ? 0 : -1, rs_canary_share(&k->judge), at, now);
}

static unsigned up(const struct rs_ct_deployment *d)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);

    return s.running + s.updating;
}

/* Part of the replicas that are up. */
static double part(const struct rs_ct_deployment *d)
{
    unsigned fresh = up(d), all = fresh;

    for (size_t i = 0; i < d->n_old; i++)
        all += up(d->old[i]);
    return all ? (double)fresh / all : 0;
}

/* As far as there are replicas for it. False: the share of the step is not reached. */
static bool raise(struct rs_ct_deployment *d)
{
    struct rs_ct_canary *k = d->canary;
    double share = rs_canary_share(&k->judge), room = has_steps(k) ? part(d) : 1;

    if (!has_steps(k))
        return true;
    if (room > share - 1e-9)
        room = share;
    if (room > k->weight)
        k->weight = room;
    return k->weight >= share;
}

/* The new version goes: when the last of it is gone, that is told. */
static void goes_back(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    struct rs_ct_seen s;

    k->weight = 0;
    if (k->back || d->roll.new_run > 0 || k->judge.state != RS_CANARY_HARMFUL)
        return;
    s = rs_ct_look(d->app->controller, d);
    if (!s.fresh || s.running + s.updating + s.starting + s.stopping > 0)
        return;
    k->back = true;
    emit(d, "ROLLED_BACK", NULL, -1, -1,
         "No replica of the new version is left; the old version has all requests", now);
}

static void follow(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_canary *k = d->canary;
    bool back = rs_rollout_goes_back(&d->roll);

    if (k && k->kept)
        take_up(d, now);
    if (!k || strcmp(k->version, d->version) != 0 ||
        (k->judge.state == RS_CANARY_HARMFUL && !back)) {
        if (back)
            return; /* an earlier head saw why */
        begin(d, now);
        k = d->canary;
    }
    if (back) {
        goes_back(d, now);
    } else if (d->roll.phase == RS_ROLLOUT_STOPPED) {
        if (has_steps(k))
            roll_back(d, rs_rollout_why_name(d->roll.why), "The new version does not stay up", now);
    } else if (k->begun || up(d) > 0) {
        if (!k->begun)
            first_is_up(d, now);
        if (!raise(d))
            rs_canary_hold(&k->judge, now);
        judge(d, now);
    }
}

static void each(struct rs_ct_deployment *d, int64_t now)
{
    const struct rs_rollout_conf *conf = d->conf ? &d->conf->rollout : NULL;
    bool wants = conf && (conf->canary.enabled || conf->analysis.enabled);

    if (!d->gone && wants && rs_rollout_active(&d->roll))
        follow(d, now);
    else if (d->canary)
        rs_ct_canary_free(d);
}

void rs_ct_canaries(struct rs_controller *c, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d)
                each(d, now);
        }
    }
}

int64_t rs_ct_canary_deadline(const struct rs_ct_deployment *d)
{
    bool runs = d->canary && d->canary->begun && rs_rollout_active(&d->roll) &&
                d->roll.phase != RS_ROLLOUT_STOPPED;

    return runs ? rs_canary_deadline(&d->canary->judge) : INT64_MAX;
}

/* --- across a restart of the head ---------------------------------------------------------------- */

json_t *rs_ct_canary_keep(const struct rs_ct_deployment *d)
{
    const struct rs_ct_canary *k = d->canary;

    if (!k || !k->begun || !has_steps(k))
        return NULL;
    return json_pack("{s:i, s:f}", "step", (int)k->judge.step, "weight", k->weight);
}

void rs_ct_canary_restore(struct rs_ct_deployment *d, const json_t *kept)
{
    int64_t step = rs_json_int(kept, "step", -1);

    if (step < 0 || step > RS_CANARY_STEPS_MAX)
        return;
    d->canary = rs_alloc(sizeof(*d->canary));
    d->canary->version = rs_strdup(d->version);
    d->canary->weight = rs_json_num(kept, "weight", 0);
    d->canary->kept = (size_t)step + 1;
}

/* --- what nodes say, and are told ---------------------------------------------------------------- */

/* What one node counted of the version; false: it does not say. */
static bool read_tallies(const struct rs_report_deployment *r, const char *version,
                         struct rs_tally of[2])
{
    const json_t *j = r ? r->versions : NULL;

    return j && strcmp(rs_json_str(j, "version", ""), version) == 0 &&
           rs_tally_from_json(&of[0], json_object_get(j, "old"), NULL) == 0 &&
           rs_tally_from_json(&of[1], json_object_get(j, "new"), NULL) == 0;
}

static void feed(struct rs_ct_canary *k, const struct rs_report_deployment *before,
                 const struct rs_report_deployment *after)
{
    struct rs_tally was[2], is[2], more[2];

    if (!read_tallies(after, k->version, is))
        return;
    /* A node that starts anew, or says it for the first time, counts from nothing. */
    for (int i = 0; i < 2; i++) {
        more[i] = is[i];
        if (read_tallies(before, k->version, was) && !rs_tally_since(&is[i], &was[i], &more[i]))
            more[i] = is[i];
    }
    rs_canary_feed(&k->judge, &more[0], &more[1]);
}

void rs_ct_canary_report(struct rs_controller *c, struct rs_report *before, struct rs_report *after)
{
    for (size_t i = 0; after && i < after->n_deployments; i++) {
        const struct rs_report_deployment *r = &after->deployments[i];
        const struct rs_ct_app *app = rs_map_get(&c->apps, r->app);
        const struct rs_ct_deployment *d =
            app && json_object_size(r->versions) ? rs_map_get(&app->deployments, r->name) : NULL;

        if (d && d->canary)
            feed(d->canary, before ? rs_report_deployment(before, r->app, r->name) : NULL, r);
    }
}

bool rs_ct_canary_splits(const struct rs_ct_deployment *d)
{
    return d->canary && rs_rollout_active(&d->roll) &&
           (!rs_rollout_goes_back(&d->roll) || d->roll.new_run + d->roll.new_up > 0);
}

json_t *rs_ct_canary_split(const struct rs_ct_deployment *d)
{
    const struct rs_ct_canary *k = d->canary;
    json_t *split = json_object();

    if (!rs_ct_canary_splits(d))
        return split;
    json_object_set_new(split, "version", json_string(k->version));
    if (has_steps(k))
        json_object_set_new(split, "weight", json_real(k->weight));
    return split;
}

char *rs_ct_canary_notice(const struct rs_ct_deployment *d)
{
    const struct rs_ct_canary *k = d->canary;
    rs_auto(rs_freep) char *at = k && !k->kept && k->judge.step < k->judge.conf.n_steps
                                     ? where(k, k->judge.step)
                                     : rs_strdup("some of the requests");
    const char *why = !k                                   ? ""
                      : k->judge.why == RS_CANARY_REQUESTS ? ", and has had too few requests so far"
                      : k->judge.why == RS_CANARY_DOUBT
                          ? ", and the evidence against it is not clear yet"
                          : "";

    return rs_asprintf("The new version is on trial (%s, from %u replica%s)%s.", at, d->roll.ready,
                       d->roll.ready == 1 ? "" : "s", why);
}

json_t *rs_ct_canary_json(const struct rs_ct_deployment *d, int64_t now)
{
    json_t *j = d->canary ? rs_canary_json(&d->canary->judge, now) : json_null();

    if (d->canary) {
        json_object_set_new(j, "version", json_string(d->canary->version));
        json_object_set_new(j, "weight",
                            has_steps(d->canary) ? json_real(d->canary->weight) : json_null());
    }
    return j;
}
