/* What is remembered only for those who ask why: requests that were refused, replicas that were chosen to
 * go, builds. Nothing here decides anything.
 *
 * A deployment's `chosen` is [{"replica", "node", "at_s", "cause", "rank", "in_flight", "models", "to"}], oldest first: the last CHOSEN_MAX of them.
 */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <string.h>

enum { CHOSEN_MAX = 10 };

/* --- requests that were refused ------------------------------------------------------------------ */

static const struct rs_report_deployment *same_in(const struct rs_report *r,
                                                  const struct rs_report_deployment *as)
{
    for (size_t i = 0; r && i < r->n_deployments; i++)
        if (strcmp(r->deployments[i].name, as->name) == 0 &&
            strcmp(r->deployments[i].app, as->app) == 0)
            return &r->deployments[i];
    return NULL;
}

/* What a node counted anew has no rise. */
static uint64_t rise(uint64_t before, uint64_t after)
{
    return after > before ? after - before : 0;
}

static void count_deployment(const struct rs_controller *c, const struct rs_report *before,
                             const struct rs_report_deployment *y, double wall)
{
    static const struct rs_report_deployment none;
    const struct rs_ct_app *app = rs_map_get(&c->apps, y->app);
    struct rs_ct_deployment *d = app ? rs_map_get(&app->deployments, y->name) : NULL;
    const struct rs_report_deployment *x = same_in(before, y);

    if (!d)
        return;
    x = x ? x : &none;
    rs_minutes_add(&d->refused, "queue_full", rise(x->dropped_full, y->dropped_full), wall);
    rs_minutes_add(&d->refused, "shed", rise(x->dropped_shed, y->dropped_shed), wall);
    rs_minutes_add(&d->refused, "expired", rise(x->dropped_expired, y->dropped_expired), wall);
}

static void count_app(struct rs_ct_app *app, const json_t *before, json_t *after, double wall)
{
    const char *cause;
    json_t *n;

    json_object_foreach (after, cause, n)
        if (json_is_integer(n) && json_integer_value(n) > 0)
            rs_minutes_add(
                &app->refused, cause,
                rise((uint64_t)rs_json_int(before, cause, 0), (uint64_t)json_integer_value(n)),
                wall);
}

void rs_ct_count_refused(struct rs_controller *c, const struct rs_report *before,
                         const struct rs_report *after, int64_t now)
{
    double wall = rs_ct_wall(c, now);
    const char *name;
    json_t *causes;

    if (!before)
        return; /* who knows when that was */
    for (size_t i = 0; i < after->n_deployments; i++)
        if (after->deployments[i].dropped_full || after->deployments[i].dropped_shed ||
            after->deployments[i].dropped_expired)
            count_deployment(c, before, &after->deployments[i], wall);
    json_object_foreach (after->refused, name, causes) {
        struct rs_ct_app *app = rs_map_get(&c->apps, name);

        if (app)
            count_app(app, json_object_get(before->refused, name), causes, wall);
    }
}

/* --- replicas that were chosen to go ------------------------------------------------------------- */

static const struct rs_report_replica *at_slot(const struct rs_ct_deployment *d,
                                               const struct rs_ct_slot *slot)
{
    const struct rs_report *r = slot->node->report;

    for (size_t i = 0; r && i < r->n_replicas; i++) {
        const struct rs_report_replica *x = &r->replicas[i];

        if (x->rank == slot->rank && x->state <= RS_REPLICA_UPDATING &&
            strcmp(x->version, d->version) == 0 && strcmp(x->deployment, d->name) == 0 &&
            strcmp(x->app, d->app->name) == 0)
            return x;
    }
    return NULL;
}

void rs_ct_note_chosen(struct rs_ct_deployment *d, const struct rs_ct_slot *slot)
{
    struct rs_controller *c = d->app->controller;
    const struct rs_report_replica *r = at_slot(d, slot);
    rs_auto(rs_freep) char *text = NULL;
    json_t *one;

    if (!r || d->app->internal || d->next || rs_rollout_active(&d->roll))
        return; /* nothing runs there yet, or a new version takes its place */
    one = json_pack("{s:s, s:s, s:f, s:s, s:i, s:i, s:i, s:i}", "replica", r->replica_id, "node",
                    slot->node->name, "at_s", rs_ct_wall(c, c->now), "cause", "downscale", "rank",
                    (int)r->rank, "in_flight", (int)r->in_flight, "models", (int)r->models, "to",
                    (int)d->wanted);
    if (!d->chosen)
        d->chosen = json_array();
    if (json_array_size(d->chosen) >= CHOSEN_MAX)
        json_array_remove(d->chosen, 0);
    json_array_append_new(d->chosen, one);
    text = r->in_flight ? rs_asprintf("fewer replicas are wanted (%u); it has the fewest requests "
                                      "under way (%u) and finishes them first",
                                      d->wanted, r->in_flight)
                        : rs_asprintf("fewer replicas are wanted (%u), and it is idle", d->wanted);
    rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_REPLACE,
                                                .app = d->app->name,
                                                .deployment = d->name,
                                                .replica_id = r->replica_id,
                                                .node_id = slot->node->id,
                                                .status = "DOWNSCALE",
                                                .cause = "downscale",
                                                .text = text,
                                                .data = one});
}

/* --- builds -------------------------------------------------------------------------------------- */

void rs_ct_note_build(struct rs_ct_app *app, const char *status, const char *text, int64_t now)
{
    struct rs_controller *c = app->controller;
    rs_auto(rs_json_decrefp) json_t *data = NULL;
    bool begins = strcmp(status, "STARTED") == 0;

    if (begins)
        app->build_at = now;
    else
        data = json_pack("{s:f}", "took_s", (double)(now - app->build_at) / 1e9);
    rs_ct_emit(c, &(struct rs_controller_event){.kind = RS_EVENT_BUILD,
                                                .app = app->name,
                                                .node_id = app->builder,
                                                .status = status,
                                                .text = text,
                                                .data = data});
}
