/* What each node is told: everything that should run and be routed there. */
#include "sched/controller-roll.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

/* A node is told of so many others that run a deployment, those that follow it in the order in which they
 * joined: each of them is told of as often as any other, and TARGETs do not grow with the square of the
 * cluster. */
#define REMOTES_MAX 32

/* Of one deployment, while targets are made. */
struct rs_ct_by_node {
    size_t *first;   /* by rs_ct_node.at: its first slot there + 1; 0: none */
    size_t *next;    /* by slot: the next one on the same node + 1; 0: none */
    unsigned *fresh; /* by rs_ct_node.at: up there, of the version that is told apart; NULL */
    struct rs_ct_node **ups; /* nodes where it takes requests and that others reach, by `at` */
    size_t n_ups;
};

static void by_node_free(struct rs_ct_deployment *d)
{
    if (!d->by_node)
        return;
    free(d->by_node->first);
    free(d->by_node->next);
    free(d->by_node->ups);
    free(d->by_node->fresh);
    free(d->by_node);
    d->by_node = NULL;
}

static unsigned fresh_on(const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    unsigned count = 0;

    for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
        const struct rs_report_replica *r = &n->report->replicas[i];

        count += (r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING) &&
                 strcmp(r->deployment, d->name) == 0 && strcmp(r->app, d->app->name) == 0 &&
                 strcmp(r->version, d->version) == 0;
    }
    return count;
}

static unsigned fresh_at(const struct rs_ct_by_node *b, const struct rs_ct_node *n)
{
    return b->fresh ? b->fresh[n->at] : 0;
}

static void by_node_make(const struct rs_controller *c, struct rs_ct_deployment *d)
{
    struct rs_ct_by_node *b = rs_alloc(sizeof(*b));
    size_t nodes = rs_map_slots(&c->nodes);

    (void)rs_ct_look(c, d); /* nodes have their places from here */
    b->first = rs_alloc((nodes + 1) * sizeof(*b->first));
    b->next = rs_alloc((d->n_slots + 1) * sizeof(*b->next));
    b->ups = rs_alloc((nodes + 1) * sizeof(struct rs_ct_node *));
    if (rs_ct_canary_splits(d))
        b->fresh = rs_alloc((nodes + 1) * sizeof(*b->fresh));
    for (size_t s = d->n_slots; s-- > 0;) {
        size_t at = d->slots[s].node->at;

        b->next[s] = b->first[at];
        b->first[at] = s + 1;
    }
    for (size_t i = 0; i < nodes; i++) {
        struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && n->address && !d->next && rs_ct_up_on(c, d, n) > 0)
            b->ups[b->n_ups++] = n;
        if (n && b->fresh)
            b->fresh[i] = fresh_on(n, d);
    }
    d->by_node = b;
}

/* Where in d->by_node->ups the ones that `self` is told of begin. */
static size_t first_remote(const struct rs_ct_by_node *b, const struct rs_ct_node *self)
{
    size_t low = 0, high = b->n_ups;

    if (b->n_ups <= REMOTES_MAX + 1)
        return 0;
    while (low < high) {
        size_t mid = (low + high) / 2;

        if (b->ups[mid]->at <= self->at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The i-th of the nodes that `self` is told of; NULL: no further one. */
static const struct rs_ct_node *remote_at(const struct rs_ct_by_node *b,
                                          const struct rs_ct_node *self, size_t first, size_t i)
{
    const struct rs_ct_node *n;

    if (i >= b->n_ups || i > REMOTES_MAX)
        return NULL;
    n = b->ups[(first + i) % b->n_ups];
    return n != self ? n : NULL;
}

/* Twice where versions are told apart. */
static void add_remote(struct rs_target_deployment *t, const struct rs_ct_node *n, unsigned up,
                       unsigned fresh, const char *version)
{
    if (up > fresh)
        rs_target_add_remote(t, n->id, n->address, up - fresh);
    if (fresh > 0)
        rs_target_add_remote(t, n->id, n->address, fresh)->version = rs_strdup(version);
}

static void add_remotes(struct rs_target_deployment *t, const struct rs_controller *c,
                        const struct rs_ct_node *self, const struct rs_ct_deployment *d)
{
    size_t first = first_remote(d->by_node, self);

    for (size_t i = 0; i < d->by_node->n_ups && i <= REMOTES_MAX; i++) {
        const struct rs_ct_node *n = remote_at(d->by_node, self, first, i);

        if (n)
            add_remote(t, n, rs_ct_up_on(c, d, n), fresh_at(d->by_node, n), d->version);
    }
}

/* One that is being deleted is, until another one has its route. */
static bool is_told(const struct rs_ct_app *app)
{
    return app->live && (!app->deleting || app->held);
}

/* Those of the wanted version and of the old one. */
static void add_places(struct rs_target_deployment *t, const struct rs_controller *c,
                       const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_units; i++) {
        const struct rs_ct_unit *u = d->units[i];

        for (size_t k = 0; k < u->n && u->state != RS_UNIT_LEAVING; k++) {
            struct rs_target_place *p;

            if (rs_ct_unit_node(c, u, k) != n)
                continue;
            p = rs_target_add_place(t, u->members[k].id);
            p->version = rs_strdup(u->version);
            p->rank = u->members[k].rank;
            p->end = u->state == RS_UNIT_BROKEN;
            p->group = rs_strdup(u->group);
            p->gang = json_copy(u->gang);
            if (json_object_size(p->gang) > 0)
                json_object_set_new(p->gang, "rank", json_integer((json_int_t)k));
            t->ranks = rs_realloc(t->ranks, (t->replicas + 1) * sizeof(*t->ranks));
            if (!p->end)
                t->ranks[t->replicas++] = p->rank;
        }
    }
}

/* All of it that is not the same for every node: what changes here must change own_text too. */
static void add_own(struct rs_target_deployment *t, const struct rs_controller *c,
                    const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    const struct rs_ct_by_node *b = d->by_node;
    size_t cap = 0;

    for (size_t s = b->first[n->at]; s && !rs_deployment_conf_grouped(d->conf);
         s = b->next[s - 1]) {
        t->ranks = rs_grow(t->ranks, &cap, t->replicas + 1u, sizeof(*t->ranks));
        t->ranks[t->replicas++] = d->slots[s - 1].rank;
    }
    add_places(t, c, n, d);
    add_remotes(t, c, n, d);
}

/* What add_own tells, in short: the same text, the same TARGET. */
static void own_text(struct rs_buf *out, const struct rs_controller *c, const struct rs_ct_node *n,
                     const struct rs_ct_deployment *d)
{
    const struct rs_ct_by_node *b = d->by_node;
    size_t first = first_remote(b, n);

    rs_buf_puts(out, ";");
    for (size_t s = b->first[n->at]; s; s = b->next[s - 1])
        rs_buf_printf(out, "%u ", d->slots[s - 1].rank);
    for (size_t i = 0; i < d->n_units; i++) {
        const struct rs_ct_unit *u = d->units[i];

        for (size_t k = 0; k < u->n && u->state != RS_UNIT_LEAVING; k++)
            if (rs_ct_unit_node(c, u, k) == n)
                rs_buf_printf(out, "%s=%u,%d,%s,%s ", u->members[k].id, u->members[k].rank,
                              (int)u->state, u->version, u->group);
    }
    for (size_t i = 0; i < b->n_ups && i <= REMOTES_MAX; i++) {
        const struct rs_ct_node *m = remote_at(b, n, first, i);

        if (m)
            rs_buf_printf(out, "@%llu=%u/%u", (unsigned long long)m->serial, rs_ct_up_on(c, d, m),
                          fresh_at(b, m));
    }
}

static unsigned wanted_of(const struct rs_ct_deployment *d)
{
    return d->next ? d->next->wanted : d->wanted;
}

/* `n` NULL: what all nodes are told. */
static void add_deployment(struct rs_target_app *app, const struct rs_controller *c,
                           const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    struct rs_target_deployment *t = rs_target_add_deployment(app, d->name);

    t->version = rs_strdup(d->version);
    t->config = json_incref(d->core ? d->raw : d->conf->json);
    t->core = json_incref(d->core);
    t->world_size = wanted_of(d);
    t->start_limit = d->next ? 0 : rs_ct_start_limit(d); /* an old version is never given up */
    t->ingress = d->ingress;
    t->failed = d->failed;
    t->split = rs_ct_canary_split(d);
    if (n)
        add_own(t, c, n, d);
}

static void add_app(struct rs_target *t, const struct rs_ct_node *n, const struct rs_ct_app *app)
{
    struct rs_target_app *ta = rs_target_add_app(t, app->name);

    ta->version = rs_strdup(app->version);
    ta->route_prefix = rs_strdup(app->route_prefix);
    ta->docs_path = rs_strdup(app->docs_path);
    ta->ingress = rs_strdup(app->internal ? "-" : app->graph->nodes[app->graph->ingress].name);
    ta->zygote = rs_strdup(app->zygote);
    ta->import_path = rs_strdup(app->import_path);
    ta->app_dir = rs_strdup(app->app_dir);
    ta->python = rs_strdup(app->python);
    ta->args = json_incref(app->args);
    ta->runtime_env = json_incref(app->runtime_env);
    ta->policy = json_incref(app->ingress_policy);
    ta->graph = json_incref(app->declared);
    ta->spawn = app->spawn;
    ta->start_reason = rs_strdup(app->start_reason);
    for (size_t i = 0; app->internal && i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        if (d && !d->gone)
            add_deployment(ta, app->controller, n, d);
    }
    for (size_t i = 0; !app->internal && i < app->graph->count; i++) {
        const struct rs_ct_deployment *d = rs_map_get(&app->deployments, app->graph->nodes[i].name);

        if (d && !d->gone)
            add_deployment(ta, app->controller, n, d);
    }
}

static bool takes_http(const struct rs_controller *c, const struct rs_ct_node *n)
{
    return c->started &&
           (!n || c->started->proxy_location == RS_PROXY_EVERY_NODE ||
            (c->started->proxy_location == RS_PROXY_HEAD_ONLY && strcmp(n->id, c->node_id) == 0));
}

static void set_http(struct rs_target_http *http, const struct rs_controller *c,
                     const struct rs_ct_node *n)
{
    const struct rs_http_options *o = c->started ? &c->started->http : NULL;

    http->host = rs_strdup(o && o->host ? o->host : "127.0.0.1");
    http->port = o && takes_http(c, n) ? o->port : 0;
    http->root_path = rs_strdup(o && o->root_path ? o->root_path : "");
    http->request_timeout_s = o && o->request_timeout > 0 ? (double)o->request_timeout / 1e9 : 0;
    http->keep_alive_timeout_s = o ? (double)o->keep_alive_timeout / 1e9 : 90;
    http->access_log = rs_strdup(o ? o->access_log : NULL);
    http->access_log_json = o && o->access_log_format == RS_ENCODING_JSON;
    http->front = o ? rs_http_front_json(o) : json_object();
}

static char *text_of(const json_t *code, const char *key)
{
    return rs_strdup(rs_json_str(code, key, NULL));
}

/* An old version: its code, and how many of it are kept up. */
static void add_old(struct rs_target *t, const struct rs_controller *c, const struct rs_ct_node *n,
                    const struct rs_ct_deployment *d)
{
    struct rs_target_app *ta = rs_target_add_old(t, d->app->name);
    const json_t *code = d->code;

    ta->version = rs_strdup(rs_json_str(code, "version", d->app->version));
    ta->route_prefix = text_of(code, "route_prefix");
    ta->ingress = rs_strdup("-");
    ta->import_path = text_of(code, "import_path");
    ta->app_dir = text_of(code, "app_dir");
    ta->python = text_of(code, "python");
    ta->args = json_incref(json_object_get(code, "args"));
    ta->runtime_env = json_incref(json_object_get(code, "runtime_env"));
    ta->spawn = rs_json_bool(code, "spawn", false);
    ta->start_reason = text_of(code, "start_reason");
    add_deployment(ta, c, n, d);
}

static void add_olds(struct rs_target *t, const struct rs_controller *c, const struct rs_ct_node *n,
                     const struct rs_ct_app *app)
{
    for (size_t i = 0; i < rs_map_slots(&app->deployments); i++) {
        const struct rs_ct_deployment *d = rs_map_at(&app->deployments, i, NULL);

        for (size_t k = 0; d && !d->gone && k < d->n_old; k++)
            add_old(t, c, n, d->old[k]);
    }
}

/* A node that joins may run what an earlier head told it to. It is told nothing before it said what
 * that is, and nothing while an application of which it has replicas is not built here yet: a TARGET
 * without it would end them. */
static bool too_early(const struct rs_controller *c, const struct rs_ct_node *n)
{
    if (n->sent)
        return false;
    for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
        const struct rs_ct_app *app = rs_map_get(&c->apps, n->report->replicas[i].app);

        if (app && !app->live && (app->build == RS_BUILD_WANTED || app->build == RS_BUILD_RUNNING))
            return true;
    }
    return !n->report;
}

static json_t *target_json(const struct rs_controller *c, const struct rs_ct_node *n)
{
    rs_auto(rs_target_freep) struct rs_target *t = rs_target_new();

    t->populated = c->populated;
    set_http(&t->http, c, n);
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        if (!app || !is_told(app))
            continue;
        add_app(t, n, app);
        add_olds(t, c, n, app);
    }
    return rs_target_to_json(t);
}

/* For every deployment. */
static void each(struct rs_controller *c,
                 void (*fn)(struct rs_controller *c, struct rs_ct_deployment *d))
{
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d)
                fn(c, d);
        }
    }
}

static void prepare(struct rs_controller *c, struct rs_ct_deployment *d)
{
    if (!is_told(d->app) || d->gone)
        return;
    by_node_make(c, d);
    for (size_t i = 0; i < d->n_old; i++)
        by_node_make(c, d->old[i]);
}

static void tidy(struct rs_controller *c, struct rs_ct_deployment *d)
{
    by_node_free(d);
    for (size_t i = 0; i < d->n_old; i++)
        by_node_free(d->old[i]);
}

static void note_common(struct rs_controller *c)
{
    rs_auto(rs_json_decrefp) json_t *j = target_json(c, NULL);
    char *text = rs_json_dump(j);

    if (c->common && strcmp(c->common, text) == 0) {
        free(text);
        return;
    }
    rs_ct_set(&c->common, text);
    c->common_serial++;
}

static char *own_of(const struct rs_controller *c, const struct rs_ct_node *n)
{
    struct rs_buf out = {0};

    rs_buf_puts(&out, "");
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (!d || !d->by_node)
                continue;
            own_text(&out, c, n, d);
            for (size_t o = 0; o < d->n_old; o++)
                own_text(&out, c, n, d->old[o]);
        }
    }
    return rs_buf_steal(&out);
}

static void send_target(struct rs_controller *c, struct rs_ct_node *n, int64_t now)
{
    rs_auto(rs_json_decrefp) json_t *j = NULL;
    uint64_t by_clock = (uint64_t)(rs_ct_wall(c, now) * 1000);
    char *own = own_of(c, n);

    if (n->sent && n->sent_common == c->common_serial && strcmp(n->sent, own) == 0) {
        free(own);
        return;
    }
    rs_ct_set(&n->sent, own);
    n->sent_common = c->common_serial;
    j = target_json(c, n);
    /* By the clock, so that a head that starts anew goes on above what it told before. */
    c->revision = by_clock > c->revision ? by_clock : c->revision + 1;
    n->sent_revision = c->revision;
    json_object_set_new(j, "revision", json_integer((json_int_t)c->revision));
    c->ops.target(n->id, j, c->arg);
}

void rs_ct_send_targets(struct rs_controller *c, int64_t now)
{
    each(c, prepare);
    note_common(c);
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && !too_early(c, n))
            send_target(c, n, now);
    }
    each(c, tidy);
}
