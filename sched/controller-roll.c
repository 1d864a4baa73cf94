/* Which versions of a deployment there are, and how many replicas of each run. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "sched/controller-place.h"

#include <stdlib.h>
#include <string.h>

/* After a restart of the head, or when a node hung up, until all nodes that will be back are. */
#define BLIND (10 * RS_SEC)

unsigned rs_ct_run(const struct rs_ct_deployment *d)
{
    return d->next || rs_rollout_active(&d->roll) ? d->run : d->wanted;
}

unsigned rs_ct_roll_unit(const struct rs_deployment_conf *conf)
{
    return conf->gang_size > 0 ? (unsigned)conf->gang_size : 1;
}

void rs_ct_roll_drop(struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_old; i++)
        rs_ct_deployment_free(d->old[i]);
    free(d->old);
    d->old = NULL;
    d->n_old = 0;
    d->roll = (struct rs_rollout){0};
    rs_ct_set(&d->roll_text, NULL);
}

json_t *rs_ct_roll_code(const struct rs_ct_app *app)
{
    return json_pack("{s:s?, s:s?, s:s?, s:s?, s:s?, s:O?, s:O?, s:b, s:s?}", "version",
                     app->version, "route_prefix", app->route_prefix, "import_path",
                     app->import_path, "app_dir", app->app_dir, "python", app->python, "args",
                     app->args, "runtime_env", app->runtime_env, "spawn", (int)app->spawn,
                     "start_reason", app->start_reason);
}

/* --- what there is ------------------------------------------------------------------------------- */

static unsigned up_of(const struct rs_ct_seen *s)
{
    return s->running + s->updating;
}

struct sum {
    unsigned live, up;
};

/* Of the old versions. */
static struct sum old_sum(const struct rs_ct_deployment *d)
{
    struct sum sum = {0};

    for (size_t i = 0; i < d->n_old; i++) {
        struct rs_ct_seen s = rs_ct_look(d->app->controller, d->old[i]);

        sum.live += up_of(&s) + s.starting;
        sum.up += up_of(&s);
    }
    return sum;
}

/* As many take requests as should, by all nodes that are there. */
static bool complete(const struct rs_ct_deployment *d, const struct rs_ct_seen *s, struct sum old)
{
    return s->fresh && up_of(s) + old.up >= d->wanted;
}

void rs_ct_roll_away(struct rs_ct_deployment *d, int64_t now)
{
    d->away_until = now + BLIND;
}

/* Some of it may run where nobody sees it. */
static bool away(struct rs_ct_deployment *d, const struct rs_ct_seen *s, struct sum old,
                 int64_t now)
{
    if (d->away_until && (now >= d->away_until || complete(d, s, old)))
        d->away_until = 0;
    return d->away_until != 0;
}

/* --- another version ----------------------------------------------------------------------------- */

/* Its places, and what it counts by, become those of `to`. */
static void move_places(struct rs_ct_deployment *to, struct rs_ct_deployment *from)
{
    free(to->slots);
    free(to->units);
    to->slots = from->slots;
    to->n_slots = from->n_slots;
    to->cap_slots = from->cap_slots;
    to->units = from->units;
    to->n_units = from->n_units;
    to->cap_units = from->cap_units;
    for (size_t i = 0; i < to->n_units; i++)
        to->units[i]->of = to;
    from->slots = NULL;
    from->units = NULL;
    from->n_slots = from->cap_slots = from->n_units = from->cap_units = 0;
    to->has_holes = false;
}

static void add_old(struct rs_ct_deployment *d, struct rs_ct_deployment *old)
{
    old->app = d->app;
    old->next = d;
    rs_ct_set(&old->name, rs_strdup(d->name));
    d->old = rs_realloc(d->old, (d->n_old + 1) * sizeof(struct rs_ct_deployment *));
    d->old[d->n_old++] = old;
}

/* What runs becomes one of the old versions. */
static void set_aside(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_deployment *old = rs_alloc(sizeof(*old));
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);
    bool unseen = away(d, &s, old_sum(d), now);
    unsigned run = rs_ct_run(d);

    old->conf = rs_steal(d->conf);
    old->heavy = rs_strdup(d->heavy);
    old->version = rs_strdup(d->version);
    old->attempt = d->attempt;
    old->ingress = d->ingress;
    old->code = rs_steal(d->code);
    /* One that was given up, or never came up, is not started again. */
    old->failed = d->failed || (!s.ever_ran && up_of(&s) == 0 && !unseen);
    move_places(old, d);
    old->run = old->failed ? up_of(&s) : unseen ? run : (unsigned)old->n_slots;
    add_old(d, old);
}

static void remove_old(struct rs_ct_deployment *d, size_t i)
{
    memmove(&d->old[i], &d->old[i + 1], (d->n_old - i - 1) * sizeof(struct rs_ct_deployment *));
    d->n_old--;
}

/* An old version that is wanted again. NULL: it is none of them. */
static struct rs_ct_deployment *take_back(struct rs_ct_deployment *d, const char *heavy)
{
    for (size_t i = 0; i < d->n_old; i++) {
        struct rs_ct_deployment *old = d->old[i];

        if (strcmp(old->heavy, heavy) != 0 || old->failed)
            continue;
        remove_old(d, i);
        return old;
    }
    return NULL;
}

/* One that no version here has had. */
static unsigned next_attempt(const struct rs_ct_deployment *d, const char *heavy)
{
    unsigned attempt = strcmp(d->heavy, heavy) == 0 ? d->attempt + 1 : 0;

    for (size_t i = 0; i < d->n_old; i++)
        if (strcmp(d->old[i]->heavy, heavy) == 0 && d->old[i]->attempt >= attempt)
            attempt = d->old[i]->attempt + 1;
    return attempt;
}

static unsigned run_of_old(const struct rs_ct_deployment *d)
{
    unsigned n = 0;

    for (size_t i = 0; i < d->n_old; i++)
        n += d->old[i]->run;
    return n;
}

void rs_ct_roll_turn(struct rs_ct_deployment *d, const char *heavy, unsigned wanted, int64_t now)
{
    struct rs_ct_deployment *back;

    if (d->gone) {
        rs_ct_roll_drop(d);
        rs_deployment_conf_free(d->conf);
        d->conf = NULL;
    } else {
        set_aside(d, now);
    }
    back = take_back(d, heavy);
    d->attempt = back ? back->attempt : next_attempt(d, heavy);
    if (back)
        move_places(d, back);
    rs_ct_deployment_free(back);
    rs_ct_set(&d->heavy, rs_strdup(heavy));
    rs_ct_set(&d->version, d->attempt ? rs_asprintf("%s.%u", heavy, d->attempt) : rs_strdup(heavy));
    rs_ct_set(&d->roll_text, NULL);
    d->roll_kept = false;
    rs_rollout_begin(&d->roll, wanted, (unsigned)d->n_slots, run_of_old(d), now);
    d->run = d->roll.new_run;
    if (rs_rollout_active(&d->roll))
        rs_ct_roll_emit(d, "STARTED", "a new version takes the place of the old one");
}

/* --- deciding ------------------------------------------------------------------------------------ */

static bool places_missing_of_old(const struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_old; i++)
        if (d->old[i]->n_slots < d->old[i]->run)
            return true;
    return false;
}

/* Nothing is known of nodes that are not back yet. */
static bool blind(struct rs_ct_deployment *d, const struct rs_ct_seen *s, struct sum old,
                  int64_t now)
{
    const struct rs_controller *c = d->app->controller;

    if (d->roll_kept && (now - c->started_at >= BLIND || complete(d, s, old)))
        d->roll_kept = false;
    return d->roll_kept;
}

/* What runs is kept as it is. */
static void hold(struct rs_ct_deployment *d, const struct rs_ct_seen *s)
{
    d->run = d->roll.new_run = up_of(s) + s->starting;
    for (size_t i = 0; i < d->n_old; i++) {
        struct rs_ct_seen o = rs_ct_look(d->app->controller, d->old[i]);

        d->old[i]->run = up_of(&o) + o.starting;
    }
    d->roll.old_run = run_of_old(d);
}

/* The one that is started again. NULL: none is worth it. */
static struct rs_ct_deployment *base_of(const struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_old; i++)
        if (!d->old[i]->failed)
            return d->old[i];
    return NULL;
}

/* Versions that never got to the end go before the one that was there before them. */
static void share_out(struct rs_ct_deployment *d, unsigned old_run, bool fresh)
{
    struct rs_ct_deployment *base = base_of(d);
    unsigned sum = 0;

    for (size_t i = 0; i < d->n_old; i++) {
        struct rs_ct_deployment *old = d->old[i];
        struct rs_ct_seen s = rs_ct_look(d->app->controller, old);

        if (old != base && fresh && up_of(&s) < old->run)
            old->run = up_of(&s);
        sum += old->run;
    }
    for (size_t i = d->n_old; i-- > 0 && sum > old_run;) {
        struct rs_ct_deployment *old = d->old[i];
        unsigned less = sum - old_run < old->run ? sum - old_run : old->run;

        if (old == base && i + 1 < d->n_old && sum - base->run > old_run)
            continue;
        old->run -= less;
        sum -= less;
    }
    if (base && sum < old_run)
        base->run += old_run - sum;
}

/* Old versions of which nothing is left. The one that may be wanted again stays to the end. */
static void prune(struct rs_ct_deployment *d, bool fresh)
{
    const struct rs_ct_deployment *base = rs_rollout_active(&d->roll) ? base_of(d) : NULL;

    for (size_t i = d->n_old; i-- > 0;) {
        struct rs_ct_deployment *old = d->old[i];
        struct rs_ct_seen s = rs_ct_look(d->app->controller, old);

        if (old == base || old->run > 0 || old->n_units > 0 || up_of(&s) + s.starting > 0 || !fresh)
            continue;
        remove_old(d, i);
        rs_ct_deployment_free(old);
    }
}

static void stopped(struct rs_ct_deployment *d, const char *error)
{
    rs_auto(rs_freep) char *text = rs_ct_roll_verdict(d, error);
    bool told = d->failed; /* its starts were given up, and that has been said */

    d->failed = true;
    rs_ct_roll_emit(d, "STOPPED", text);
    if (told && d->roll.why == RS_ROLLOUT_WHY_START_FAILED)
        return;
    rs_ct_event(
        d, d->roll.why == RS_ROLLOUT_WHY_DEATHS ? RS_STATUS_HEALTH_FAILED : RS_STATUS_START_FAILED,
        rs_strdup(text));
}

static void tell(struct rs_ct_deployment *d, const char *error)
{
    rs_auto(rs_freep) char *notice = rs_ct_roll_notice(d);

    if (d->roll.phase == RS_ROLLOUT_STOPPED)
        stopped(d, error);
    else if (d->roll.phase == RS_ROLLOUT_PAUSED)
        rs_ct_roll_emit(d, "PAUSED", notice);
    else if (d->roll.phase == RS_ROLLOUT_DONE)
        rs_ct_roll_emit(d, "DONE", "no replica of the old version is left");
    else if (d->roll.why != RS_ROLLOUT_WHY_NONE)
        rs_ct_roll_emit(d, "WAITING", notice);
}

/* What is on its way out may still hold the room that is missing. */
static bool anything_leaves(const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        for (size_t k = 0; n && n->report && k < n->report->n_replicas; k++)
            if (n->report->replicas[k].state > RS_REPLICA_UPDATING)
                return true;
    }
    return false;
}

static struct rs_rollout_in look(const struct rs_ct_deployment *d, const struct rs_ct_seen *s,
                                 struct sum old)
{
    bool full = d->n_slots < d->run;
    /* The node knows better than the places: it has them and cannot start what is there. */
    bool blocked = !full && s->fresh && s->blocked && !anything_leaves(d->app->controller);

    return (struct rs_rollout_in){
        .wanted = d->wanted,
        .unit = rs_ct_roll_unit(d->conf),
        .new_live = up_of(s) + s->starting,
        .new_up = up_of(s),
        .old_live = old.live,
        .old_up = old.up,
        .leaving = s->stopping,
        .fresh = s->fresh,
        .full = full || blocked,
        .feasible = d->feasible || blocked,
        .old_full = places_missing_of_old(d),
        .failed = d->failed,
        .failures = s->failures_total,
        .deaths = s->deaths,
        .failure_limit = rs_ct_start_limit(d),
        .death_limit = rs_ct_roll_death_limit(d),
        .canary_share = d->canary_share > 0 ? d->canary_share : 100,
    };
}

static bool step(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);
    struct sum old = old_sum(d);
    unsigned run = d->run, old_run = run_of_old(d), best = d->roll.best;
    struct rs_rollout_in in = look(d, &s, old);

    in.blind = blind(d, &s, old, now);
    in.away = away(d, &s, old, now);
    if (rs_rollout_step(&d->roll, d->conf, &in, now))
        tell(d, s.last_error);
    else if (d->roll.best > best && rs_rollout_active(&d->roll))
        rs_ct_roll_emit(d, "STEP", "one more replica of the new version is ready");
    if (in.blind) {
        hold(d, &s);
    } else {
        d->run = d->roll.new_run;
        share_out(d, d->roll.old_run, s.fresh && !in.away);
        prune(d, s.fresh && !in.away);
    }
    return d->run != run || run_of_old(d) != old_run;
}

bool rs_ct_rolls_step(struct rs_controller *c, int64_t now)
{
    bool changed = false;

    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d && !d->gone && (d->n_old > 0 || rs_rollout_active(&d->roll)))
                changed |= step(d, now);
        }
    }
    return changed;
}

int64_t rs_ct_roll_deadline(const struct rs_ct_deployment *d)
{
    int64_t at = d->gone ? INT64_MAX : rs_rollout_deadline(&d->roll, d->conf);
    int64_t seeing = d->app->controller->started_at + BLIND;

    if (d->gone || !rs_rollout_active(&d->roll))
        return at;
    if (d->away_until && d->away_until < at)
        at = d->away_until;
    return d->roll_kept ? seeing : at;
}

/* --- room ---------------------------------------------------------------------------------------- */

static void give_groups(const struct rs_ct_board *b, const struct rs_ct_deployment *old,
                        struct rs_resources *free)
{
    const struct rs_controller *c = old->app->controller;

    for (size_t i = 0; i < old->n_units; i++) {
        const struct rs_ct_group *g = rs_ct_group_find(c, old->units[i]->group);

        for (size_t k = 0; g && k < g->n_bundles; k++)
            if (g->bundles[k].node)
                rs_resources_give(&free[rs_ct_board_index(b, g->bundles[k].node)],
                                  &g->bundles[k].want);
    }
}

void rs_ct_roll_give_old(const struct rs_ct_board *b, const struct rs_ct_deployment *d,
                         struct rs_resources *free)
{
    for (size_t i = 0; i < d->n_old; i++) {
        const struct rs_ct_deployment *old = d->old[i];
        bool grouped = rs_deployment_conf_grouped(old->conf);

        give_groups(b, old, free);
        for (size_t s = 0; !grouped && s < old->n_slots; s++)
            rs_resources_give(&free[rs_ct_board_index(b, old->slots[s].node)],
                              &old->conf->resources);
    }
}

/* --- orders -------------------------------------------------------------------------------------- */

bool rs_ct_roll_back(struct rs_ct_deployment *d, enum rs_rollout_why why, const char *text,
                     int64_t now)
{
    if (d->gone || !rs_rollout_abort(&d->roll, why, now))
        return false;
    rs_ct_set(&d->roll_text, rs_strdup(text));
    stopped(d, NULL);
    return true;
}

/* The same version once more, from the start. */
static bool try_again(struct rs_ct_deployment *d, int64_t now)
{
    rs_auto(rs_freep) char *heavy = rs_strdup(d->heavy);
    struct rs_deployment_conf *conf = NULL;
    struct rs_error err = {0};
    json_t *code = json_incref(d->code);

    if (rs_deployment_conf_from_json(&conf, d->conf->json, &err) < 0) {
        json_decref(code);
        return false;
    }
    rs_ct_roll_turn(d, heavy, d->wanted, now);
    d->conf = conf;
    d->code = code;
    rs_ct_version_begins(d);
    rs_ct_event(d, RS_STATUS_CONFIG, rs_strdup(""));
    return true;
}

bool rs_ct_roll_resume(struct rs_ct_deployment *d, int64_t now)
{
    struct rs_ct_seen s = rs_ct_look(d->app->controller, d);
    const struct rs_rollout_in in = {.failures = s.failures_total, .deaths = s.deaths};

    if (d->gone)
        return false;
    if (d->roll.phase == RS_ROLLOUT_STOPPED) {
        if (!try_again(d, now))
            return false;
    } else if (!rs_rollout_resume(&d->roll, &in, now)) {
        return false;
    }
    rs_ct_roll_emit(d, "RESUMED", "the roll goes on");
    return true;
}

static int order_one(struct rs_ct_deployment *d, enum rs_controller_roll order, int64_t now)
{
    if (order == RS_CONTROLLER_RESUME)
        return rs_ct_roll_resume(d, now);
    return rs_ct_roll_back(d, RS_ROLLOUT_WHY_ABORTED, NULL, now);
}

int rs_controller_roll(struct rs_controller *c, const char *name, const char *deployment,
                       enum rs_controller_roll order, int64_t now, struct rs_error *err)
{
    const struct rs_ct_app *app = rs_map_get(&c->apps, name);
    bool resume = order == RS_CONTROLLER_RESUME;
    int done = 0;

    if (!app)
        return rs_error_set(err, RS_NOT_FOUND, "there is no application '%s'", name);
    if (deployment && !rs_map_get(&app->deployments, deployment))
        return rs_error_set(err, RS_NOT_FOUND, "application '%s' has no deployment '%s'", name,
                            deployment);
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && (!deployment || strcmp(d->name, deployment) == 0))
            done += order_one(d, order, now);
    }
    if (done == 0)
        return rs_error_set(err, RS_CONFLICT, "nothing of application '%s'%s%s is %s", name,
                            deployment ? ", deployment " : "", deployment ? deployment : "",
                            resume ? "paused or stopped in a rollout" : "being rolled out");
    rs_ct_update(c, now);
    return done;
}
